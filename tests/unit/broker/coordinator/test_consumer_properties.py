"""Random life of a consumer group: clients that join, stall, crash, leave; topics that come and go; a broker that is killed."""

import contextlib

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.coordinator.consumer_group import ConsumerGroup
from broker.coordinator.group_state import ConsumerGroupState
from protocol.errors import KafkaError
from tests.unit.broker.coordinator.consumer_simulation import (
    INTERVAL_MS,
    SESSION_MS,
    Catalog,
    SimulatedConsumer,
    SimulatedConsumerGroup,
    by_key,
)

NAMES = st.sampled_from(["t", "u", "logs"])
INDEX = st.integers(0, 5)


class ConsumerGroupMachine(RuleBasedStateMachine):
    """What clients believe to own and what the group's records say is compared after each step."""

    @initialize(interval_ms=st.sampled_from([0, 1000]))
    def start(self, interval_ms: int) -> None:
        self.sim = SimulatedConsumerGroup(Catalog(t=4, u=3), interval_ms=interval_ms)
        self.members: list[SimulatedConsumer] = []
        self.next_id = 0

    def _member(self, index: int) -> SimulatedConsumer | None:
        return self.members[index % len(self.members)] if self.members else None

    @rule(topics=st.lists(NAMES, unique=True), instance=st.sampled_from([None, None, "i", "j"]))
    def joins(self, topics, instance) -> None:
        self._join(SimulatedConsumer(self.sim, f"m{self.next_id}", *topics, instance_id=instance))

    @rule(regex=st.sampled_from(["t|u", ".*", "l.*"]), topics=st.lists(NAMES, unique=True, max_size=1))
    def joins_by_pattern(self, regex, topics) -> None:
        self._join(SimulatedConsumer(self.sim, f"m{self.next_id}", *topics, subscribed_topic_regex=regex))

    def _join(self, member: SimulatedConsumer) -> None:
        self.next_id += 1
        if len(self.members) < 6:
            with contextlib.suppress(KafkaError):  # its instance id is in use
                member.beat()
                self.members.append(member)

    @rule(index=INDEX)
    def heartbeats(self, index) -> None:
        if member := self._member(index):
            with contextlib.suppress(KafkaError):
                member.beat()

    @rule(index=INDEX, topics=st.lists(NAMES, unique=True))
    def subscribes(self, index, topics) -> None:
        if (member := self._member(index)) and member.epoch > 0:
            with contextlib.suppress(KafkaError):
                member.beat(subscribed_topic_names=topics)

    @rule(index=INDEX)
    def stalls(self, index) -> None:
        """It goes on heartbeating, but is busy with what it has to give up."""
        if member := self._member(index):
            member.slow = True

    @rule(index=INDEX)
    def gives_up(self, index) -> None:
        if member := self._member(index):
            member.slow = False
            member.revoke()

    @rule(index=INDEX)
    def leaves(self, index) -> None:
        if member := self._member(index):
            self.members.remove(member)
            with contextlib.suppress(KafkaError):
                member.leave()

    @rule(index=INDEX)
    def goes_away(self, index) -> None:
        if (member := self._member(index)) and member.fields.get("instance_id"):
            self.members.remove(member)
            with contextlib.suppress(KafkaError):
                member.go_away()

    @rule(index=INDEX)
    def crashes(self, index) -> None:
        if member := self._member(index):
            self.members.remove(member)

    @rule(index=INDEX)
    def is_refused_by_the_log(self, index) -> None:
        """A full disk: the request fails and the group is as it was."""
        if member := self._member(index):
            before = self.sim.records()
            self.sim.refuses = True
            with contextlib.suppress(KafkaError):
                member.beat()
            self.sim.refuses = False
            assert self.sim.records() == before

    @rule(name=NAMES, count=st.integers(1, 5))
    def topic_changes(self, name, count) -> None:
        known = self.sim.catalog.named(name)
        if known is None:
            self.sim.catalog.create(name, count)
        elif count > known.partition_count:
            self.sim.catalog.grow(name, count)
        else:
            self.sim.catalog.delete(name)

    @rule(duration_ms=st.sampled_from([1, 1000, 10_000, 30_001, SESSION_MS + 1]))
    def time_passes(self, duration_ms) -> None:
        self.sim.pass_time(duration_ms)

    @rule()
    def broker_is_killed(self) -> None:
        before = self.sim.records()
        self.sim.restart()
        assert self.sim.records() == before

    @rule()
    def settles(self) -> None:
        """Left alone for a while, everybody has what the group owes it: every partition read has one reader."""
        for _ in range(14):
            for member in self.members:
                member.slow = False
                with contextlib.suppress(KafkaError):
                    member.beat()
            self.sim.pass_time(INTERVAL_MS)
        group = self.sim.group
        assert isinstance(group, ConsumerGroup)
        # Crashed members have not timed out or static ones are away: theirs is nobody's yet.
        if len(group.roster.accounts) != len(self.members) or not self.members:
            return
        assert group.state is ConsumerGroupState.STABLE
        read = {name for name in self.sim.catalog.names() if group.is_subscribed(name)}
        wanted = {
            (facts.topic_id, partition)
            for name in read
            for facts in [self.sim.catalog.topics[name]]
            for partition in range(facts.partition_count)
        }
        owned = [partition for member in self.members for partition in member.partitions()]
        assert sorted(owned) == sorted(wanted)

    @invariant()
    def no_partition_has_two_readers(self) -> None:
        """Among members whose session runs; what a fenced member still believes to own it learns with its next heartbeat."""
        accounts = self.sim.group.roster.accounts if hasattr(self, "sim") else {}
        current = [m for m in getattr(self, "members", []) if m.member_id in accounts and m.epoch > 0]
        owned = [partition for member in current for partition in member.partitions()]
        assert len(owned) == len(set(owned))

    @invariant()
    def the_log_tells_it_all(self) -> None:
        """A replay gives the same group; rewritten from what lives, too."""
        if hasattr(self, "sim"):
            group = self.sim.group
            again = self.sim.replayed()
            rewritten = self.sim.new_group()
            for record in group.live_records():
                rewritten.take_up(record)
            for other in (again, rewritten):
                assert other.roster.owners == group.roster.owners
                assert other.roster.readers == group.roster.readers
                assert other.roster.static_members == group.roster.static_members
                assert by_key(other.live_records()) == by_key(group.live_records())


ConsumerGroupMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestConsumerGroup = ConsumerGroupMachine.TestCase
