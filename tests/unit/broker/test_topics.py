"""broker.topics: durable, in step with the logs, told to observers."""

import contextlib
import errno
from typing import Any

import pytest

from broker.configs.definition import ConfigResource
from broker.meta_store import TopicRecord
from broker.topics import Topic
from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import build_batch, parse_batches
from protocol.records import Record
from storage.log import PartitionLog
from storage.wal_files import WalFiles
from tests.simulated_storage import SimulatedCrash
from tests.unit.broker.admin import Admin


class Observer:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def topic_created(self, topic: Topic) -> None:
        self.seen.append(("created", topic.name))

    def topic_deleted(self, topic: Topic) -> None:
        assert all(log.deleted for log in topic.partitions)
        self.seen.append(("deleted", topic.name))

    def topic_changed(self, topic: Topic) -> None:
        self.seen.append(("changed", topic.name))


@pytest.fixture
def admin() -> Admin:
    return Admin()


def test_a_topic_survives_a_restart_with_its_id_configs_and_records(admin: Admin) -> None:
    topic = admin.topics.create("logs", 3, {"retention.ms": "1000"})
    admin.append(topic, b"a", b"b", partition=2)
    admin.restart()
    again = admin.topics.get("logs")
    assert again is not None
    assert (again.topic_id, again.configs, len(again.partitions)) == (topic.topic_id, {"retention.ms": "1000"}, 3)
    assert [log.log_end_offset for log in again.partitions] == [0, 0, 2]
    assert again.partitions[0].config.retention_ms == 1000
    assert admin.topics.get_by_id(topic.topic_id) is again


def test_a_deleted_topic_is_gone_with_its_files_and_one_of_its_name_starts_empty(admin: Admin) -> None:
    topic = admin.topics.create("logs", 1, {})
    admin.append(topic, b"a")
    admin.topics.delete("logs")
    admin.settle()
    assert not [path for path, _ in admin.disk.files() if "logs-0" in str(path)]
    assert admin.topics.get("logs") is admin.topics.get_by_id(topic.topic_id) is None
    again = admin.topics.create("logs", 1, {})
    assert again.topic_id != topic.topic_id
    assert again.partitions[0].log_end_offset == 0
    admin.restart()
    assert admin.topics.names() == ["logs"]
    assert [log.topic_id for log in admin.logs.logs()] == [again.topic_id]


@pytest.mark.parametrize("step", range(1, 40, 2))
def test_a_crash_while_topics_change_leaves_store_and_logs_in_step(step: int) -> None:
    admin = Admin()
    kept = admin.topics.create("kept", 2, {})
    admin.disk.crash_at = admin.disk.steps + step
    with contextlib.suppress(SimulatedCrash):
        admin.topics.create("new", 2, {})
        admin.settle()
        admin.topics.add_partitions("new", 4)
        admin.topics.delete("kept")
        admin.settle()
    admin.crash()
    assert {(log.topic_id, log.partition) for log in admin.logs.logs()} == {
        (topic.topic_id, number) for topic in admin.topics for number in range(len(topic.partitions))
    }
    assert set(admin.topics.names()) in ({"kept"}, {"kept", "new"}, {"new"})
    if (still := admin.topics.get("kept")) is not None:
        assert still.topic_id == kept.topic_id
    if (new := admin.topics.get("new")) is not None:
        assert len(new.partitions) in (2, 4)


def test_observers_hear_of_every_change(admin: Admin) -> None:
    observer = Observer()
    admin.topics.observers.append(observer)
    admin.topics.create("a", 1, {})
    admin.topics.add_partitions("a", 2)
    admin.topics.set_configs("a", {"segment.ms": "5"})
    admin.topics.set_configs("a", {"segment.ms": "5"})
    admin.topics.delete("a")
    assert observer.seen == [("created", "a"), ("changed", "a"), ("changed", "a"), ("deleted", "a")]


def test_changed_configs_act_at_once_and_after_a_restart(admin: Admin) -> None:
    topic = admin.topics.create("logs", 2, {})
    admin.topics.set_configs(
        "logs",
        {"max.message.bytes": "99", "message.timestamp.type": "LogAppendTime", "cleanup.policy": "compact, delete"},
    )
    for _ in range(2):
        for log in topic.partitions:
            assert (log.config.max_message_bytes, log.config.message_timestamp_type) == (99, "LogAppendTime")
            assert log.config.cleanup_policy == "compact,delete"
        admin.restart()
        topic = admin.topics.get("logs")  # type: ignore[assignment]


def test_switching_vectors_on_and_off(admin: Admin) -> None:
    topic = admin.topics.create("logs", 1, {"vector.metric": "dot"})
    assert topic.vector is None
    admin.topics.set_configs("logs", {"vector.metric": "dot", "vector.enabled": "true"})
    assert topic.vector is not None
    assert topic.vector.metric == "dot"
    admin.topics.set_configs("logs", {"vector.metric": "dot"})
    assert topic.vector is None


def test_a_broker_config_is_the_default_of_topics_that_do_not_set_it(admin: Admin) -> None:
    plain, own = admin.topics.create("plain", 1, {}), admin.topics.create("own", 1, {"max.message.bytes": "7"})
    admin.topics.set_resource_configs(ConfigResource.BROKER, "", {"message.max.bytes": "5000"})
    assert plain.partitions[0].config.max_message_bytes == 5000
    assert own.partitions[0].config.max_message_bytes == 7
    admin.restart()
    assert admin.topics.get("plain").partitions[0].config.max_message_bytes == 5000  # type: ignore[union-attr]
    admin.topics.set_resource_configs(ConfigResource.BROKER, "", {})
    assert admin.topics.get("plain").partitions[0].config.max_message_bytes == 1048588  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", ErrorCode.INVALID_TOPIC_EXCEPTION),
        ("..", ErrorCode.INVALID_TOPIC_EXCEPTION),
        ("a b", ErrorCode.INVALID_TOPIC_EXCEPTION),
        ("x" * 250, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ("there", ErrorCode.TOPIC_ALREADY_EXISTS),
        ("a_b", ErrorCode.INVALID_TOPIC_EXCEPTION),
        ("__cluster_metadata", ErrorCode.INVALID_REQUEST),
    ],
)
def test_names_that_cannot_be_created(admin: Admin, name: str, code: ErrorCode) -> None:
    admin.topics.create("there", 1, {})
    admin.topics.create("a.b", 1, {})
    with pytest.raises(KafkaError) as caught:
        admin.topics.create(name, 1, {})
    assert caught.value.code == code
    assert admin.topics.names() == ["a.b", "there"]


def test_a_topic_that_the_disk_has_no_room_for_is_not_there(admin: Admin) -> None:
    admin.disk.capacity = admin.disk.used() + 3
    with pytest.raises(KafkaError) as caught:
        admin.topics.create("logs", 1, {})
    assert caught.value.code == ErrorCode.KAFKA_STORAGE_ERROR
    assert admin.topics.names() == []


def test_a_creation_that_cannot_be_undone_in_the_metadata_leaves_no_log_in_the_way(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its logs would share their directories with those of the next topic of the name."""
    create_log = admin.logs.create_log
    left: list[PartitionLog] = []

    def create_two(*details: Any) -> PartitionLog:
        if len(left) == 2:
            monkeypatch.setattr(admin.store, "replace", refuse)
            refuse()
        left.append(create_log(*details))
        return left[-1]

    def refuse(**_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as full:
        full.setattr(admin.logs, "create_log", create_two)
        with pytest.raises(KafkaError) as error:
            admin.topics.create("logs", 3, {})
    assert error.value.code == ErrorCode.KAFKA_STORAGE_ERROR
    assert all(log.deleted for log in left)
    assert not list(admin.logs.logs())


@pytest.mark.parametrize("metadata_fails", [False, True])
def test_a_topic_that_cannot_grow_is_as_it_was(
    admin: Admin, monkeypatch: pytest.MonkeyPatch, metadata_fails: bool
) -> None:
    """The metadata was ahead of the logs: partitions were promised that nobody could write to until the next start."""
    topic = admin.topics.create("logs", 1, {})
    observer = Observer()
    admin.topics.observers.append(observer)
    create_log = admin.logs.create_log

    def create_two(*details: Any) -> PartitionLog:
        if details[2] == 3:
            if metadata_fails:
                monkeypatch.setattr(admin.store, "replace", refuse)
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "the WAL is full")
        return create_log(*details)

    def refuse(**_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as full:
        full.setattr(admin.logs, "create_log", create_two)
        with pytest.raises(KafkaError, match="the WAL is full") as error:
            admin.topics.add_partitions("logs", 4)
    monkeypatch.undo()
    assert error.value.code == ErrorCode.KAFKA_STORAGE_ERROR
    assert len(topic.partitions) == len(list(admin.logs.logs())) == 1
    assert observer.seen == []
    admin.restart()
    again = admin.topics.get("logs")
    assert again is not None
    assert len(again.partitions) == len(list(admin.logs.logs())) == (4 if metadata_fails else 1)
    admin.topics.add_partitions("logs", 5)
    assert [log.log_end_offset for log in again.partitions] == [0] * 5


def test_internal_topics_cannot_be_deleted_and_are_created_once(admin: Admin) -> None:
    first = admin.topics.ensure_internal("__consumer_offsets", 3, {"cleanup.policy": "compact"})
    assert first.internal
    assert admin.topics.ensure_internal("__consumer_offsets", 5, {}) is first
    with pytest.raises(KafkaError) as caught:
        admin.topics.delete("__consumer_offsets")
    assert caught.value.code == ErrorCode.INVALID_REQUEST


def test_producer_ids_are_never_given_out_twice(admin: Admin) -> None:
    given = [admin.services.producer_ids.next() for _ in range(1500)]
    admin.crash()
    given += [admin.services.producer_ids.next() for _ in range(10)]
    assert len(set(given)) == len(given)


def test_a_stored_config_that_is_no_longer_valid_does_not_stop_the_start(admin: Admin) -> None:
    topic = admin.topics.create("logs", 1, {"retention.ms": "5"})
    record = TopicRecord("logs", topic.topic_id, 1, {"retention.ms": "5", "vector.metric": "old", "gone": "1"})
    admin.store.replace(topics={"logs": record})
    admin.restart()
    assert admin.topics.get("logs").configs == {"retention.ms": "5"}  # type: ignore[union-attr]


def test_retention_set_later_deletes_old_records(admin: Admin) -> None:
    topic = admin.topics.create("logs", 1, {})
    now_ms = admin.machine.clock.time_ms()
    admin.append(topic, b"a", b"b", timestamp_ms=now_ms)
    admin.machine.clock.advance(10_000)
    admin.logs.maintain()
    assert topic.partitions[0].log_start_offset == 0
    admin.topics.set_configs("logs", {"retention.ms": "5000", "segment.ms": "1000"})
    admin.logs.checkpoint()  # what is only in the WAL is not deleted
    admin.settle()
    admin.logs.maintain()
    assert topic.partitions[0].log_start_offset == 2


def _fill_the_wal(admin: Admin, topic: Topic) -> None:
    data = build_batch([Record(0, 0, None, b"x" * 5000, [])])
    with pytest.raises(KafkaError):
        while True:
            batch = memoryview(bytearray(data))
            topic.partitions[0].append(batch, parse_batches(batch), now_ms=0)
    admin.logs.commit()


def test_a_topic_can_be_deleted_although_the_wal_is_full(admin: Admin) -> None:
    """It is what frees space then. The partitions are more than what is left of the WAL's file can hold."""
    observer = Observer()
    topic = admin.topics.create("logs", 400, {})
    admin.settle()
    admin.topics.observers.append(observer)
    _fill_the_wal(admin, topic)
    admin.topics.delete("logs")
    assert observer.seen == [("deleted", "logs")]
    admin.settle()
    assert list(admin.logs.logs()) == []
    admin.restart()
    assert list(admin.logs.logs()) == []


def test_a_deletion_that_the_wal_does_not_take_leaves_all_of_the_topic(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it would leave logs that live on without their topic, and observers that still serve it."""
    observer = Observer()
    topic = admin.topics.create("logs", 400, {})
    admin.settle()
    admin.topics.observers.append(observer)
    _fill_the_wal(admin, topic)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(WalFiles, "take", full)
    with pytest.raises(KafkaError) as refused:
        admin.topics.delete("logs")
    assert refused.value.code == ErrorCode.KAFKA_STORAGE_ERROR
    assert admin.topics.get("logs") is topic
    assert not any(log.deleted for log in topic.partitions)
    assert observer.seen == []
    monkeypatch.undo()
    admin.settle()
    admin.topics.delete("logs")
    assert observer.seen == [("deleted", "logs")]
