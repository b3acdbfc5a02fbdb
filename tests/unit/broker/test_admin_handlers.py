"""The admin handlers where the oracle (../shared/oracle) does not look: vectors, restarts, what the codec round trip keeps."""

import pytest

from broker.configs.definition import ConfigResource
from broker.meta_store import MetaStore
from broker.operations import CLUSTER_OPERATIONS, NOT_ASKED, TOPIC_OPERATIONS
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import (
    AlterConfigsRequest,
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteRecordsRequest,
    DeleteTopicsRequest,
    DescribeConfigsRequest,
    DescribeTopicPartitionsRequest,
    IncrementalAlterConfigsRequest,
    InitProducerIdRequest,
    ListOffsetsRequest,
    MetadataRequest,
    OffsetForLeaderEpochRequest,
)
from storage.config import LogConfig
from storage.log import PartitionLog
from storage.log_manager import LogManager
from tests.unit.broker.admin import Admin

SET, DELETE, APPEND, SUBTRACT = range(4)
NO_ID = bytes(16)


@pytest.fixture
def admin() -> Admin:
    return Admin()


def created(admin: Admin, name: str, version: int = 7, validate_only: bool = False, **configs: str):  # type: ignore[no-untyped-def]
    topic = CreateTopicsRequest.CreatableTopic(
        name=name,
        num_partitions=2,
        replication_factor=-1,
        configs=[
            CreateTopicsRequest.CreatableTopicConfig(name=key.replace("_", "."), value=value)
            for key, value in configs.items()
        ],
    )
    request = CreateTopicsRequest(topics=[topic], validate_only=validate_only)
    return admin.ask(ApiKey.CREATE_TOPICS, version, request).topics[0]


def described(admin: Admin, name: str) -> dict[str, tuple[str | None, int]]:
    resource = DescribeConfigsRequest.DescribeConfigsResource(
        resource_type=ConfigResource.TOPIC, resource_name=name, configuration_keys=None
    )
    answer = admin.ask(ApiKey.DESCRIBE_CONFIGS, 4, DescribeConfigsRequest(resources=[resource]))
    return {entry.name: (entry.value, entry.config_source) for entry in answer.results[0].configs}


def altered(admin: Admin, name: str, *changes: tuple[str, int, str | None], validate_only: bool = False):  # type: ignore[no-untyped-def]
    resource = IncrementalAlterConfigsRequest.AlterConfigsResource(
        resource_type=ConfigResource.TOPIC,
        resource_name=name,
        configs=[
            IncrementalAlterConfigsRequest.AlterableConfig(name=key, config_operation=operation, value=value)
            for key, operation, value in changes
        ],
    )
    request = IncrementalAlterConfigsRequest(resources=[resource], validate_only=validate_only)
    return admin.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, request).responses[0]


def metadata(admin: Admin, *names: str, version: int = 12, **fields):  # type: ignore[no-untyped-def]
    topics = [MetadataRequest.MetadataRequestTopic(name=name) for name in names]
    return admin.ask(ApiKey.METADATA, version, MetadataRequest(topics=topics, **fields))


def test_vector_configs_are_ordinary_topic_configs(admin: Admin) -> None:
    assert created(admin, "logs", vector_enabled="true", vector_metric="dot").error_code == 0
    assert described(admin, "logs")["vector.metric"] == ("dot", 1)
    assert altered(admin, "logs", ("vector.metric", DELETE, None), ("vector.hnsw.m", SET, "32")).error_code == 0
    shown = described(admin, "logs")
    assert (shown["vector.metric"], shown["vector.hnsw.m"]) == (("cosine", 5), ("32", 1))
    refused = altered(admin, "logs", ("vector.hnsw.m", SET, "lots"))
    assert refused.error_code == ErrorCode.INVALID_CONFIG
    assert "vector.hnsw.m" in refused.error_message
    topic = admin.topics.get("logs")
    assert topic is not None
    assert topic.vector is not None
    assert topic.vector.hnsw_m == 32


def test_a_topic_without_vectors_is_created_with_the_configs_that_kafka_lists(admin: Admin) -> None:
    names = [config.name for config in created(admin, "plain").configs]
    assert len(names) == 33
    assert "vector.enabled" not in names
    assert "vector.enabled" in [config.name for config in created(admin, "vectors", vector_enabled="true").configs]


def test_names_collide_with_topics_before_the_request_only(admin: Admin) -> None:
    topics = [
        CreateTopicsRequest.CreatableTopic(name=name, num_partitions=1, replication_factor=1) for name in ("a.b", "a_b")
    ]
    answer = admin.ask(ApiKey.CREATE_TOPICS, 5, CreateTopicsRequest(topics=topics, timeout_ms=1000))
    assert [result.error_code for result in answer.topics] == [0, 0]  # as Kafka 4.3 has it
    assert created(admin, "a-b").error_code == 0
    topics = [
        CreateTopicsRequest.CreatableTopic(name=name, num_partitions=1, replication_factor=1) for name in ("c_d", "a.b")
    ]
    assert created(admin, "c.d").error_code == 0
    answer = admin.ask(ApiKey.CREATE_TOPICS, 5, CreateTopicsRequest(topics=topics, timeout_ms=1000))
    codes = [ErrorCode.INVALID_TOPIC_EXCEPTION, ErrorCode.TOPIC_ALREADY_EXISTS]
    assert [result.error_code for result in answer.topics] == codes
    admin.restart()
    assert {"a.b", "a_b"} <= set(admin.topics.names())


def test_the_topics_of_a_request_are_written_together(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write of the metadata is two syncs on the event loop. What fails takes nothing with it."""
    writes: list[object] = []
    replace = MetaStore.replace
    monkeypatch.setattr(MetaStore, "replace", lambda *store, **changes: (writes.append(0), replace(*store, **changes)))
    names = [f"t{number}" for number in range(50)] + ["not allowed"]
    topics = [CreateTopicsRequest.CreatableTopic(name=name, num_partitions=1, replication_factor=1) for name in names]
    answer = admin.ask(ApiKey.CREATE_TOPICS, 7, CreateTopicsRequest(topics=topics, timeout_ms=1000))
    assert [result.error_code for result in answer.topics] == [0] * 50 + [ErrorCode.INVALID_TOPIC_EXCEPTION]
    assert len(writes) == 1
    assert [result.topic_id for result in answer.topics[:50]] == [
        admin.topics.get(name).topic_id for name in names[:50]
    ]
    admin.restart()
    assert admin.topics.names() == sorted(names[:50])


def test_a_topic_whose_logs_cannot_be_created_leaves_those_of_the_same_request(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_log = LogManager.create_log

    def refuse(logs: LogManager, topic_id: bytes, topic: str, partition: int, config: LogConfig) -> PartitionLog:
        if (topic, partition) == ("b", 1):
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "no room")
        return create_log(logs, topic_id, topic, partition, config)

    monkeypatch.setattr(LogManager, "create_log", refuse)
    topics = [CreateTopicsRequest.CreatableTopic(name=name, num_partitions=2, replication_factor=1) for name in "abc"]
    answer = admin.ask(ApiKey.CREATE_TOPICS, 7, CreateTopicsRequest(topics=topics, timeout_ms=1000))
    assert [result.error_code for result in answer.topics] == [0, ErrorCode.KAFKA_STORAGE_ERROR, 0]
    assert sorted(log.topic for log in admin.logs.logs()) == ["a", "a", "c", "c"]
    admin.restart()
    assert admin.topics.names() == ["a", "c"]


def test_only_validating_creates_nothing(admin: Admin) -> None:
    assert created(admin, "logs", validate_only=True).error_code == 0
    assert admin.topics.get("logs") is None
    created(admin, "logs")
    altered(admin, "logs", ("retention.ms", SET, "5"), validate_only=True)
    assert described(admin, "logs")["retention.ms"] == ("604800000", 5)


def test_metadata_creates_on_request_and_answers_with_a_leader(admin: Admin) -> None:
    topic = metadata(admin, "new", allow_auto_topic_creation=True).topics[0]
    assert (topic.error_code, [p.leader_id for p in topic.partitions]) == (0, [1])
    assert metadata(admin, "other", allow_auto_topic_creation=False).topics[0].error_code == 3
    assert metadata(admin, "__consumer_offsets", allow_auto_topic_creation=True).topics[0].error_code == 3
    assert Admin(auto_create_topics_enable=False).topics.names() == []


def test_metadata_does_not_create_where_the_broker_forbids_it() -> None:
    admin = Admin(auto_create_topics_enable=False)
    assert metadata(admin, "new", allow_auto_topic_creation=True).topics[0].error_code == 3


@pytest.mark.parametrize("version", range(14))
def test_metadata_of_all_topics_and_of_none(admin: Admin, version: int) -> None:
    created(admin, "a")
    created(admin, "b")
    every = MetadataRequest(topics=[] if version == 0 else None)
    assert [topic.name for topic in admin.ask(ApiKey.METADATA, version, every).topics] == ["a", "b"]
    if version:
        assert admin.ask(ApiKey.METADATA, version, MetadataRequest(topics=[])).topics == []


def test_metadata_by_id(admin: Admin) -> None:
    topic_id = created(admin, "logs").topic_id
    asked = [MetadataRequest.MetadataRequestTopic(name=None, topic_id=ident) for ident in (topic_id, b"\1" * 16)]
    found = admin.ask(ApiKey.METADATA, 12, MetadataRequest(topics=asked)).topics
    assert [(topic.name, topic.error_code) for topic in found] == [("logs", 0), (None, ErrorCode.UNKNOWN_TOPIC_ID)]
    asked = [MetadataRequest.MetadataRequestTopic(name="logs", topic_id=topic_id)]
    refused = admin.ask(ApiKey.METADATA, 10, MetadataRequest(topics=asked)).topics
    assert [topic.error_code for topic in refused] == [ErrorCode.INVALID_REQUEST]


def test_operations_are_told_only_when_asked_for(admin: Admin) -> None:
    created(admin, "logs")
    silent = metadata(admin, "logs", version=8)
    assert (silent.cluster_authorized_operations, silent.topics[0].topic_authorized_operations) == (
        NOT_ASKED,
        NOT_ASKED,
    )
    told = metadata(
        admin, "logs", version=8, include_cluster_authorized_operations=True, include_topic_authorized_operations=True
    )
    assert told.cluster_authorized_operations == CLUSTER_OPERATIONS
    assert told.topics[0].topic_authorized_operations == TOPIC_OPERATIONS == 3576


def test_configs_that_replace_all_unset_what_is_not_given(admin: Admin) -> None:
    created(admin, "logs", retention_ms="1", segment_ms="2")
    resource = AlterConfigsRequest.AlterConfigsResource(
        resource_type=ConfigResource.TOPIC,
        resource_name="logs",
        configs=[AlterConfigsRequest.AlterableConfig(name="retention.bytes", value="3")],
    )
    answer = admin.ask(ApiKey.ALTER_CONFIGS, 2, AlterConfigsRequest(resources=[resource]))
    assert answer.responses[0].error_code == 0
    admin.restart()
    assert admin.topics.get("logs").configs == {"retention.bytes": "3"}  # type: ignore[union-attr]


def test_deleting_by_id_and_creating_again_gives_a_new_topic(admin: Admin) -> None:
    topic_id = created(admin, "logs").topic_id

    def delete() -> int:
        state = DeleteTopicsRequest.DeleteTopicState(name=None, topic_id=topic_id)
        code: int = admin.ask(ApiKey.DELETE_TOPICS, 6, DeleteTopicsRequest(topics=[state])).responses[0].error_code
        return code

    assert delete() == 0
    assert created(admin, "logs").topic_id not in (topic_id, NO_ID)
    assert delete() == ErrorCode.UNKNOWN_TOPIC_ID


def test_partitions_only_grow(admin: Admin) -> None:
    created(admin, "logs")

    def grow(count: int) -> int:
        topic = CreatePartitionsRequest.CreatePartitionsTopic(name="logs", count=count, assignments=None)
        request = CreatePartitionsRequest(topics=[topic])
        code: int = admin.ask(ApiKey.CREATE_PARTITIONS, 3, request).results[0].error_code
        return code

    assert [grow(5), grow(5), grow(1), grow(20_000)] == [
        0,
        ErrorCode.INVALID_PARTITIONS,
        ErrorCode.INVALID_PARTITIONS,
        ErrorCode.POLICY_VIOLATION,
    ]
    assert len(admin.topics.get("logs").partitions) == 5  # type: ignore[union-attr]


def listed(admin: Admin, timestamp: int, version: int = 11) -> tuple[int, int, int]:
    partition = ListOffsetsRequest.ListOffsetsPartition(partition_index=0, timestamp=timestamp)
    request = ListOffsetsRequest(topics=[ListOffsetsRequest.ListOffsetsTopic(name="logs", partitions=[partition])])
    found = admin.ask(ApiKey.LIST_OFFSETS, version, request).topics[0].partitions[0]
    return found.error_code, found.offset, found.timestamp


def test_offsets_by_time_and_their_ends(admin: Admin) -> None:
    created(admin, "logs")
    topic = admin.topics.get("logs")
    assert topic is not None
    admin.append(topic, b"a", b"b", timestamp_ms=100)
    admin.append(topic, b"c", timestamp_ms=50)
    assert [listed(admin, t) for t in (-1, -2, -3, 0, 101, 102)] == [
        (0, 3, -1), (0, 0, -1), (0, 1, 101), (0, 0, 100), (0, 1, 101), (0, -1, -1),
    ]  # fmt: skip
    assert listed(admin, -3, version=6)[0] == ErrorCode.UNSUPPORTED_VERSION
    delete = DeleteRecordsRequest.DeleteRecordsPartition(partition_index=0, offset=-1)
    records = DeleteRecordsRequest(topics=[DeleteRecordsRequest.DeleteRecordsTopic(name="logs", partitions=[delete])])
    assert admin.ask(ApiKey.DELETE_RECORDS, 2, records).topics[0].partitions[0].low_watermark == 3
    assert listed(admin, -3) == (0, 1, 101)  # as in Kafka, while its segment is there
    admin.restart()
    assert [listed(admin, t) for t in (-2, -1, 0)] == [(0, 3, -1), (0, 3, -1), (0, -1, -1)]


def test_leader_epochs_that_differ_are_fenced(admin: Admin) -> None:
    created(admin, "logs")

    def end(current: int, epoch: int) -> tuple[int, int, int]:
        partition = OffsetForLeaderEpochRequest.OffsetForLeaderPartition(
            partition=0, current_leader_epoch=current, leader_epoch=epoch
        )
        topic = OffsetForLeaderEpochRequest.OffsetForLeaderTopic(topic="logs", partitions=[partition])
        answer = admin.ask(ApiKey.OFFSET_FOR_LEADER_EPOCH, 4, OffsetForLeaderEpochRequest(topics=[topic]))
        found = answer.topics[0].partitions[0]
        return found.error_code, found.leader_epoch, found.end_offset

    now = admin.topics.get("logs").partitions[0].leader_epoch  # type: ignore[union-attr]
    assert end(-1, now) == end(now, now) == (0, now, 0)
    assert end(now + 1, now)[0] == ErrorCode.UNKNOWN_LEADER_EPOCH
    assert end(now, now + 1) == (0, -1, -1)


def test_producer_ids_without_transactions(admin: Admin) -> None:
    plain = [admin.ask(ApiKey.INIT_PRODUCER_ID, 4, InitProducerIdRequest(transactional_id=None)) for _ in range(2)]
    assert [answer.error_code for answer in plain] == [0, 0]
    assert plain[0].producer_id != plain[1].producer_id
    refused = admin.ask(ApiKey.INIT_PRODUCER_ID, 4, InitProducerIdRequest(transactional_id=""))
    assert (refused.error_code, refused.producer_id) == (ErrorCode.INVALID_REQUEST, -1)


@pytest.mark.parametrize("limit", range(1, 8))
def test_pages_of_partitions_make_up_the_whole(admin: Admin, limit: int) -> None:
    for name in ("c", "a", "b"):
        created(admin, name)
    seen, cursor = [], None
    while True:
        request = DescribeTopicPartitionsRequest(topics=[], response_partition_limit=limit, cursor=cursor)
        answer = admin.ask(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, request)
        page = [(topic.name, partition.partition_index) for topic in answer.topics for partition in topic.partitions]
        assert 0 < len(page) <= limit
        seen += page
        if answer.next_cursor is None:
            break
        cursor = DescribeTopicPartitionsRequest.Cursor(
            topic_name=answer.next_cursor.topic_name, partition_index=answer.next_cursor.partition_index
        )
    assert seen == [(name, number) for name in "abc" for number in range(2)]
