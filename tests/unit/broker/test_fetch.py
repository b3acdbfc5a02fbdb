"""Fetch: whole batches within limits, long polls without tasks, epochs, sessions, cold reads."""

import errno
from typing import Any

import pytest

from protocol.errors import ErrorCode
from protocol.record_batch import TRANSACTIONAL, parse_batches
from storage.log import PartitionLog
from tests.unit.broker.core import Core, batch, batches_in

SIZE = len(batch(b"a", b"b"))


@pytest.fixture
def core() -> Core:
    core = Core(storage_sync="os")
    core.topic("t", 3)
    for partition in (0, 1):
        for _ in range(3):
            core.produced("t", batch(b"a", b"b"), partition)
    return core


def rows(answer: Any) -> list[tuple[str, int, int, list[tuple[int, int]]]]:
    """(topic, partition, error, batches) of a response."""
    value = answer.value
    return [
        (topic.topic, row.partition_index, row.error_code, batches_in(row.records))
        for topic in value.responses
        for row in topic.partitions
    ]


ALL = [(0, 2), (2, 2), (4, 2)]


@pytest.mark.parametrize(("offset", "found"), [(0, ALL), (1, ALL), (2, ALL[1:]), (5, ALL[2:]), (6, [])])
def test_whole_batches_from_the_one_that_holds_the_offset(
    core: Core, offset: int, found: list[tuple[int, int]]
) -> None:
    assert rows(core.fetch(("t", 0, offset))) == [("t", 0, 0, found)]


@pytest.mark.parametrize("offset", [-1, 7, 2**62])
def test_offsets_out_of_range(core: Core, offset: int) -> None:
    (row,) = core.fetch(("t", 0, offset)).value.responses[0].partitions
    assert (row.error_code, row.high_watermark, row.log_start_offset) == (1, -1, -1)
    assert row.aborted_transactions is None


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        ({"max_bytes": 1}, [ALL[:1], []]),
        ({"max_bytes": 2 * SIZE + 40}, [ALL[:2], []]),
        ({"max_bytes": 4 * SIZE}, [ALL, ALL[:1]]),
        ({"partition_max_bytes": 1}, [ALL[:1], []]),
        ({"partition_max_bytes": 2 * SIZE}, [ALL[:2], ALL[:2]]),
    ],
)
def test_limits_are_soft_for_the_first_partition_with_data(
    core: Core, limits: dict[str, int], found: list[list[tuple[int, int]]]
) -> None:
    answer = core.fetch(("t", 2, 0), ("t", 0, 0), ("t", 1, 0), **limits)
    assert [row[3] for row in rows(answer)] == [[], *found]


def test_the_answer_keeps_the_order_and_absent_partitions_come_last(core: Core) -> None:
    core.topic("other")
    answer = core.fetch(("t", 1, 0), ("nowhere", 0, 0), ("other", 0, 0), ("t", 9, 0), ("t", 0, 0))
    assert [row[:3] for row in rows(answer)] == [
        ("t", 1, 0),
        ("other", 0, 0),
        ("t", 0, 0),
        ("nowhere", 0, 3),
        ("t", 9, 3),
    ]


def test_a_poll_that_cannot_read_is_answered(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without descriptors left, a poll that an append wakes gets the partition's error; it would wait for ever."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    answer = core.fetch(("t", 2, 0), max_wait_ms=1000)
    monkeypatch.setattr(PartitionLog, "read", fail)
    core.produced("t", batch(b"a"), 2)
    assert rows(answer) == [("t", 2, ErrorCode.KAFKA_STORAGE_ERROR, [])]


def test_a_poll_waits_for_a_record_and_then_answers_at_once(core: Core) -> None:
    answer = core.fetch(("t", 0, 6), ("t", 2, 0), max_wait_ms=1000)
    core.pass_time(999)
    assert not answer.there
    core.produced("t", batch(b"new"), 2)
    assert rows(answer) == [("t", 0, 0, []), ("t", 2, 0, [(0, 1)])]
    assert not any(log.listeners for log in core.topics.get("t").partitions)  # type: ignore[union-attr]
    assert not core.connection.close_callbacks


def test_a_poll_without_news_ends_on_time(core: Core) -> None:
    answer = core.fetch(("t", 0, 6), max_wait_ms=1000)
    core.pass_time(1000)
    assert rows(answer) == [("t", 0, 0, [])]


def test_a_poll_waits_for_min_bytes(core: Core) -> None:
    answer = core.fetch(("t", 2, 0), max_wait_ms=1000, min_bytes=2 * SIZE)
    core.produced("t", batch(b"a", b"b"), 2)
    assert not answer.there
    core.produced("t", batch(b"a", b"b"), 2)
    assert rows(answer) == [("t", 2, 0, ALL[:2])]


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        ([("t", 0, 0)], {"min_bytes": SIZE}),
        ([("t", 0, 6)], {"max_wait_ms": 0}),
        ([("t", 0, 6)], {"max_wait_ms": -1}),
        ([("t", 0, 6)], {"min_bytes": 0}),
        ([], {}),
        ([("nowhere", 0, 0)], {}),
        ([("t", 2, 0), ("t", 0, 99)], {}),
        ([("t", 0, 0)], {"min_bytes": 100_000, "max_bytes": 50}),
    ],
)
def test_what_does_not_wait(core: Core, wanted: list[Any], fields: dict[str, int]) -> None:
    assert core.fetch(*wanted, **{"max_wait_ms": 1000, **fields}).there


def test_an_absent_partition_beside_an_empty_one_waits(core: Core) -> None:
    answer = core.fetch(("t", 2, 0), ("nowhere", 0, 0), max_wait_ms=1000)
    assert not answer.there
    core.pass_time(1000)
    assert [row[2] for row in rows(answer)] == [0, 3]


def test_the_deletion_of_a_topic_ends_its_polls(core: Core) -> None:
    answer = core.fetch(("t", 2, 0), max_wait_ms=1000)
    core.topics.delete("t")
    core.settle()
    assert rows(answer) == [("t", 2, 3, [])]


def test_a_client_that_leaves_leaves_nothing_behind(core: Core) -> None:
    answer = core.fetch(("t", 2, 0), max_wait_ms=1000)
    for callback in list(core.connection.close_callbacks):
        callback()
    core.produced("t", batch(b"a"), 2)
    core.pass_time(2000)
    assert not answer.there
    assert not core.topics.get("t").partitions[2].listeners  # type: ignore[union-attr]


def test_nothing_is_read_before_it_is_synced() -> None:
    core = Core(storage_sync="always")
    core.topic()
    core.produce(("t", 0, batch(b"a")))
    answer = core.fetch(("t", 0, 0), max_wait_ms=1000)
    row = core.fetch(("t", 0, 1)).value.responses[0].partitions[0]
    assert (row.error_code, row.high_watermark) == (0, 0)
    assert not answer.there
    core.settle()
    assert rows(answer) == [("t", 0, 0, [(0, 1)])]


@pytest.mark.parametrize(("epoch", "code"), [(-2, 0), (-1, 0), (0, 0), (1, 75)])
def test_leader_epochs(core: Core, epoch: int, code: int) -> None:
    answer = core.fetch(("t", 0, 6, {"current_leader_epoch": epoch}), max_wait_ms=1000 if code else 0)
    assert rows(answer)[0][2] == code


def test_an_old_leader_epoch_is_fenced(core: Core) -> None:
    core.topics.get("t").partitions[0].leader_epoch = 3  # type: ignore[union-attr]
    assert rows(core.fetch(("t", 0, 0, {"current_leader_epoch": 2})))[0][2] == 74


@pytest.mark.parametrize(
    ("epoch", "offset", "code", "end"), [(0, 6, 0, -1), (0, 50, 0, 6), (1, 0, 1, -1), (-2, 3, 0, -1)]
)
def test_diverging_epochs(core: Core, epoch: int, offset: int, code: int, end: int) -> None:
    answer = core.fetch(("t", 0, offset, {"last_fetched_epoch": epoch}), max_wait_ms=1000 if end >= 0 else 0)
    (row,) = answer.value.responses[0].partitions
    assert (row.error_code, row.diverging_epoch.end_offset) == (code, end)


def test_topic_ids(core: Core) -> None:
    topic = core.topics.get("t")
    assert topic is not None
    answer = core.fetch((topic.topic_id, 0, 4), (b"\7" * 16, 0, 0), (topic.topic_id, 9, 0), version=13)
    assert [(entry.topic_id, row.error_code) for entry in answer.value.responses for row in entry.partitions] == [
        (topic.topic_id, 0),
        (b"\7" * 16, 100),
        (topic.topic_id, 3),
    ]


def test_unknown_isolation_levels_fail_everything(core: Core) -> None:
    answer = core.fetch(("t", 0, 0), isolation_level=2)
    assert answer.value.error_code == -1
    assert rows(answer)[0][2] == -1


def test_committed_readers_get_a_list_of_aborted_transactions(core: Core) -> None:
    assert core.fetch(("t", 0, 0)).value.responses[0].partitions[0].aborted_transactions is None
    answer = core.fetch(("t", 0, 0), isolation_level=1)
    assert answer.value.responses[0].partitions[0].aborted_transactions == []
    assert rows(answer)[0][3] == ALL


def test_committed_readers_stop_at_open_transactions_and_are_woken_by_their_end(core: Core) -> None:
    """The last stable offset bounds what they get; a transaction that ends lets them read on, and names itself if aborted."""
    log = core.topics.log("t", 0)
    data = memoryview(
        bytearray(batch(b"x", producer_id=7, producer_epoch=0, base_sequence=0, attributes=TRANSACTIONAL))
    )
    log.append(data, parse_batches(data), now_ms=0)
    core.produced("t", batch(b"plain"))
    waiting = core.fetch(("t", 0, 6), isolation_level=1, max_wait_ms=1000)
    assert rows(core.fetch(("t", 0, 6))) == [("t", 0, 0, [(6, 1), (7, 1)])]
    assert not waiting.there
    log.append_marker(7, 0, 0, commit=False, now_ms=0)
    core.logs.commit()
    core.settle()
    (row,) = waiting.value.responses[0].partitions
    assert (row.last_stable_offset, batches_in(row.records)) == (9, [(6, 1), (7, 1), (8, 1)])
    assert [(aborted.producer_id, aborted.first_offset) for aborted in row.aborted_transactions] == [(7, 6)]


def test_a_session_names_only_what_changed(core: Core) -> None:
    first = core.fetch(("t", 0, 6), ("t", 1, 6), session_id=0, session_epoch=0).value
    assert first.session_id
    quiet = core.fetch(session_id=first.session_id, session_epoch=1)
    assert rows(quiet) == []
    core.produced("t", batch(b"c"), 1)
    assert rows(core.fetch(session_id=first.session_id, session_epoch=2)) == [("t", 1, 0, [(6, 1)])]
    assert core.fetch(session_id=first.session_id, session_epoch=9).value.error_code == 71
    assert core.fetch(session_id=12345, session_epoch=1).value.error_code == 70


def test_cold_data_is_loaded_by_another_thread(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    from storage.log_results import ReadResult

    loaded: list[ReadResult] = []
    monkeypatch.setattr(ReadResult, "cold", property(lambda result: True))
    monkeypatch.setattr(ReadResult, "load", lambda result: loaded.append(result))
    answer = core.fetch(("t", 0, 0), max_wait_ms=1000)
    assert not answer.there
    core.read_ahead.finish()
    assert len(loaded) == 1
    assert rows(answer) == [("t", 0, 0, ALL)]
