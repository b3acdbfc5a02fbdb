"""Every API that is advertised, in every version, against the running broker: a minimal request gets an answer of that version.

Answers are decoded by our codec, which wants every byte explained, and by kafka-python's, which knows nothing of ours.
"""

import importlib
import pkgutil
import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import kafka.protocol
import pytest
from kafka.protocol.api_message import ApiMessage

from broker.registry import Api, load_handlers
from protocol import messages
from protocol.api_keys import ApiKey
from protocol.codec import decode_response, encode_request
from protocol.errors import ErrorCode
from protocol.headers import decode_response_header, encode_request_header
from protocol.messages import Message, MetadataRequest, message_class
from tests.broker_process import BrokerProcess
from tests.integration.raw import RawConnection, batch, frame

APIS = load_handlers()
TOPIC = "sweep"
REFUSED_PRODUCE_VERSIONS = range(3)  # advertised, as Kafka does for old librdkafka (KAFKA-18659), but refused


def versions() -> Iterator[Any]:
    for api in APIS.values():
        for version in range(api.min_version, api.max_version + 1):
            yield pytest.param(api, version, id=f"{api.key.name}-{version}")


@cache
def kafka_python_messages() -> dict[str, type[ApiMessage]]:
    for module in pkgutil.walk_packages(kafka.protocol.__path__, "kafka.protocol."):
        if ".old" not in module.name:
            importlib.import_module(module.name)
    found, pending = {}, [ApiMessage]
    while pending:
        for subclass in pending.pop().__subclasses__():
            pending.append(subclass)
            found[subclass.__name__] = subclass
    return found


@pytest.fixture(scope="module")
def topic_id(broker: BrokerProcess) -> bytes:
    with RawConnection(broker.bootstrap) as connection:
        connection.create_topic(TOPIC)
        request = MetadataRequest(topics=[MetadataRequest.MetadataRequestTopic(name=TOPIC)])
        found: bytes = connection.call(3, 12, request).topics[0].topic_id
        return found


def rows(request: type[Message], of_topic: str, of_partition: str, /, **fields: Any) -> list[Any]:
    """One topic with one partition, by the names of their structs."""
    named = {key: fields.pop(key) for key in ("name", "topic", "topic_id") if key in fields}
    return [getattr(request, of_topic)(**named, partitions=[getattr(request, of_partition)(**fields)])]


Fill = Callable[[Any, int, bytes], dict[str, Any]]
FILL: dict[ApiKey, Fill] = {
    ApiKey.PRODUCE: lambda r, v, i: {
        "acks": -1,
        "timeout_ms": 1000,
        "topic_data": [
            r.TopicProduceData(
                **by_name_or_id(v, 13, i, "name"),
                partition_data=[r.PartitionProduceData(index=0, records=memoryview(batch(b"value")))],
            )
        ],
    },
    ApiKey.FETCH: lambda r, v, i: {
        "max_bytes": 1000,
        "topics": rows(r, "FetchTopic", "FetchPartition", partition_max_bytes=1000, **by_name_or_id(v, 13, i, "topic")),
    },
    ApiKey.LIST_OFFSETS: lambda r, v, i: {
        "replica_id": -1,
        "topics": rows(r, "ListOffsetsTopic", "ListOffsetsPartition", name=TOPIC, timestamp=-1),
    },
    ApiKey.METADATA: lambda r, v, i: {"topics": [r.MetadataRequestTopic(name=TOPIC)]},
    ApiKey.OFFSET_COMMIT: lambda r, v, i: {
        "topics": rows(r, "OffsetCommitRequestTopic", "OffsetCommitRequestPartition", **by_name_or_id(v, 10, i, "name"))
    },
    ApiKey.OFFSET_FETCH: lambda r, v, i: (
        {"groups": [r.OffsetFetchRequestGroup(group_id="sweep")]}
        if v >= 8
        else {"group_id": "sweep", "topics": [r.OffsetFetchRequestTopic(name=TOPIC, partition_indexes=[0])]}
    ),
    ApiKey.FIND_COORDINATOR: lambda r, v, i: {"coordinator_keys": ["sweep"]} if v >= 4 else {"key": "sweep"},
    ApiKey.JOIN_GROUP: lambda r, v, i: {
        "group_id": f"sweep-{v}",
        "session_timeout_ms": 10_000,
        "rebalance_timeout_ms": 10_000,
        "protocol_type": "consumer",
        "protocols": [r.JoinGroupRequestProtocol(name="range")],
    },
    ApiKey.DESCRIBE_GROUPS: lambda r, v, i: {"groups": ["sweep"]},
    ApiKey.SASL_HANDSHAKE: lambda r, v, i: {"mechanism": "PLAIN"},
    ApiKey.API_VERSIONS: lambda r, v, i: {"client_software_name": "sweep", "client_software_version": "1"},
    ApiKey.CREATE_TOPICS: lambda r, v, i: {
        "topics": [r.CreatableTopic(name=f"created-{v}", num_partitions=1, replication_factor=1)],
        "timeout_ms": 1000,
    },
    ApiKey.DELETE_TOPICS: lambda r, v, i: (
        {"topics": [r.DeleteTopicState(name="no-such-topic")]} if v >= 6 else {"topic_names": ["no-such-topic"]}
    ),
    ApiKey.DELETE_RECORDS: lambda r, v, i: {
        "topics": rows(r, "DeleteRecordsTopic", "DeleteRecordsPartition", name=TOPIC, offset=0)
    },
    ApiKey.INIT_PRODUCER_ID: lambda r, v, i: {"transactional_id": None, "transaction_timeout_ms": 1000},
    ApiKey.OFFSET_FOR_LEADER_EPOCH: lambda r, v, i: {
        "topics": rows(r, "OffsetForLeaderTopic", "OffsetForLeaderPartition", topic=TOPIC)
    },
    ApiKey.DESCRIBE_ACLS: lambda r, v, i: {
        "resource_type_filter": 1,
        "pattern_type_filter": 1,
        "operation": 1,
        "permission_type": 1,
    },
    ApiKey.DESCRIBE_CONFIGS: lambda r, v, i: {
        "resources": [r.DescribeConfigsResource(resource_type=2, resource_name=TOPIC, configuration_keys=None)]
    },
    ApiKey.ALTER_CONFIGS: lambda r, v, i: {"resources": [r.AlterConfigsResource(resource_type=2, resource_name=TOPIC)]},
    ApiKey.INCREMENTAL_ALTER_CONFIGS: lambda r, v, i: {
        "resources": [r.AlterConfigsResource(resource_type=2, resource_name=TOPIC)]
    },
    ApiKey.CREATE_PARTITIONS: lambda r, v, i: {
        "topics": [r.CreatePartitionsTopic(name=TOPIC, count=2, assignments=None)],
        "validate_only": True,
    },
    ApiKey.DELETE_GROUPS: lambda r, v, i: {"groups_names": ["no-such-group"]},
    ApiKey.DESCRIBE_PRODUCERS: lambda r, v, i: {"topics": [r.TopicRequest(name=TOPIC, partition_indexes=[0])]},
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: lambda r, v, i: {
        "topics": [r.TopicRequest(name=TOPIC)],
        "response_partition_limit": 10,
    },
    ApiKey.ADD_PARTITIONS_TO_TXN: lambda r, v, i: (
        {}
        if v >= 4
        else {
            "v3_and_below_transactional_id": "sweep",
            "v3_and_below_topics": [r.AddPartitionsToTxnTopic(name=TOPIC, partitions=[0])],
        }
    ),
    ApiKey.TXN_OFFSET_COMMIT: lambda r, v, i: {
        "transactional_id": "sweep",
        "group_id": "sweep",
        "topics": rows(r, "TxnOffsetCommitRequestTopic", "TxnOffsetCommitRequestPartition", name=TOPIC),
    },
    ApiKey.WRITE_TXN_MARKERS: lambda r, v, i: {
        "markers": [r.WritableTxnMarker(topics=[r.WritableTxnMarkerTopic(name="no-such-topic", partition_indexes=[0])])]
    },
    ApiKey.DESCRIBE_TRANSACTIONS: lambda r, v, i: {"transactional_ids": ["sweep"]},
    ApiKey.ALTER_CLIENT_QUOTAS: lambda r, v, i: {
        "entries": [
            r.EntryData(
                entity=[r.EntityData(entity_type="user", entity_name="nobody")],
                ops=[r.OpData(key="producer_byte_rate", value=1e9)],
            )
        ]
    },
    ApiKey.ALTER_REPLICA_LOG_DIRS: lambda r, v, i: {
        "dirs": [r.AlterReplicaLogDir(path="/nowhere", topics=[r.AlterReplicaLogDirTopic(name=TOPIC, partitions=[0])])]
    },
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: lambda r, v, i: {
        "deletions": [r.ScramCredentialDeletion(name="nobody", mechanism=1)]
    },
    ApiKey.CONSUMER_GROUP_DESCRIBE: lambda r, v, i: {"group_ids": ["sweep"]},
    ApiKey.CREATE_ACLS: lambda r, v, i: {
        "creations": [
            r.AclCreation(
                resource_type=2,
                resource_name=TOPIC,
                resource_pattern_type=3,
                principal="User:nobody",
                host="*",
                operation=3,
                permission_type=3,
            )
        ]
    },
    ApiKey.DELETE_ACLS: lambda r, v, i: {
        "filters": [
            r.DeleteAclsFilter(
                resource_type_filter=1,
                pattern_type_filter=1,
                operation=1,
                permission_type=1,
                principal_filter="User:no",
            )
        ]
    },
    ApiKey.ELECT_LEADERS: lambda r, v, i: {"topic_partitions": [r.TopicPartitions(topic=TOPIC, partitions=[0])]},
    ApiKey.VECTOR_SEARCH: lambda r, v, i: {"topic_name": TOPIC, "queries": [r.Query(text="anything")]},
}
GROUP_APIS = (ApiKey.HEARTBEAT, ApiKey.SYNC_GROUP, ApiKey.LEAVE_GROUP, ApiKey.OFFSET_COMMIT, ApiKey.OFFSET_DELETE)


def by_name_or_id(version: int, first_with_ids: int, topic_id: bytes, name: str) -> dict[str, Any]:
    return {"topic_id": topic_id} if version >= first_with_ids else {name: TOPIC}


def minimal_request(api: Api, version: int, topic_id: bytes) -> Message:
    request = message_class(f"{api.key.message_name}Request")
    fields = FILL[api.key](request, version, topic_id) if api.key in FILL else {}
    if api.key in GROUP_APIS:
        fields["group_id"] = "sweep"
    return request(**fields)


def error_codes(message: Any) -> Iterator[int]:
    """All of an answer's error codes, however deep."""
    for name in message.FIELDS:
        value = getattr(message, name)
        if name.endswith("error_code"):
            yield value
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, messages.Message):
                yield from error_codes(part)


@pytest.mark.parametrize(("api", "version"), list(versions()))
def test_every_version_is_answered_in_its_own_form(
    connection: RawConnection, topic_id: bytes, api: Api, version: int
) -> None:
    header = encode_request_header(api.key, version, 77, "sweep")
    connection.push(
        frame(b"".join([header, *encode_request(api.key, version, minimal_request(api, version, topic_id))]))
    )
    data = connection.receive_frame()
    assert data is not None, "the broker closed the connection"
    correlation_id, position = decode_response_header(api.key, version, memoryview(data))
    assert correlation_id == 77
    answer = decode_response(api.key, version, memoryview(data), position)
    assert ErrorCode.UNKNOWN_SERVER_ERROR not in set(error_codes(answer)), answer
    theirs = kafka_python_messages().get(f"{api.key.message_name}Response")
    if theirs is not None and version <= theirs.max_version:
        assert theirs.decode(data[position:], version=version) is not None


@pytest.mark.parametrize("api", list(APIS.values()), ids=lambda api: api.key.name)
def test_other_versions_close_the_connection(broker: BrokerProcess, connection: RawConnection, api: Api) -> None:
    for version in {-1, *range(api.min_version), api.max_version + 1, 32767}:
        with RawConnection(broker.bootstrap) as other:
            other.push(frame(struct.pack(">hhih", api.key, version, 7, 3) + b"raw" + bytes(40)))
            answer = other.receive_frame()
            if api.key == ApiKey.API_VERSIONS:
                assert answer is not None
                assert struct.unpack_from(">ih", answer) == (7, ErrorCode.UNSUPPORTED_VERSION)
            else:
                assert answer is None
    connection.push(frame(struct.pack(">hhih", ApiKey.API_VERSIONS, 0, 8, -1)))
    assert connection.receive_frame() is not None


def test_advertised_is_what_answers(connection: RawConnection) -> None:
    """The table of ApiVersions is the registry's, but for the old versions of Produce."""
    connection.push(frame(struct.pack(">hhih", ApiKey.API_VERSIONS, 0, 8, -1)))
    data = connection.receive_frame()
    assert data is not None
    answer = decode_response(ApiKey.API_VERSIONS, 0, memoryview(data), 4)
    advertised = {row.api_key: (row.min_version, row.max_version) for row in answer.api_keys}
    expected = {int(api.key): (api.min_version, api.max_version) for api in APIS.values()}
    expected[ApiKey.PRODUCE] = (REFUSED_PRODUCE_VERSIONS.start, expected[ApiKey.PRODUCE][1])
    assert advertised == expected
