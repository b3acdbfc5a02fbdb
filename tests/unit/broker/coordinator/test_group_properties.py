"""Random operations on one group: whatever happens, in whatever order, these invariants hold after each step."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.coordinator.classic_group import ClassicGroup
from broker.coordinator.effects import TimerKey, TimerKind
from broker.coordinator.group_state import GroupState
from broker.coordinator.records import GroupRecord, decode_record, encode_record
from broker.deferred import Deferred
from tests.unit.broker.coordinator.simulation import SimulatedGroup, value

PROTOCOLS = st.sampled_from(
    [(("range", b"1"),), (("range", b"2"),), (("range", b"1"), ("sticky", b"s")), (("sticky", b"s"),)]
)
INSTANCES = st.sampled_from(["a", "b"])
INDEX = st.integers(0, 7)


class GroupMachine(RuleBasedStateMachine):
    """Members that join, sync, heartbeat, leave, go silent or come back as new processes, on a virtual clock."""

    @initialize(delay=st.sampled_from([0, 3000]), members_max=st.sampled_from([2, 100]))
    def start(self, delay: int, members_max: int) -> None:
        self.sim = SimulatedGroup(members_max=members_max, initial_delay_ms=delay)
        self.known: list[tuple[str, str | None]] = []
        self.given: dict[int, dict[str, bytes]] = {}
        self.parked: list[Deferred] = []
        self.answered = 0

    def _pick(self, index: int) -> tuple[str, str | None]:
        return self.known[index % len(self.known)]

    def _joined(self, answer: Deferred, instance: str | None) -> None:
        self.parked.append(answer)
        answer.then(lambda response: self._take_id(response, instance))

    def _take_id(self, response, instance: str | None) -> None:
        self.answered += 1
        if response.error_code in (0, 79) and (response.member_id, instance) not in self.known:
            self.known.append((response.member_id, instance))

    @rule(protocols=PROTOCOLS, version=st.sampled_from([3, 9]), instance=st.none() | INSTANCES)
    def join_new(self, protocols, version, instance) -> None:
        self._joined(self.sim.join(protocols=protocols, version=version, instance=instance), instance)

    @precondition(lambda self: self.known)
    @rule(index=INDEX, protocols=PROTOCOLS, version=st.sampled_from([3, 9]))
    def join_again(self, index, protocols, version) -> None:
        member_id, instance = self._pick(index)
        self._joined(self.sim.join(member_id, protocols=protocols, version=version, instance=instance), instance)

    @precondition(lambda self: self.known)
    @rule(index=INDEX, stale=st.booleans(), lead=st.booleans())
    def sync(self, index, stale, lead) -> None:
        group = self.sim.group
        member_id, instance = self._pick(index)
        if lead and group.roster.leader_id in group.roster.members:
            leader = group.roster.members[group.roster.leader_id]
            member_id, instance = leader.member_id, leader.group_instance_id
        generation = group.generation_id - stale
        leads = member_id == group.roster.leader_id and group.state is GroupState.COMPLETING_REBALANCE and not stale
        assignments = [(known, f"{known}/{generation}".encode()) for known in group.roster.members] if leads else []
        if leads:
            self.given[generation] = dict(assignments)
        answer = self.sim.sync(member_id, generation, assignments, instance=instance)
        self.parked.append(answer)
        answer.then(lambda response: self._check_assignment(response, member_id, generation))

    def _check_assignment(self, response, member_id: str, generation: int) -> None:
        self.answered += 1
        if response.error_code == 0 and member_id in self.given.get(generation, {}):
            assert response.assignment == self.given[generation][member_id]

    @precondition(lambda self: self.known)
    @rule(index=INDEX)
    def heartbeat(self, index) -> None:
        member_id, instance = self._pick(index)
        self.sim.heartbeat(member_id, self.sim.group.generation_id, instance)

    @precondition(lambda self: self.known)
    @rule(index=INDEX, by_instance=st.booleans())
    def leave(self, index, by_instance) -> None:
        member_id, instance = self._pick(index)
        self.sim.leave(("" if by_instance and instance else member_id, instance))

    @rule(duration_ms=st.sampled_from([0, 1, 3000, 9999, 10_001, 30_000, 400_000]))
    def pass_time(self, duration_ms) -> None:
        before = self.sim.group.generation_id
        self.sim.pass_time(duration_ms)
        assert self.sim.group.generation_id >= before

    @rule()
    def replay_gives_the_persisted_state(self) -> None:
        """What is read back from the log is what was written, and restoring it gives the same group again."""
        if self.sim.persisted:
            record = GroupRecord("g", self.sim.persisted[-1])
            assert decode_record(*encode_record(record)) == record
            restored = ClassicGroup("g", self.sim.limits, time_ms=lambda: 0, new_id=str)
            restored.take_up(record)
            assert restored.snapshot() == record.value

    @rule()
    def kill_and_restart(self) -> None:
        self.parked.clear()
        self.sim.restart()

    @invariant()
    def bookkeeping_agrees(self) -> None:
        if not hasattr(self, "sim"):
            return
        group, roster = self.sim.group, self.sim.group.roster
        statics = {m.group_instance_id: m.member_id for m in roster.members.values() if m.group_instance_id is not None}
        assert roster.static_members == statics
        assert not roster.pending_join & set(roster.members)
        assert roster.pending_sync <= set(roster.members)
        assert (roster.leader_id in roster.members) if roster.members else roster.leader_id is None
        assert set(group.parked_joins) <= set(roster.members)
        assert set(group.parked_syncs) <= set(roster.members)
        assert not group.parked_joins or group.state is GroupState.PREPARING_REBALANCE
        assert not group.parked_syncs or group.state is GroupState.COMPLETING_REBALANCE
        assert (group.state is GroupState.EMPTY) <= (not roster.members)
        if group.state in (GroupState.STABLE, GroupState.COMPLETING_REBALANCE):
            assert group.protocol_name in roster.common_protocols()

    @invariant()
    def every_request_is_parked_or_answered(self) -> None:
        """Answering twice raises in Deferred; what is not answered is parked in the group, once."""
        if hasattr(self, "sim"):
            group = self.sim.group
            unanswered = [id(answer) for answer in self.parked if not answer.resolved]
            parked = [*map(id, group.parked_joins.values()), *map(id, group.parked_syncs.values())]
            assert sorted(unanswered) == sorted(parked)

    @invariant()
    def nobody_is_without_a_timer(self) -> None:
        """Each member and pending id has a session timer, unless its request waits for us; a rebalance always ends."""
        if not hasattr(self, "sim"):
            return
        group, timers = self.sim.group, self.sim.timers
        for member_id in [*group.roster.members, *group.roster.pending_join]:
            waits = member_id in group.parked_joins or member_id in group.parked_syncs
            assert waits or TimerKey(TimerKind.SESSION, member_id) in timers
        for key in timers:
            if key.kind is TimerKind.SESSION:
                assert key.member_id in group.roster.members or key.member_id in group.roster.pending_join
        if group.state is GroupState.PREPARING_REBALANCE:
            assert TimerKey(TimerKind.JOIN) in timers
        if group.roster.pending_sync:
            assert TimerKey(TimerKind.SYNC) in timers

    def teardown(self) -> None:
        """Left alone long enough, the group is empty and nobody waits."""
        if hasattr(self, "sim"):
            self.sim.pass_time(10 * 400_000)
            assert self.sim.group.state is GroupState.EMPTY
            assert not self.sim.timers
            assert all(answer.resolved for answer in self.parked)


TestGroup = GroupMachine.TestCase
TestGroup.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_a_stable_group_survives_its_record() -> None:
    """Members, assignments, leader and generation come back from the bytes of one record."""
    sim = SimulatedGroup()
    ids, generation = sim.stable(3)
    record = GroupRecord("g", sim.persisted[-1])
    key, data = encode_record(record)
    decoded = decode_record(key, data)
    assert decoded == record
    assert value(sim.sync(ids[2], generation)).assignment == ids[2].encode()
