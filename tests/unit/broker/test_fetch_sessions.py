"""broker.fetch_sessions: epochs, what is remembered, bounds."""

import pytest

from broker import fetch_sessions
from broker.fetch_sessions import EPOCH_MAX, EVICT_AFTER_S, FetchSessions, FetchWork
from protocol.errors import KafkaError
from protocol.messages import FetchRequest, FetchResponse


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time_ms(self) -> int:
        return 0


def request(
    session_id: int, epoch: int, *wanted: tuple[str, int, int], forget: tuple[tuple[str, int], ...] = ()
) -> FetchRequest:
    return FetchRequest(
        session_id=session_id,
        session_epoch=epoch,
        topics=[
            FetchRequest.FetchTopic(
                topic=topic,
                partitions=[FetchRequest.FetchPartition(partition=index, fetch_offset=offset, partition_max_bytes=1)],
            )
            for topic, index, offset in wanted
        ],
        forgotten_topics_data=[FetchRequest.ForgottenTopic(topic=topic, partitions=[index]) for topic, index in forget],
    )


def named(work: FetchWork) -> list[tuple[str | None, int, int]]:
    return [(p.topic, p.index, p.offset) for p in work.partitions]


def opened(sessions: FetchSessions, asked: FetchRequest, *, by_id: bool, principal: str = "User:me") -> FetchWork:
    return sessions.open(asked, by_id=by_id, principal=principal)


@pytest.fixture
def sessions() -> FetchSessions:
    return FetchSessions(Clock())


def test_a_session_remembers_adds_moves_and_forgets(sessions: FetchSessions) -> None:
    created = opened(sessions, request(0, 0, ("a", 0, 0), ("a", 1, 0)), by_id=False)
    number = created.session_id
    assert number > 0
    assert not created.incremental
    work = opened(
        sessions, request(number, 1, ("a", 1, 5), ("b", 0, 9), forget=(("a", 0),)), by_id=False, principal="User:me"
    )
    assert work.incremental
    assert named(work) == [("a", 1, 5), ("b", 0, 9)]
    assert named(opened(sessions, request(number, 2), by_id=False)) == [("a", 1, 5), ("b", 0, 9)]


@pytest.mark.parametrize(("session_id", "epoch", "code"), [(0, 5, 70), (77, 1, 70), (0, -2, 70), (-5, 1, 70)])
def test_sessions_that_are_not_there(sessions: FetchSessions, session_id: int, epoch: int, code: int) -> None:
    with pytest.raises(KafkaError) as failure:
        opened(sessions, request(session_id, epoch), by_id=False)
    assert failure.value.code == code


def test_wrong_epochs_and_mixed_ids_leave_the_session_as_it_was(sessions: FetchSessions) -> None:
    number = opened(sessions, request(0, 0, ("a", 0, 0)), by_id=False).session_id
    for epoch, by_id, code in ((2, False, 71), (-2, False, 71), (1, True, 106)):
        with pytest.raises(KafkaError) as failure:
            opened(sessions, request(number, epoch), by_id=by_id)
        assert failure.value.code == code
    assert opened(sessions, request(number, 1), by_id=False).session_id == number


def test_full_and_final_requests_end_the_session(sessions: FetchSessions) -> None:
    first = opened(sessions, request(0, 0, ("a", 0, 0)), by_id=False).session_id
    second = opened(sessions, request(first, 0, ("a", 0, 0)), by_id=False).session_id
    assert second not in (0, first)
    assert opened(sessions, request(second, -1, ("a", 0, 0)), by_id=False).session_id == 0
    assert len(sessions) == 0


def test_a_session_without_partitions_ends(sessions: FetchSessions) -> None:
    number = opened(sessions, request(0, 0, ("a", 0, 0)), by_id=False).session_id
    assert opened(sessions, request(number, 1, forget=(("a", 0),)), by_id=False).session_id == 0
    assert len(sessions) == 0


def test_epochs_wrap_to_one(sessions: FetchSessions) -> None:
    work = opened(sessions, request(0, 0, ("a", 0, 0)), by_id=False)
    assert work.session is not None
    work.session.epoch = EPOCH_MAX
    opened(sessions, request(work.session_id, EPOCH_MAX), by_id=False)
    assert opened(sessions, request(work.session_id, 1), by_id=False).session_id == work.session_id


def test_sessions_are_bounded_and_idle_ones_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_sessions, "SESSIONS_MAX", 2)
    clock = Clock()
    sessions = FetchSessions(clock)
    numbers = [opened(sessions, request(0, 0, ("a", 0, 0)), by_id=False).session_id for _ in range(3)]
    assert numbers[0]
    assert numbers[1]
    assert numbers[2] == 0
    clock.now = EVICT_AFTER_S
    opened(sessions, request(numbers[0], 1), by_id=False)
    assert opened(sessions, request(0, 0, ("a", 0, 0)), by_id=False).session_id
    with pytest.raises(KafkaError):
        opened(sessions, request(numbers[1], 1), by_id=False)


def test_only_news_is_told_and_errors_until_they_are_over(sessions: FetchSessions) -> None:
    partition = opened(sessions, request(0, 0, ("a", 0, 0)), by_id=False).partitions[0]
    well = FetchResponse.PartitionData(high_watermark=5, log_start_offset=0)
    failed = FetchResponse.PartitionData(error_code=1, high_watermark=-1)
    assert partition.is_news(well, 0)
    assert not partition.is_news(well, 0)
    assert partition.is_news(well, 10)
    assert partition.is_news(failed, 0)
    assert partition.is_news(failed, 0)
    assert partition.is_news(well, 0)
    assert not partition.is_news(well, 0)


def test_a_served_partition_goes_to_the_end(sessions: FetchSessions) -> None:
    work = opened(sessions, request(0, 0, ("a", 0, 0), ("a", 1, 0)), by_id=False)
    assert work.session is not None
    work.session.serve_last(work.partitions[0])
    assert [p.index for p in opened(sessions, request(work.session_id, 1), by_id=False).partitions] == [1, 0]


def test_a_session_is_its_principals_alone(sessions: FetchSessions) -> None:
    """To others it does not exist, and they cannot end it; Kafka lets whoever knows the number go on."""
    number = opened(sessions, request(0, 0, ("a", 0, 0)), by_id=False).session_id
    with pytest.raises(KafkaError) as failure:
        opened(sessions, request(number, 1), by_id=False, principal="User:other")
    assert failure.value.code == 70
    opened(sessions, request(number, -1), by_id=False, principal="User:other")
    assert opened(sessions, request(number, 1), by_id=False).session_id == number
