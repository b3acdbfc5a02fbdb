"""The classic group protocol on a virtual clock: each test states one property of Kafka's state machine."""

import pytest

from broker.coordinator.effects import TimerKey, TimerKind
from broker.coordinator.group_state import GroupState
from tests.unit.broker.coordinator.simulation import REBALANCE_MS, SESSION_MS, SimulatedGroup, value


def error(answer) -> int:
    return value(answer).error_code


def test_dynamic_member_is_told_its_id_first() -> None:
    """From JoinGroup v4 an unknown member gets MEMBER_ID_REQUIRED and is not in the group until it comes back."""
    sim = SimulatedGroup()
    first = value(sim.join())
    assert (first.error_code, first.member_id) == (79, "client-id1")
    assert sim.group.state is GroupState.EMPTY
    second = sim.join("client-id1")
    sim.pass_time(0)
    assert value(second).generation_id == 1
    assert [m.member_id for m in value(second).members] == ["client-id1"]


def test_old_versions_join_at_once() -> None:
    """Before v4 the first JoinGroup already enters."""
    sim = SimulatedGroup()
    answer = sim.join(version=3)
    sim.pass_time(0)
    assert error(answer) == 0


def test_pending_id_expires_with_its_session() -> None:
    """An id that nobody uses is forgotten after the session timeout."""
    sim = SimulatedGroup()
    member_id = value(sim.join()).member_id
    sim.pass_time(SESSION_MS + 1)
    assert error(sim.join(member_id)) == 25


def test_initial_delay_grows_while_members_come() -> None:
    """A group that starts from Empty waits for the delay, again for each one that came, up to the rebalance timeout."""
    sim = SimulatedGroup(initial_delay_ms=3000)
    _, a = sim.enter()
    sim.pass_time(2999)
    _, b = sim.enter()
    sim.pass_time(3000)
    assert not a.resolved
    sim.pass_time(1)
    assert value(a).generation_id == value(b).generation_id == 1
    assert len(value(a).members) == 2
    assert value(b).members == []


def test_initial_delay_ends_at_the_rebalance_timeout() -> None:
    """However many come, the first generation begins after the rebalance timeout."""
    sim = SimulatedGroup(initial_delay_ms=3000)
    _, first = sim.enter(rebalance_ms=7000)
    for _ in range(6):
        sim.enter(rebalance_ms=7000)
        sim.pass_time(1000)
    assert not first.resolved
    sim.pass_time(1000)
    assert value(first).generation_id == 1


def test_assignments_are_the_leaders_bytes() -> None:
    """Every member gets exactly what the leader sent for it; who is left out gets empty bytes, not null."""
    sim = SimulatedGroup()
    ids, generation = sim.stable(3)
    for member_id in ids:
        assert value(sim.sync(member_id, generation)).assignment == member_id.encode()
    sim.join(ids[0])
    joins = [sim.join(member_id) for member_id in ids[1:]]
    generation = value(joins[0]).generation_id
    waiting = [sim.sync(member_id, generation) for member_id in ids[1:]]
    sim.sync(ids[0], generation, [(ids[1], b"\x00only")])
    assert [value(sync).assignment for sync in waiting] == [b"\x00only", b""]


def test_follower_with_same_metadata_disturbs_nobody() -> None:
    """A follower that joins again unchanged gets the current generation; a changed one, or the leader, rebalances."""
    sim = SimulatedGroup()
    ids, generation = sim.stable(2)
    assert value(sim.join(ids[1])).generation_id == generation
    assert sim.heartbeat(ids[0], generation) == 0
    waits = sim.join(ids[1], protocols=(("range", b"changed"),))
    assert not waits.resolved
    assert sim.heartbeat(ids[0], generation) == 27
    sim.join(ids[0])
    assert value(waits).generation_id == generation + 1


def test_lost_join_answer_is_given_again() -> None:
    """Joining again in CompletingRebalance with the same metadata repeats the answer, with the members for the leader."""
    sim = SimulatedGroup()
    member_id, _ = sim.enter()
    sim.pass_time(0)
    again = value(sim.join(member_id))
    assert (again.error_code, again.generation_id, len(again.members)) == (0, 1, 1)


def test_join_on_a_second_connection_answers_the_first() -> None:
    """No parked request is forgotten: the older JoinGroup of a member is told to try again."""
    sim = SimulatedGroup()
    ids, _ = sim.stable(2)
    first = sim.join(ids[1], protocols=(("range", b"new"),))
    second = sim.join(ids[1], protocols=(("range", b"new"),))
    assert error(first) == 27
    sim.join(ids[0])
    assert error(second) == 0


def test_silent_member_is_put_out() -> None:
    """A session that ends removes the member and calls the others to rebalance."""
    sim = SimulatedGroup()
    ids, generation = sim.stable(2)
    sim.pass_time(SESSION_MS // 2)
    assert sim.heartbeat(ids[0], generation) == 0
    sim.pass_time(SESSION_MS // 2 + 1)
    assert sim.heartbeat(ids[0], generation) == 27
    assert sim.heartbeat(ids[1], generation) == 25
    alone = sim.join(ids[0])
    assert [m.member_id for m in value(alone).members] == [ids[0]]


def test_parked_members_do_not_expire() -> None:
    """While a member waits for the others its session does not run; it starts again with the answer."""
    sim = SimulatedGroup()
    ids, generation = sim.stable(2)
    parked = sim.join(ids[0])
    for _ in range(3):
        sim.pass_time(SESSION_MS - 1)
        if sim.group.state is GroupState.PREPARING_REBALANCE:
            sim.heartbeat(ids[1], generation)
    sim.pass_time(REBALANCE_MS)
    assert value(parked).generation_id == generation + 1
    sim.pass_time(SESSION_MS + 1)
    assert sim.group.state is GroupState.EMPTY


def test_rebalance_timeout_leaves_dynamic_members_behind() -> None:
    """Who does not join again in time is out, and the rest go on with a leader among those who came."""
    sim = SimulatedGroup()
    ids, generation = sim.stable(2, session_ms=60_000)
    answer = sim.join(ids[1], protocols=(("range", b"new"),), session_ms=60_000)
    sim.pass_time(REBALANCE_MS - 1)
    assert not answer.resolved
    sim.pass_time(1)
    assert (value(answer).leader, value(answer).generation_id) == (ids[1], generation + 1)
    assert sim.heartbeat(ids[0], generation) == 25


def test_missing_sync_is_put_out() -> None:
    """A member that never syncs is removed after the rebalance timeout; those who wait are told to join again."""
    sim = SimulatedGroup()
    ids, _ = sim.stable(2, session_ms=60_000)
    sim.join(ids[0], session_ms=60_000)
    generation = value(sim.join(ids[1], session_ms=60_000)).generation_id
    waits = sim.sync(ids[1], generation)
    sim.pass_time(REBALANCE_MS)
    assert error(waits) == 27
    assert sim.heartbeat(ids[0], generation) == 25


def test_pending_id_holds_the_rebalance_up() -> None:
    """A rebalance waits for ids that were handed out, until they come or their session ends."""
    sim = SimulatedGroup()
    ids, _ = sim.stable(1)
    sim.join()
    leader = sim.join(ids[0])
    assert not leader.resolved
    sim.pass_time(SESSION_MS)
    assert error(leader) == 0


@pytest.mark.parametrize("state", ["preparing", "completing", "stable"])
def test_leave_is_answered_in_every_state(state) -> None:
    """A member that leaves ends its parked requests, and the group goes on without it."""
    sim = SimulatedGroup()
    ids, generation = sim.stable(2)
    if state != "stable":
        parked = sim.join(ids[1], protocols=(("range", b"new"),))
        if state == "completing":
            sim.join(ids[0])
            parked = sim.sync(ids[1], generation + 1)
    assert sim.leave((ids[1], None)) == [0]
    if state != "stable":
        assert error(parked) == 25
    assert error(sim.join(ids[0])) == 0
    assert sim.leave((ids[0], None)) == [0]
    assert sim.group.state is GroupState.EMPTY
    assert sim.persisted[-1].members == ()
    assert not sim.timers


def test_wrong_ids_and_generations_are_fenced() -> None:
    """Unknown members, other generations and other protocols are refused and change nothing."""
    sim = SimulatedGroup()
    ids, generation = sim.stable(1)
    assert sim.heartbeat("nobody", generation) == 25
    assert sim.heartbeat(ids[0], generation - 1) == 22
    assert error(sim.sync(ids[0], generation + 1)) == 22
    assert error(sim.sync(ids[0], generation, protocol_name="sticky")) == 23
    assert error(sim.join(protocol_type="connect")) == 23
    assert error(sim.join(protocols=(("other", b""),))) == 23
    assert sim.commit_error(ids[0], generation) == 0
    assert sim.commit_error(ids[0], generation + 1) == 22
    assert sim.commit_error("", -1) == 25
    assert sim.heartbeat(ids[0], generation) == 0


def test_commits_are_refused_between_generations() -> None:
    """Offsets may be committed while members still hold partitions (Preparing), not once they gave them up (Completing)."""
    sim = SimulatedGroup()
    ids, generation = sim.stable(2)
    sim.join(ids[1], protocols=(("range", b"new"),))
    assert sim.commit_error(ids[0], generation) == 0
    sim.join(ids[0])
    assert sim.commit_error(ids[0], generation + 1) == 27


def test_group_max_size() -> None:
    """A full group refuses further members with GROUP_MAX_SIZE_REACHED."""
    sim = SimulatedGroup(members_max=1)
    sim.stable(1)
    assert error(sim.join()) == 81


def test_votes_choose_the_protocol() -> None:
    """The protocol that most members prefer among the common ones is chosen."""
    sim = SimulatedGroup(initial_delay_ms=3000)
    answers = [
        sim.join(version=3, protocols=tuple((name, name.encode()) for name in names))
        for names in (("range", "sticky"), ("sticky", "range"), ("sticky", "other", "range"))
    ]
    sim.pass_time(6000)
    assert value(answers[0]).protocol_name == "sticky"
    assert [m.metadata for m in value(answers[0]).members] == [b"sticky"] * 3


def stable_static(sim: SimulatedGroup) -> tuple[list[str], int]:
    """Static members a (leader) and b, Stable."""
    a = sim.join(instance="a")
    sim.pass_time(0)
    sim.sync(value(a).member_id, 1)
    b = sim.join(instance="b")
    a = sim.join(value(a).member_id, instance="a")
    ids = [value(a).member_id, value(b).member_id]
    sim.sync(ids[1], 2, instance="b")
    sim.sync(ids[0], 2, [(ids[0], b"A"), (ids[1], b"B")], instance="a")
    return ids, 2


def test_static_member_comes_back_without_rebalance() -> None:
    """A new process of a static member takes over its assignment; the old one is fenced; the others notice nothing."""
    sim = SimulatedGroup()
    ids, generation = stable_static(sim)
    back = value(sim.join(instance="b"))
    assert (back.error_code, back.generation_id, back.skip_assignment) == (0, generation, False)
    assert sim.heartbeat(ids[0], generation, "a") == 0
    assert value(sim.sync(back.member_id, generation, instance="b")).assignment == b"B"
    assert sim.heartbeat(ids[1], generation, "b") == 82
    assert sim.persisted[-1].members[-1].member_id == back.member_id


@pytest.mark.parametrize(("version", "leads"), [(9, True), (8, False)])
def test_static_leader_comes_back(version, leads) -> None:
    """KIP-814: from v9 the new leader is told so and to skip the assignment; before, it must not think that it leads."""
    sim = SimulatedGroup()
    ids, _ = stable_static(sim)
    back = value(sim.join(instance="a", version=version))
    assert back.skip_assignment is leads
    assert (back.leader == back.member_id) is leads
    assert leads or back.leader == ids[0]
    assert len(back.members) == (2 if leads else 0)


def test_static_replacement_fences_parked_requests() -> None:
    """The old process of a static member that waits in JoinGroup or SyncGroup is answered with FENCED_INSTANCE_ID."""
    sim = SimulatedGroup()
    ids, generation = stable_static(sim)
    joining = sim.join(ids[1], instance="b", protocols=(("range", b"new"),))
    second = sim.join(instance="b")
    assert (error(joining), value(joining).member_id) == (82, ids[1])
    sim.join(ids[0], instance="a")
    syncing = sim.sync(value(second).member_id, generation + 1, instance="b")
    third = sim.join(instance="b")
    assert error(syncing) == 82
    sim.join(ids[0], instance="a")
    assert value(third).generation_id == generation + 2


def test_static_members_stay_through_a_rebalance() -> None:
    """A static member that does not join again in time keeps its place until its session ends."""
    sim = SimulatedGroup()
    ids, generation = stable_static(sim)
    parked = sim.join(ids[0], instance="a")
    for _ in range(REBALANCE_MS // (SESSION_MS - 1) + 1):
        assert not parked.resolved
        assert sim.heartbeat(ids[1], generation, "b") == 27
        sim.pass_time(SESSION_MS - 1)
    assert [m.group_instance_id for m in value(parked).members] == ["a", "b"]
    sim.pass_time(SESSION_MS)
    assert sim.heartbeat(ids[1], generation + 1, "b") == 25


def test_admin_removes_static_member_by_instance() -> None:
    """LeaveGroup with an instance id alone removes its member; unknown and mismatched pairs are refused one by one."""
    sim = SimulatedGroup()
    ids, generation = stable_static(sim)
    assert sim.leave(("", "nobody"), ("nobody", "b"), (ids[1], "a"), ("", None)) == [25, 82, 82, 25]
    assert sim.heartbeat(ids[0], generation, "a") == 0
    assert sim.leave(("", "b"), ("", "b")) == [0, 25]
    assert sim.heartbeat(ids[0], generation, "a") == 27


def test_restart_keeps_generation_and_members() -> None:
    """After a restart members heartbeat on with the same generation and get the same assignment."""
    sim = SimulatedGroup()
    ids, generation = sim.stable(2)
    sim.restart()
    assert [sim.heartbeat(member_id, generation) for member_id in ids] == [0, 0]
    assert value(sim.sync(ids[1], generation)).assignment == ids[1].encode()
    assert sim.group.snapshot() == sim.persisted[-1]
    sim.pass_time(SESSION_MS + 1)
    assert sim.group.state is GroupState.EMPTY


def test_restart_during_rebalance_falls_back_to_the_last_generation() -> None:
    """A generation that was never assigned is not persisted: its members are fenced by generation and join again."""
    sim = SimulatedGroup()
    ids, generation = sim.stable(2)
    sim.join(ids[0])
    sim.join(ids[1])
    sim.restart()
    assert sim.heartbeat(ids[0], generation + 1) == 22
    sim.join(ids[1], protocols=(("range", b"new"),))
    assert value(sim.join(ids[0])).generation_id == generation + 1


def test_subscriptions_protect_topics() -> None:
    """A consumer group's subscribed topics are known; when its metadata is unreadable every topic counts as subscribed."""
    topics = b"\x00\x01\x00\x00\x00\x01\x00\x01x\x00\x00\x00\x00"
    sim = SimulatedGroup()
    sim.stable(1, protocols=(("range", topics),))
    assert sim.group.is_subscribed("x")
    assert not sim.group.is_subscribed("y")
    unreadable = SimulatedGroup()
    unreadable.stable(1, protocols=(("range", b"not a subscription"),))
    assert unreadable.group.is_subscribed("anything")
    connect = SimulatedGroup()
    connect.stable(1, protocols=(("range", topics),), protocol_type="connect")
    assert not connect.group.is_subscribed("x")


def test_session_timers_cover_everybody() -> None:
    """Members of a Stable group and pending ids each have a session timer."""
    sim = SimulatedGroup()
    ids, _ = sim.stable(3)
    pending = value(sim.join()).member_id
    assert {key for key in sim.timers if key.kind is TimerKind.SESSION} == {
        TimerKey(TimerKind.SESSION, member_id) for member_id in [*ids, pending]
    }


def test_session_starts_again_when_a_waiting_sync_is_answered() -> None:
    """A session that would have ended while SyncGroup waited starts anew with the assignment, and then really ends."""
    sim = SimulatedGroup()
    ids, _ = sim.stable(2)
    sim.join(ids[0])
    generation = value(sim.join(ids[1])).generation_id
    waiting = sim.sync(ids[1], generation)
    for _ in range(2):
        sim.pass_time(SESSION_MS - 1)
        assert sim.heartbeat(ids[0], generation) == 0
    sim.sync(ids[0], generation, [(ids[1], b"yours")])
    assert value(waiting).assignment == b"yours"
    sim.pass_time(SESSION_MS - 1)
    assert sim.heartbeat(ids[0], generation) == 0
    sim.pass_time(1)
    assert sim.heartbeat(ids[0], generation) == 27
    assert sim.heartbeat(ids[1], generation) == 25
