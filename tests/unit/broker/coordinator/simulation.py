"""One group on a virtual clock: collects answers, persists what the group persists, fires timers when time passes."""

import itertools

from broker.coordinator.classic_group import ClassicGroup
from broker.coordinator.effects import Effects, TimerKey
from broker.coordinator.group_metadata import GroupMetadata
from broker.coordinator.group_state import Committer, GroupLimits, JoiningClient
from broker.coordinator.records import GroupRecord
from broker.deferred import Deferred
from protocol.messages import (
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    SyncGroupRequest,
    SyncGroupResponse,
)

SESSION_MS, REBALANCE_MS = 10_000, 30_000


class SimulatedGroup:
    """The shell around a ClassicGroup as a test wants it; every answer is kept, answering twice raises."""

    def __init__(self, members_max: int = 2**31 - 1, initial_delay_ms: int = 0) -> None:
        self.now_ms = 1_000_000
        self.ids = itertools.count(1)
        self.limits = GroupLimits(members_max, initial_delay_ms)
        self.group = self._new_group()
        self.timers: dict[TimerKey, int] = {}
        self.persisted: list[GroupMetadata] = []
        self.waiting: list[Deferred] = []

    def _new_group(self) -> ClassicGroup:
        return ClassicGroup("g", self.limits, time_ms=lambda: self.now_ms, new_id=lambda: f"id{next(self.ids)}")

    def restart(self) -> None:
        """The broker was killed: what was persisted last comes back, parked requests are gone with their connections."""
        self.group, self.timers, self.waiting = self._new_group(), {}, []
        if self.persisted:
            self.group.take_up(GroupRecord("g", self.persisted[-1]))
        self.apply(self.group.resume())

    def apply(self, effects: Effects) -> None:
        for record in effects.records:
            self.persisted.append(record.value)
        for answer, response in [*effects.joins, *effects.syncs]:
            answer.resolve(response)
        for key, delay_ms in effects.timers.items():
            self.timers.pop(key, None)
            if delay_ms is not None:
                self.timers[key] = self.now_ms + delay_ms

    def pass_time(self, duration_ms: int) -> None:
        """Fires what is due, in order, each at its own time."""
        end_ms = self.now_ms + duration_ms
        while self.timers:
            key = min(self.timers, key=lambda k: self.timers[k])
            if self.timers[key] > end_ms:
                break
            self.now_ms = max(self.now_ms, self.timers.pop(key))
            self.apply(self.group.timer_expired(key))
        self.now_ms = end_ms

    def join(
        self,
        member_id: str = "",
        *,
        instance=None,
        version=9,
        protocols=(("range", b"m"),),
        session_ms=SESSION_MS,
        rebalance_ms=REBALANCE_MS,
        protocol_type="consumer",
    ) -> Deferred[JoinGroupResponse]:
        answer: Deferred[JoinGroupResponse] = Deferred()
        request = JoinGroupRequest(
            group_id="g",
            session_timeout_ms=session_ms,
            rebalance_timeout_ms=rebalance_ms,
            member_id=member_id,
            group_instance_id=instance,
            protocol_type=protocol_type,
            protocols=[JoinGroupRequest.JoinGroupRequestProtocol(name=name, metadata=data) for name, data in protocols],
        )
        self.waiting.append(answer)
        self.apply(self.group.join(request, JoiningClient("client", "/127.0.0.1", version), answer))
        return answer

    def sync(
        self, member_id: str, generation_id: int, assignments=(), *, instance=None, protocol_name=None
    ) -> Deferred[SyncGroupResponse]:
        answer: Deferred[SyncGroupResponse] = Deferred()
        request = SyncGroupRequest(
            group_id="g",
            generation_id=generation_id,
            member_id=member_id,
            group_instance_id=instance,
            protocol_type=None,
            protocol_name=protocol_name,
            assignments=[
                SyncGroupRequest.SyncGroupRequestAssignment(member_id=m, assignment=a) for m, a in assignments
            ],
        )
        self.waiting.append(answer)
        self.apply(self.group.sync(request, answer))
        return answer

    def heartbeat(self, member_id: str, generation_id: int, instance=None) -> int:
        error, effects = self.group.heartbeat(member_id, instance, generation_id)
        self.apply(effects)
        return int(error)

    def commit_error(self, member_id: str, generation_id: int) -> int:
        """What the group says to a commit."""
        return int(self.group.check_offset_commit(Committer("g", member_id, None, generation_id, 9), []))

    def leave(self, *identities: tuple[str, str | None]) -> list[int]:
        members = [LeaveGroupRequest.MemberIdentity(member_id=m, group_instance_id=i) for m, i in identities]
        responses, effects = self.group.leave(members)
        self.apply(effects)
        return [response.error_code for response in responses]

    def enter(self, **options) -> tuple[str, Deferred[JoinGroupResponse]]:
        """A dynamic member: takes its id, joins; returns the id and the answer to come."""
        member_id = value(self.join(**options)).member_id
        return member_id, self.join(member_id, **options)

    def stable(self, count: int, **options) -> tuple[list[str], int]:
        """A Stable group of this many dynamic members; returns their ids, the leader first, and the generation."""
        first, answer = self.enter(**options)
        self.pass_time(0)
        ids = [first]
        for _ in range(count - 1):
            member_id = value(self.join(**options)).member_id
            ids.append(member_id)
            joins = [self.join(member_id, **options), *(self.join(known, **options) for known in ids[:-1])]
            answer = joins[-1]
            assert all(join.resolved for join in joins)
        generation_id = value(answer).generation_id
        leader = value(answer).leader
        ids.sort(key=lambda member_id: member_id != leader)
        syncs = [self.sync(member_id, generation_id) for member_id in ids[1:]]
        syncs.append(self.sync(leader, generation_id, [(m, m.encode()) for m in ids]))
        assert [value(sync).error_code for sync in syncs] == [0] * count
        return ids, generation_id


def value(deferred: Deferred):
    """What a resolved Deferred holds; fails when it still waits."""
    assert deferred.resolved, "no answer yet"
    got = []
    deferred.then(got.append)
    return got[0]
