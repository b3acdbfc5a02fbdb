"""The group coordinator on a real log: what is answered is durable, what is durable comes back."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import journal
from broker.coordinator import group_store
from broker.coordinator.group_state import GroupState
from broker.producer_ids import ProducerIdAndEpoch
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import LeaveGroupRequest
from tests.unit.broker.coordinator.simulation import value
from tests.unit.broker.coordinator.world import World

RETENTION_MS = 7 * 24 * 3_600_000
CHECK_MS = 600_000


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[list[World]]:
    """The worlds a test opens; the first one is open already and has the topic `t`."""
    opened = [World(tmp_path / "0")]
    opened[0].topics.create("t", 4, {})
    yield opened
    for world in opened:
        world.hold(False)
        world.close()


def restarted(worlds: list[World], tmp_path: Path) -> World:
    worlds.append(worlds[-1].killed(tmp_path / str(len(worlds))))
    return worlds[-1]


def test_a_commit_is_answered_when_it_is_durable(worlds) -> None:
    """Neither the commit nor a later fetch is answered before the disk has it."""
    world = worlds[0]
    world.groups.ensure_ready()
    world.turn()
    world.hold(True)
    committed = world.commit("g", "t", 0, 5)
    fetched: list[ErrorCode] = []
    world.groups.offsets.when_durable(["g"], fetched.append)
    assert not committed.resolved
    assert fetched == []
    world.hold(False)
    assert value(committed) == 0
    assert fetched == [ErrorCode.NONE]


def test_an_assignment_is_answered_when_it_is_durable(worlds) -> None:
    """SyncGroup's answer waits for the generation's record."""
    world = worlds[0]
    joined = world.join("g")
    world.pass_time(0)
    world.hold(True)
    answer = world.sync("g", value(joined).member_id, 1, b"x")
    assert not answer.resolved
    world.hold(False)
    assert value(answer).assignment == b"x"


def test_kill_keeps_offsets_members_and_generation(worlds, tmp_path) -> None:
    """After kill -9 members heartbeat on with the same generation and offsets are where they were."""
    world = worlds[0]
    member = world.stable("g")
    assert value(world.commit("g", "t", 1, 42, member)) == 0
    assert value(world.commit("simple", "t", 0, 7)) == 0
    before = world.state()
    again = restarted(worlds, tmp_path)
    assert again.state() == before
    assert again.heartbeat("g", member) == 0
    assert value(again.sync("g", *member)).assignment == b"assigned"
    again.pass_time(10_001)
    assert again.groups.group("g").state is GroupState.EMPTY


def test_a_deleted_group_stays_deleted(worlds, tmp_path) -> None:
    """DeleteGroups takes offsets and generation with it, for good; a group with members is refused."""
    world = worlds[0]
    member = world.stable("g")
    world.commit("g", "t", 1, 42, member)
    assert value(world.groups.delete_group("g")) == ErrorCode.NON_EMPTY_GROUP
    assert value(world.groups.delete_group("nope")) == ErrorCode.GROUP_ID_NOT_FOUND
    world.groups.leave("g", [LeaveGroupRequest.MemberIdentity(member_id=member[0])])
    deleted = world.groups.delete_group("g")
    world.turn()
    assert value(deleted) == 0
    assert restarted(worlds, tmp_path).state() == {}


def test_offsets_go_with_their_topic(worlds, tmp_path) -> None:
    """A topic's offsets are deleted with it, also when the broker is killed between the two."""
    world = worlds[0]
    world.topics.create("u", 1, {})
    world.commit("g", "t", 0, 5, topic_id=world.topics.get("t").topic_id)
    world.commit("g", "u", 0, 6, topic_id=world.topics.get("u").topic_id)
    world.topics.observers.remove(world.groups)  # killed before the group hears of it
    world.topics.delete("t")
    world.topics.create("t", 1, {})
    again = restarted(worlds, tmp_path)
    assert again.groups.offsets.of_group("g").topics() == ["u"]
    again.topics.delete("u")
    again.turn()
    assert not again.groups.offsets.of_group("g")
    assert restarted(worlds, tmp_path).state() == {}


def test_single_offsets_are_deleted(worlds) -> None:
    """OffsetDelete removes what nobody reads; the group itself is checked first."""
    world = worlds[0]
    world.commit("g", "t", 0, 5)
    deleted = world.groups.offsets.delete("g", [("t", 0), ("t", 3)])
    world.turn()
    assert value(deleted) == [0, 0]
    assert not world.groups.offsets.of_group("g")
    for group_id, code in (("", 24), ("nope", 69)):
        with pytest.raises(KafkaError) as refused:
            world.groups.offsets.delete(group_id, [])
        assert refused.value.code == code


def test_retention(worlds, tmp_path) -> None:
    """Offsets of an unused group expire, and the group with its last one; a live group keeps what it reads."""
    world = worlds[0]
    world.commit("unused", "t", 0, 5)
    world.commit("short", "t", 0, 5, expire_timestamp_ms=world.clock.now_ms + 1)
    world.pass_time(CHECK_MS)
    assert [group.group_id for group in world.groups.groups()] == ["unused"]
    world.pass_time(RETENTION_MS - 2 * CHECK_MS)
    assert world.groups.offsets.of_group("unused")
    world.pass_time(2 * CHECK_MS)
    assert world.state() == {}
    assert restarted(worlds, tmp_path).state() == {}


def test_old_records_are_dropped(worlds, tmp_path, monkeypatch) -> None:
    """The log of a busy group stays in proportion to what it holds: compaction takes the rest, and a replay says the same."""
    monkeypatch.setattr(journal, "ROLL_RECORDS", 50)
    world = worlds[0]
    member = world.stable("g")
    for offset in range(200):
        world.commit("g", "t", offset % 4, offset, member)
        world.heartbeat("g", member)
    world.commit("other", "t", 0, 1)
    assert _held(world) > 200
    world.logs.checkpoint()
    world.turn()
    for _ in range(CHECK_MS // 5000):
        world.pass_time(5000)
        world.heartbeat("g", member)
    world.commit("g", "t", 0, 200, member)
    for _ in range(2):
        world.logs.checkpoint()
        world.turn()
        world.logs.maintain()
        world.turn()
    assert _held(world) < 20
    assert restarted(worlds, tmp_path).state() == world.state()


def _held(world) -> int:
    return len(list(world.groups._store._journal.replay()))


def test_a_refusing_log_changes_no_offsets(worlds) -> None:
    """When the log takes nothing (disk full), clients are told to look for the coordinator again; offsets stay."""
    world = worlds[0]
    member = world.stable("g")
    world.commit("g", "t", 0, 5, member)
    world.logs._services.refusal = KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "full")
    assert value(world.commit("g", "t", 0, 6, member)) == ErrorCode.NOT_COORDINATOR
    assert world.groups.offsets.of_group("g").get("t", 0).offset == 5
    assert value(world.groups.delete_group("simple")) == ErrorCode.GROUP_ID_NOT_FOUND
    joined = world.join("new")
    world.pass_time(0)
    assert value(world.sync("new", value(joined).member_id, 1)).error_code == ErrorCode.NOT_COORDINATOR
    world.logs._services.refusal = None


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"group_id": ""}, 24),
        ({"group_id": "x" * 40_000}, 24),
        ({"session_timeout_ms": 5999}, 26),
        ({"session_timeout_ms": 1_800_001}, 26),
        ({"group_instance_id": "x" * 40_000}, 42),
        ({"protocol_type": ""}, 23),
        ({"protocols": []}, 23),
        ({"member_id": "nobody"}, 25),
    ],
)
def test_bad_joins_leave_nothing_behind(worlds, fields, code) -> None:
    """A JoinGroup that cannot be accepted, or could not be stored, creates no group."""
    group_id = fields.pop("group_id", "g")
    assert value(worlds[0].join(group_id, **fields)).error_code == code
    assert worlds[0].state() == {}


def test_a_long_client_id_is_cut_in_the_member_id(worlds) -> None:
    """Member ids stay short enough to be stored, whatever the client calls itself."""
    answer = value(worlds[0].join("g", version=9))
    assert answer.error_code == 79
    assert len(answer.member_id) < 300


@pytest.mark.parametrize("seed", range(4))
def test_replay_gives_the_same_state(worlds, tmp_path, seed) -> None:
    """Whatever was committed, deleted, joined and left, a restart has the same groups and offsets."""
    world, chance = worlds[0], random.Random(seed)
    members: dict[str, tuple[str, int]] = {}
    for step in range(150):
        group_id = f"g{chance.randrange(5)}"
        match chance.randrange(6):
            case 0 if group_id not in members:
                members[group_id] = world.stable(group_id)
            case 1 if group_id in members:
                world.groups.leave(group_id, [LeaveGroupRequest.MemberIdentity(member_id=members.pop(group_id)[0])])
            case 2 if group_id not in members:
                world.groups.delete_group(group_id)
            case 3:
                world.topics.delete("t")
                world.topics.create("t", 4, {})
            case _:
                topic_id = world.topics.get("t").topic_id
                member = members.get(group_id, ("", -1))
                assert value(world.commit(group_id, "t", chance.randrange(4), step, member, topic_id=topic_id)) == 0
        world.turn()
    before = {group_id: state for group_id, state in world.state().items() if state != (None, [])}
    assert restarted(worlds, tmp_path).state() == before


PRODUCER = ProducerIdAndEpoch(7, 0)


def test_offsets_of_a_transaction_count_with_its_commit(worlds, tmp_path) -> None:
    """Pending until then, also over a restart; a plain commit that came later stays; an abort leaves nothing."""
    world = worlds[0]
    world.commit("g", "t", 0, 5)
    for partition in range(3):
        assert value(world.commit("g", "t", partition, 10, producer=PRODUCER)) == 0
    world.commit("g", "t", 1, 20)
    for _ in range(2):
        offsets = world.groups.offsets.of_group("g")
        assert [(partition, committed.offset) for _, partition, committed in offsets] == [(0, 5), (1, 20)]
        assert [offsets.is_pending("t", partition) for partition in range(4)] == [True, True, True, False]
        world = restarted(worlds, tmp_path)
    world.end_transaction("g", 7, commit=True)
    for _ in range(2):
        offsets = world.groups.offsets.of_group("g")
        assert [(partition, committed.offset) for _, partition, committed in offsets] == [(0, 10), (1, 20), (2, 10)]
        assert not offsets.is_pending("t", 0)
        world = restarted(worlds, tmp_path)
    world.commit("g", "t", 0, 30, producer=PRODUCER)
    world.end_transaction("g", 7, commit=False)
    assert world.groups.offsets.of_group("g").get("t", 0).offset == 10


def test_a_deleted_group_takes_its_pending_offsets_along(worlds, tmp_path) -> None:
    """The commit of the transaction does not bring them back, whether the broker was restarted in between or not."""
    world = worlds[0]
    world.commit("g", "t", 0, 10, producer=PRODUCER)
    world.groups.delete_group("g")
    world.turn()
    again = restarted(worlds, tmp_path)
    for one in (world, again):
        one.end_transaction("g", 7, commit=True)
        assert one.state() == {}


def test_who_may_commit_offsets_in_a_transaction(worlds) -> None:
    """Members of their generation, and callers who say nothing of members (v0-2); the state of the group does not matter."""
    world = worlds[0]
    joining = world.join("g")
    world.pass_time(0)
    joined = value(joining)
    assert joined.generation_id == 1  # CompletingRebalance: its leader has yet to send the assignment
    member = (joined.member_id, 1)
    for who, code in ((member, 0), (("", -1), 0), ((joined.member_id, 0), 22), (("nobody", 1), 25), (("", 1), 25)):
        assert value(world.commit("g", "t", 0, 1, who, producer=PRODUCER)) == code


@pytest.mark.parametrize("seed", range(3))
def test_replay_gives_the_same_offsets_of_transactions(worlds, tmp_path, seed) -> None:
    """Random commits, plain and in transactions, and ends of these, over restarts."""
    world, chance = worlds[0], random.Random(seed)
    for step in range(120):
        group_id, producer = f"g{chance.randrange(3)}", ProducerIdAndEpoch(chance.choice([7, 8]), 0)
        match chance.randrange(6):
            case 0:
                world.end_transaction(group_id, producer.producer_id, commit=chance.random() < 0.5)
            case 1:
                world.commit(group_id, "t", chance.randrange(4), step)
            case _:
                world.commit(group_id, "t", chance.randrange(4), step, producer=producer)
    again = restarted(worlds, tmp_path)
    for one in (world, again):
        for producer_id in (7, 8):
            for group_id in ("g0", "g1", "g2"):
                one.end_transaction(group_id, producer_id, commit=True)
    offsets = [{(t, p): c.offset for t, p, c in one.groups.offsets.of_group("g0")} for one in (world, again)]
    assert offsets[0]
    assert offsets[0] == offsets[1]


def test_a_heartbeat_before_its_turn_keeps_the_member(worlds, monkeypatch) -> None:
    """Members whose sessions end at once are taken out in slices; who is heard of before its slice stays."""
    monkeypatch.setattr(group_store, "EXPIRIES_PER_TURN", 1)
    world = worlds[0]
    members = {group_id: world.stable(group_id) for group_id in ("a", "b", "c")}
    turns: list[list[str]] = []

    def next_turn() -> None:
        turns.append([group_id for group_id in members if world.groups.group(group_id).is_empty])
        if len(turns) == 2:
            assert world.heartbeat("c", members["c"]) == 0

    for _ in range(4):
        world.scheduler.call_later(10, lambda: world.scheduler.call_soon(next_turn))
    world.pass_time(10_000)
    assert all(len(gone) - len(before) <= 1 for before, gone in itertools.pairwise(turns))
    assert [world.groups.group(group_id).is_empty for group_id in members] == [True, True, False]


def test_a_group_over_capacity_rebalances_after_a_restart(worlds, tmp_path) -> None:
    """group.max.size was lowered: the members are called to join again, and one too many is refused."""
    world = worlds[0]
    first, _ = world.stable("g")
    second = world.join("g")
    again_first = world.join("g", first)
    generation_id, second_id = value(again_first).generation_id, value(second).member_id
    world.sync("g", second_id, generation_id)
    world.sync("g", first, generation_id)
    world.settings["group_max_size"] = 1
    again = restarted(worlds, tmp_path)
    assert again.heartbeat("g", (first, generation_id)) == ErrorCode.REBALANCE_IN_PROGRESS
    kept, refused = again.join("g", first), again.join("g", second_id)
    assert value(refused).error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert value(kept).error_code == 0
