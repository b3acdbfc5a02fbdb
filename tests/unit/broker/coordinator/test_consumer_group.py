"""The consumer group protocol (KIP-848), operation by operation; what holds for any of them is in test_consumer_properties."""

import pytest

from broker.coordinator.group_state import Committer, ConsumerGroupState, JoiningClient
from broker.coordinator.records import CommittedOffset
from protocol.errors import KafkaError
from protocol.messages import ConsumerGroupHeartbeatRequest
from tests.unit.broker.coordinator.consumer_simulation import (
    INTERVAL_MS,
    REBALANCE_MS,
    SESSION_MS,
    Catalog,
    SimulatedConsumer,
    SimulatedConsumerGroup,
    settle,
)


@pytest.fixture
def sim() -> SimulatedConsumerGroup:
    return SimulatedConsumerGroup(Catalog(t=4, u=2))


def numbers(consumer: SimulatedConsumer) -> list[int]:
    """How many partitions of each topic a member has."""
    return sorted(len(partitions) for partitions in consumer.owned.values())


def code(call, *args, **kwargs) -> int:
    with pytest.raises(KafkaError) as refused:
        call(*args, **kwargs)
    return int(refused.value.code)


def commit(sim, member_id, epoch, partition=0, topic="t", version=9) -> int:
    committed = CommittedOffset(1, -1, "", 0, topic_id=sim.catalog.topics[topic].topic_id)
    committer = Committer("g", member_id, None, epoch, version)
    return int(sim.group.check_offset_commit(committer, [(topic, partition, committed)]))


def test_the_first_member_gets_everything_at_once(sim) -> None:
    """One member, one heartbeat: all partitions of its topics, at epoch 2 as in Kafka."""
    a = SimulatedConsumer(sim, "a", "t", "u")
    assert a.beat().member_epoch == 2
    assert numbers(a) == [2, 4]
    assert sim.group.state is ConsumerGroupState.STABLE


def test_nothing_is_handed_out_before_it_is_given_up(sim) -> None:
    """The second member waits until the first has confirmed; then each has half."""
    a, b = SimulatedConsumer(sim, "a", "t"), SimulatedConsumer(sim, "b", "t")
    a.beat()
    sim.pass_time(INTERVAL_MS)
    b.beat()
    assert numbers(b) == []
    a.slow = True
    a.beat()
    assert numbers(a) == [4]
    assert sim.group.state is ConsumerGroupState.RECONCILING
    b.beat()
    assert numbers(b) == []
    a.revoke()
    a.beat()
    b.beat()
    assert (numbers(a), numbers(b)) == ([2], [2])
    assert sim.group.state is ConsumerGroupState.STABLE


def test_the_target_is_computed_once_per_interval(sim) -> None:
    """KIP-1263: changes within an interval are assigned for together, at its end."""
    members = [SimulatedConsumer(sim, str(number), "t") for number in range(4)]
    for member in members:
        member.beat()
    assert (sim.group.roster.epoch, sim.group.roster.assignment_epoch) == (5, 2)
    assert sim.group.state is ConsumerGroupState.ASSIGNING
    settle(sim, *members)
    assert [numbers(member) for member in members] == [[1]] * 4
    assert sim.group.roster.assignment_epoch == 5


def test_a_silent_member_is_out_after_its_session(sim) -> None:
    """Its partitions go to the others with their next heartbeats."""
    a, b = SimulatedConsumer(sim, "a", "t"), SimulatedConsumer(sim, "b", "t")
    settle(sim, a, b)
    for _ in range(SESSION_MS // INTERVAL_MS + 1):
        a.beat()
        sim.pass_time(INTERVAL_MS)
    a.beat()
    assert numbers(a) == [4]
    assert code(b.beat) == 25
    settle(sim, a, b)
    assert (numbers(a), numbers(b)) == ([2], [2])


def test_a_member_that_gives_nothing_up_is_out_after_its_rebalance_timeout(sim) -> None:
    """Heartbeats do not help it: the others have waited long enough."""
    a, b = SimulatedConsumer(sim, "a", "t"), SimulatedConsumer(sim, "b", "t")
    settle(sim, a)
    a.slow = True
    settle(sim, b, a, rounds=1)
    a.beat()
    for _ in range(REBALANCE_MS // INTERVAL_MS):
        sim.pass_time(INTERVAL_MS)
        b.beat()
    assert code(a.beat) == 25
    b.beat()
    assert numbers(b) == [4]


def test_a_lost_answer_is_no_reason_to_fence(sim) -> None:
    """The epoch before is right once more for a member that owns nothing but what it has been given."""
    a = SimulatedConsumer(sim, "a", "t")
    settle(sim, a)
    b = SimulatedConsumer(sim, "b", "t")
    settle(sim, b, a)
    before = a.epoch
    b.leave()
    a.beat()
    assert a.epoch == before + 1
    a.epoch = before
    assert a.beat().member_epoch == before + 1
    a.epoch = before + 2
    assert code(a.beat) == 110


def test_a_static_member_comes_back_to_its_partitions(sim) -> None:
    """Away with -2, nobody gets them; the next process has them at once; its former one is fenced."""
    a = SimulatedConsumer(sim, "a", "t", instance_id="i")
    b = SimulatedConsumer(sim, "b", "t")
    settle(sim, a, b)
    had, epoch = a.partitions(), sim.group.roster.epoch
    twin = SimulatedConsumer(sim, "twin", "t", instance_id="i")
    assert code(twin.beat) == 111
    a.go_away()
    b.beat()
    assert not b.partitions() & had
    twin.beat()
    assert twin.partitions() == had
    assert sim.group.roster.epoch == epoch
    a.epoch = twin.epoch
    assert code(a.beat) == 82


def test_a_static_member_that_stays_away_loses_them(sim) -> None:
    """Its session runs on while it is away."""
    a, b = SimulatedConsumer(sim, "a", "t", instance_id="i"), SimulatedConsumer(sim, "b", "t")
    settle(sim, a, b)
    a.go_away()
    settle(sim, b)
    assert numbers(b) == [4]


def test_topics_that_come_grow_and_go(sim) -> None:
    """A topic subscribed to before it exists, then with more partitions, then deleted and created anew."""
    a = SimulatedConsumer(sim, "a", "later")
    settle(sim, a)
    assert numbers(a) == []
    sim.catalog.create("later", 2)
    settle(sim, a)
    assert numbers(a) == [2]
    sim.catalog.grow("later", 5)
    settle(sim, a)
    assert numbers(a) == [5]
    sim.catalog.delete("later")
    settle(sim, a)
    assert numbers(a) == []
    sim.catalog.create("later", 1)
    settle(sim, a)
    assert a.partitions() == {(sim.catalog.topics["later"].topic_id, 0)}


def test_a_pattern_follows_the_topics(sim) -> None:
    """RE2 patterns match whole names; new topics are found, and deleted ones go."""
    a = SimulatedConsumer(sim, "a", subscribed_topic_names=None, subscribed_topic_regex="t|logs-.*")
    settle(sim, a)
    assert numbers(a) == [4]
    sim.catalog.create("logs-1", 3)
    sim.catalog.create("other-logs-1", 3)
    settle(sim, a)
    assert numbers(a) == [3, 4]
    sim.catalog.delete("logs-1")
    settle(sim, a)
    assert numbers(a) == [4]
    a.beat(subscribed_topic_regex="", subscribed_topic_names=["u"])
    settle(sim, a)
    assert numbers(a) == [2]
    assert not sim.group.roster.regexes


def test_a_pattern_that_is_none_changes_nothing(sim) -> None:
    """INVALID_REGULAR_EXPRESSION, for a new member and for an old one."""
    a = SimulatedConsumer(sim, "a", "t")
    settle(sim, a)
    before = sim.records()
    assert code(sim.beat, "b", 0, subscribed_topic_regex="(", rebalance_timeout_ms=1, topic_partitions=[]) == 128
    assert code(sim.beat, "a", a.epoch, subscribed_topic_regex="a{9999}") == 128
    assert sim.records() == before


def test_unsubscribing_gives_up_at_once(sim) -> None:
    """Without waiting for the next target assignment."""
    a = SimulatedConsumer(sim, "a", "t", "u")
    settle(sim, a, rounds=1)
    sim.settings = sim.settings.__class__(SESSION_MS, INTERVAL_MS, 15_000, 100, 100, "uniform", True)
    a.beat(subscribed_topic_names=["u"])
    assert numbers(a) == [2]
    assert sim.group.roster.assignment_epoch < sim.group.roster.epoch


def test_most_members_choose_the_assignor(sim) -> None:
    """The broker's first when nobody asks for one."""
    a = SimulatedConsumer(sim, "a", "t", server_assignor="range")
    a.beat()
    assert sim.group.assignor_name == "range"
    b, c = (SimulatedConsumer(sim, name, "t", server_assignor="uniform") for name in "bc")
    settle(sim, a, b, c)
    assert sim.group.assignor_name == "uniform"
    for member in (a, b, c):
        member.leave()
    assert sim.group.assignor_name == "uniform"


def test_commits_are_fenced_by_epoch(sim) -> None:
    """The current epoch may commit anything, an older one what the member has had since then; strangers nothing."""
    a, b = SimulatedConsumer(sim, "a", "t"), SimulatedConsumer(sim, "b", "t")
    settle(sim, a)
    first = a.epoch
    settle(sim, b, a)
    kept, gone = (
        sorted(set(range(4)) & partitions)
        for partitions in (set(next(iter(a.owned.values()))), set(next(iter(b.owned.values()))))
    )
    assert commit(sim, "a", a.epoch, gone[0]) == 0
    assert commit(sim, "a", first, kept[0]) == 0
    assert commit(sim, "a", first, gone[0]) == 113
    assert commit(sim, "a", first - 1, kept[0]) == 113
    assert commit(sim, "a", a.epoch + 1) == 113
    assert commit(sim, "a", a.epoch, version=8) == 35
    assert commit(sim, "", -1) == 25
    assert commit(sim, "x", a.epoch) == 25
    fetch = sim.group.check_offset_fetch
    assert [int(fetch("a", a.epoch)), int(fetch("a", first)), int(fetch("x", 1)), int(fetch(None, -1))] == [
        0,
        113,
        25,
        0,
    ]
    a.leave()
    b.leave()
    assert commit(sim, "", -1) == 0


def test_a_full_group_takes_nobody_else(sim) -> None:
    """group.consumer.max.size; who is in stays in."""
    sim = SimulatedConsumerGroup(Catalog(t=4), members_max=2)
    a, b = SimulatedConsumer(sim, "a", "t"), SimulatedConsumer(sim, "b", "t")
    settle(sim, a, b)
    assert code(SimulatedConsumer(sim, "c", "t").beat) == 81
    a.beat()
    assert len(sim.group.roster.accounts) == 2


def test_a_state_of_a_later_kafka_begins_anew(sim) -> None:
    """A member whose state this version does not know is fenced and may join again."""
    a = SimulatedConsumer(sim, "a", "t")
    settle(sim, a)
    key = next(key for key, _ in sim.log if key[:2] == b"\0\x08")
    value = bytearray(next(v for k, v in reversed(sim.log) if k == key))
    value[10] = 77
    sim.log.append((key, bytes(value)))
    sim.restart()
    assert code(a.beat) == 110
    a.beat()
    assert numbers(a) == [4]


def test_a_pattern_matches_what_its_member_may_know_of(sim) -> None:
    """Topics that the member may not describe do not exist for it."""
    client = JoiningClient("client", "/127.0.0.1", 1, may_describe=lambda name: name != "u")
    request = ConsumerGroupHeartbeatRequest(
        group_id="g", member_id="a", subscribed_topic_regex=".*", rebalance_timeout_ms=1, topic_partitions=[]
    )
    response, _ = sim.group.consumer_heartbeat(request, client)
    assert [entry.topic_id for entry in response.assignment.topic_partitions] == [sim.catalog.topics["t"].topic_id]
