"""The classic consumer group protocol (JoinGroup … LeaveGroup) of one group, as a synchronous state machine.

    Empty ──join──> PreparingRebalance ──all joined, or time is up──> CompletingRebalance ──leader's SyncGroup──> Stable
      ^                  ^        └──────── nobody is left ───────> Empty                                           │
      │                  └───────── join with changes, leave, session over, SyncGroup missing ──────────────────────┘

No clock, no socket, no log: an operation changes the state at once and returns `Effects` (answers to release, the
generation to persist, timers to arm). Nothing can happen between a check and the change that rests on it, which is what
other brokers got wrong (UNKNOWN_MEMBER_ID under concurrent rebalances). A rebalance is the members' business: their
metadata and assignments are kept verbatim, so eager, cooperative-sticky and Connect's protocols look alike here.

Source: Kafka 4.3 GroupMetadataManager and ClassicGroup; KIP-62, 134, 345 (static members), 394 (member ids), 559, 814.
"""

from collections.abc import Callable, Iterable

import structlog

from broker.coordinator.answers import failed_join, failed_sync, joined
from broker.coordinator.classic_member import ClassicMember, Protocols, protocols_of
from broker.coordinator.classic_state import ClassicGroupState
from broker.coordinator.effects import Effects, JoinAnswer, SyncAnswer, TimerKey, TimerKind
from broker.coordinator.group_state import (
    MEMBER_ID_REQUIRED_FROM,
    GroupLimits,
    GroupState,
    JoiningClient,
)
from protocol.errors import ErrorCode
from protocol.messages import (
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    LeaveGroupResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)

logger = structlog.get_logger(__name__)

SKIP_ASSIGNMENT_FROM = 9  # JoinGroup version, KIP-814
# Kafka's group.consumer… new member timeout: a new member cannot heartbeat while its JoinGroup waits.
NEW_MEMBER_JOIN_TIMEOUT_MS = 5 * 60 * 1000
# Ids given out and not used yet; each holds a timer for a session. Kafka has no bound here.
PENDING_MEMBERS_MAX = 10_000

# A rebalance timeout of 0 must not turn the wait for static members into a busy loop.
REJOIN_RETRY_MS_MIN = 1000


class ClassicGroup(ClassicGroupState):
    """One group. `time_ms` is wall time in ms, `new_id` returns an unused random id."""

    def __init__(
        self, group_id: str, limits: GroupLimits, *, time_ms: Callable[[], int], new_id: Callable[[], str]
    ) -> None:
        super().__init__(group_id, time_ms=time_ms)
        self.parked_joins: dict[str, JoinAnswer] = {}
        self.parked_syncs: dict[str, SyncAnswer] = {}
        self._limits = limits
        self._new_id = new_id
        self._initial = False
        """This rebalance started from Empty: it waits for more members to come."""
        self._initial_remaining_ms = 0
        self._joined_since_delay = False

    # ---- operations ----------------------------------------------------------------------------------------------

    def ask_to_rejoin(self, reason: str, effects: Effects) -> None:
        """Starts a rebalance that no member asked for."""
        self._prepare_rebalance(reason, effects)

    def give_up(self, effects: Effects) -> None:
        """The group goes on as a consumer group: who waits is told to join again."""
        for member_id in {*self.parked_joins, *self.parked_syncs}:
            self._drop(member_id, ErrorCode.REBALANCE_IN_PROGRESS, member_id, effects)

    def resume(self) -> Effects:
        """Starts the sessions of restored members: they go on with the same ids and generation, or time out."""
        effects = Effects()
        for member in self.roster.members.values():
            effects.arm(TimerKind.SESSION, member.session_timeout_ms, member.member_id)
        if len(self.roster) > self._limits.members_max:
            # group.max.size is lower than it was: members may still commit before some of them are refused.
            self._prepare_rebalance("it is over capacity", effects)
        return effects

    def join(self, request: JoinGroupRequest, client: JoiningClient, answer: JoinAnswer) -> Effects:
        """JoinGroup. The answer comes at once, or parks until the rebalance is through."""
        effects = Effects()
        if not self._accepts(request.member_id):
            effects.joins.append((answer, failed_join(ErrorCode.GROUP_MAX_SIZE_REACHED)))
            if request.member_id in self.roster.members or request.member_id in self.roster.pending_join:
                self._remove_members([request.member_id], effects)
        elif not self._supports(request):
            error = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
            effects.joins.append((answer, failed_join(error, request.member_id)))
        elif request.member_id:
            self._rejoin(request, client, answer, effects)
        elif request.group_instance_id is not None:
            new_id = f"{request.group_instance_id}-{self._new_id()}"
            if request.group_instance_id in self.roster.static_members:
                self._replace_static(request, client, new_id, answer, effects)
            else:
                self._add(request, client, new_id, answer, effects)
        elif client.api_version >= MEMBER_ID_REQUIRED_FROM:
            new_id = f"{client.client_id}-{self._new_id()}"
            self.roster.pending_join.add(new_id)
            effects.arm(TimerKind.SESSION, request.session_timeout_ms, new_id)
            effects.joins.append((answer, failed_join(ErrorCode.MEMBER_ID_REQUIRED, new_id)))
        else:
            self._add(request, client, f"{client.client_id}-{self._new_id()}", answer, effects)
        return effects

    def sync(self, request: SyncGroupRequest, answer: SyncAnswer) -> Effects:
        """SyncGroup. The leader's brings the assignment; until then the others park."""
        effects = Effects()
        error = self._check_sync(request)
        if error is not ErrorCode.NONE:
            effects.syncs.append((answer, failed_sync(error)))
            return effects
        self.roster.pending_sync.discard(request.member_id)
        if not self.roster.pending_sync:
            effects.cancel(TimerKind.SYNC)
        if self.state is GroupState.STABLE:
            effects.syncs.append((answer, self._assignment(self.roster.members[request.member_id])))
            return effects
        lost = self.parked_syncs.pop(request.member_id, None)
        if lost is not None:
            effects.syncs.append((lost, failed_sync(ErrorCode.REBALANCE_IN_PROGRESS)))
        self.parked_syncs[request.member_id] = answer
        if request.member_id == self.roster.leader_id:
            assignments = {assignment.member_id: assignment.assignment for assignment in request.assignments}
            for member in self.roster.members.values():
                member.assignment = assignments.get(member.member_id, b"")
            self._transition(GroupState.STABLE)
            self._persist(self.snapshot(), effects)
            self._release_syncs(effects, ErrorCode.NONE)
        return effects

    def heartbeat(self, member_id: str, group_instance_id: str | None, generation_id: int) -> tuple[ErrorCode, Effects]:
        """Heartbeat: keeps the session; REBALANCE_IN_PROGRESS is what calls members to join again."""
        effects = Effects()
        error = self.roster.check(member_id, group_instance_id)
        if error is not ErrorCode.NONE:
            return error, effects
        if generation_id != self.generation_id:
            return ErrorCode.ILLEGAL_GENERATION, effects
        self._touch(member_id, effects)
        if self.state is GroupState.PREPARING_REBALANCE:
            return ErrorCode.REBALANCE_IN_PROGRESS, effects
        return ErrorCode.NONE, effects

    def offsets_committed(self, member_id: str) -> Effects:
        """An accepted OffsetCommit keeps the member's session, as a heartbeat does."""
        effects = Effects()
        if member_id in self.roster.members:
            self._touch(member_id, effects)
        return effects

    def leave(
        self, identities: Iterable[LeaveGroupRequest.MemberIdentity]
    ) -> tuple[list[LeaveGroupResponse.MemberResponse], Effects]:
        """LeaveGroup of any number of members, by member id, or by instance id alone as an administrator does."""
        effects = Effects()
        responses: list[LeaveGroupResponse.MemberResponse] = []
        leaving: list[str] = []
        for identity in identities:
            member_id, error = identity.member_id, ErrorCode.NONE
            if not member_id and identity.group_instance_id is not None:
                member_id = self.roster.static_members.get(identity.group_instance_id, "")
            if member_id not in self.roster.pending_join:
                error = self.roster.check(member_id, identity.group_instance_id)
            if member_id in leaving:
                error = ErrorCode.UNKNOWN_MEMBER_ID
            if error is ErrorCode.NONE:
                leaving.append(member_id)
            responses.append(
                LeaveGroupResponse.MemberResponse(
                    member_id=identity.member_id, group_instance_id=identity.group_instance_id, error_code=error
                )
            )
        if leaving:
            self._remove_members(leaving, effects)
        return responses, effects

    def timer_expired(self, key: TimerKey) -> Effects:
        """What follows when a timer runs out; each was armed by an earlier operation and not cancelled since."""
        effects = Effects()
        match key.kind:
            case TimerKind.SESSION:
                self._session_expired(key.member_id, effects)
            case TimerKind.JOIN:
                self._join_time_over(effects)
            case TimerKind.SYNC:
                self._sync_time_over(effects)
        return effects

    # ---- joining -------------------------------------------------------------------------------------------------

    def _accepts(self, member_id: str) -> bool:
        """group.max.size: counts those who have joined again while rebalancing, so that a shrunk limit takes effect."""
        limit = self._limits.members_max
        if not member_id and len(self.roster.pending_join) >= PENDING_MEMBERS_MAX:
            return False
        match self.state:
            case GroupState.EMPTY:
                return True
            case GroupState.PREPARING_REBALANCE:
                return member_id in self.parked_joins or len(self.parked_joins) < limit
            case _:
                return member_id in self.roster.members or len(self.roster) < limit

    def _supports(self, request: JoinGroupRequest) -> bool:
        """Whether the joiner shares the group's protocol type and one protocol with everybody in it."""
        if self.state is GroupState.EMPTY:
            return bool(request.protocol_type and request.protocols)
        return self.protocol_type == request.protocol_type and any(
            self.roster.supported[protocol.name] == len(self.roster) for protocol in request.protocols
        )

    def _rejoin(self, request: JoinGroupRequest, client: JoiningClient, answer: JoinAnswer, effects: Effects) -> None:
        member_id = request.member_id
        if member_id in self.roster.pending_join and request.group_instance_id is None:
            self._add(request, client, member_id, answer, effects)
            return
        error = self.roster.check(member_id, request.group_instance_id)
        if error is not ErrorCode.NONE:
            effects.joins.append((answer, failed_join(error, member_id)))
            return
        member = self.roster.members[member_id]
        unchanged = member.protocols == protocols_of(request.protocols)
        leads = member_id == self.roster.leader_id
        if self.state is GroupState.COMPLETING_REBALANCE and unchanged:
            # The answer to its JoinGroup was lost: the same generation once more.
            effects.joins.append((answer, self._generation(member)))
        elif self.state is GroupState.STABLE and unchanged and not leads:
            effects.joins.append((answer, self._generation(member)))
        else:
            # A leader that joins again wants a rebalance, for example because its topics have more partitions now.
            self._update(member, request, answer, effects)
            self._rebalance_or_complete(f"member {member_id} joins again", effects)

    def _add(
        self, request: JoinGroupRequest, client: JoiningClient, member_id: str, answer: JoinAnswer, effects: Effects
    ) -> None:
        if not self.roster.members:
            self.protocol_type = request.protocol_type
        self.roster.add(
            ClassicMember(
                member_id=member_id,
                group_instance_id=request.group_instance_id,
                client_id=client.client_id,
                client_host=client.client_host,
                rebalance_timeout_ms=_rebalance_timeout_ms(request),
                session_timeout_ms=request.session_timeout_ms,
                protocols=protocols_of(request.protocols),
                is_new=True,
            )
        )
        self._joined_since_delay = True
        self.parked_joins[member_id] = answer
        effects.arm(TimerKind.SESSION, NEW_MEMBER_JOIN_TIMEOUT_MS, member_id)
        self._rebalance_or_complete(f"member {member_id} joins", effects)

    def _update(self, member: ClassicMember, request: JoinGroupRequest, answer: JoinAnswer, effects: Effects) -> None:
        self._adopt(member, request, protocols_of(request.protocols))
        lost = self.parked_joins.pop(member.member_id, None)
        if lost is not None:
            effects.joins.append((lost, failed_join(ErrorCode.REBALANCE_IN_PROGRESS, member.member_id)))
        self.parked_joins[member.member_id] = answer

    def _adopt(self, member: ClassicMember, request: JoinGroupRequest, protocols: Protocols) -> None:
        self.roster.set_protocols(member, protocols)
        member.rebalance_timeout_ms = _rebalance_timeout_ms(request)
        member.session_timeout_ms = request.session_timeout_ms

    def _replace_static(
        self, request: JoinGroupRequest, client: JoiningClient, new_id: str, answer: JoinAnswer, effects: Effects
    ) -> None:
        """KIP-345: a new process takes over the instance; the old one is fenced, the assignment stays where it is."""
        assert request.group_instance_id is not None
        old_id = self.roster.static_members[request.group_instance_id]
        old_leader_id = self.roster.leader_id
        self._drop(old_id, ErrorCode.FENCED_INSTANCE_ID, old_id, effects)
        member = self.roster.rename_static(old_id, new_id)
        member.client_id, member.client_host, member.is_new = client.client_id, client.client_host, False
        self._adopt(member, request, protocols_of(request.protocols))
        self._touch(new_id, effects)
        if self.state is GroupState.STABLE and self.roster.select_protocol() == self.protocol_name:
            leads = new_id == self.roster.leader_id
            response = self._generation(member)
            if client.api_version >= SKIP_ASSIGNMENT_FROM:
                response.skip_assignment = leads
            elif leads:
                # A leader of before KIP-814 that saw its own id here would compute an assignment nobody asked for.
                response.leader, response.members = old_leader_id or "", []
            effects.joins.append((answer, response))
            self._persist(self.snapshot(), effects)
            return
        self.parked_joins[new_id] = answer
        self._rebalance_or_complete(f"static member {new_id} replaces {old_id}", effects)

    # ---- rebalancing ---------------------------------------------------------------------------------------------

    def _rebalance_or_complete(self, reason: str, effects: Effects) -> None:
        if self.state is not GroupState.PREPARING_REBALANCE:
            self._prepare_rebalance(reason, effects)
        elif not self._initial and self._all_joined():
            self._complete_join(effects)

    def _prepare_rebalance(self, reason: str, effects: Effects) -> None:
        logger.info("group rebalances", group=self.group_id, generation=self.generation_id, reason=reason)
        if self.state is GroupState.COMPLETING_REBALANCE:
            for member in self.roster.members.values():
                member.assignment = b""
            self._release_syncs(effects, ErrorCode.REBALANCE_IN_PROGRESS)
        self.roster.pending_sync.clear()
        effects.cancel(TimerKind.SYNC)
        self._initial = self.state is GroupState.EMPTY
        self._transition(GroupState.PREPARING_REBALANCE)
        if self._initial:
            delay_ms = self._limits.initial_rebalance_delay_ms
            self._joined_since_delay = False
            self._initial_remaining_ms = max(self.roster.rebalance_timeout_ms() - delay_ms, 0)
            effects.arm(TimerKind.JOIN, delay_ms)
        elif self._all_joined():
            self._complete_join(effects)
        else:
            effects.arm(TimerKind.JOIN, self.roster.rebalance_timeout_ms())

    def _all_joined(self) -> bool:
        return len(self.parked_joins) == len(self.roster) and not self.roster.pending_join

    def _join_time_over(self, effects: Effects) -> None:
        if self.state is not GroupState.PREPARING_REBALANCE:
            return
        if self._initial and self._joined_since_delay and self._initial_remaining_ms:
            # More members came: wait once more, up to the rebalance timeout altogether.
            self._joined_since_delay = False
            delay_ms = min(self._limits.initial_rebalance_delay_ms, self._initial_remaining_ms)
            self._initial_remaining_ms -= delay_ms
            effects.arm(TimerKind.JOIN, delay_ms)
            return
        self._complete_join(effects)

    def _complete_join(self, effects: Effects) -> None:
        """Ends the join phase: dynamic members that did not come are out, the next generation begins."""
        effects.cancel(TimerKind.JOIN)
        self._initial = False
        for member in list(self.roster.members.values()):
            if member.member_id not in self.parked_joins and member.group_instance_id is None:
                self.roster.remove(member.member_id)
                effects.cancel(TimerKind.SESSION, member.member_id)
        if self.roster.members and not self.parked_joins:
            # Only static members, none of them here yet: their sessions or their return will end this.
            effects.arm(TimerKind.JOIN, max(self.roster.rebalance_timeout_ms(), REJOIN_RETRY_MS_MIN))
            return
        self.generation_id += 1
        if not self.roster.members:
            self.protocol_name = None
            self._read_subscriptions()
            self._transition(GroupState.EMPTY)
            self._persist(self.snapshot(), effects)
            return
        if self.roster.leader_id not in self.parked_joins:
            self.roster.leader_id = next(iter(self.parked_joins))
        self.protocol_name = self.roster.select_protocol()
        self._read_subscriptions()
        self._transition(GroupState.COMPLETING_REBALANCE)
        for member in self.roster.members.values():
            answer = self.parked_joins.pop(member.member_id, None)
            if answer is not None:
                effects.joins.append((answer, self._generation(member)))
            member.is_new = False
            self._touch(member.member_id, effects)
        self.roster.pending_sync = set(self.roster.members)
        effects.arm(TimerKind.SYNC, self.roster.rebalance_timeout_ms())
        logger.info("group joined", group=self.group_id, generation=self.generation_id, members=len(self.roster))

    def _sync_time_over(self, effects: Effects) -> None:
        if self.state in (GroupState.COMPLETING_REBALANCE, GroupState.STABLE) and self.roster.pending_sync:
            self._remove_members(sorted(self.roster.pending_sync), effects)

    def _session_expired(self, member_id: str, effects: Effects) -> None:
        member = self.roster.members.get(member_id)
        waits = member_id in self.parked_joins or member_id in self.parked_syncs
        if member is not None and waits and not member.is_new:
            return  # It waits for us; its session starts again with our answer.
        if member is not None or member_id in self.roster.pending_join:
            logger.info("group member silent", group=self.group_id, member=member_id)
            self._remove_members([member_id], effects)

    def _remove_members(self, member_ids: Iterable[str], effects: Effects) -> None:
        """Takes members or pending ids out; those who stay rebalance, or are complete without them."""
        member_left = False
        for member_id in member_ids:
            member_left |= member_id in self.roster.members
            self._drop(member_id, ErrorCode.UNKNOWN_MEMBER_ID, "", effects)
            self.roster.remove(member_id)
        if self.state is GroupState.PREPARING_REBALANCE:
            self._rebalance_or_complete("members left", effects)
        elif member_left:
            self._prepare_rebalance("members left", effects)

    def _drop(self, member_id: str, error: ErrorCode, answered_id: str, effects: Effects) -> None:
        """Ends what a member id waits for."""
        effects.cancel(TimerKind.SESSION, member_id)
        join, sync = self.parked_joins.pop(member_id, None), self.parked_syncs.pop(member_id, None)
        if join is not None:
            effects.joins.append((join, failed_join(error, answered_id)))
        if sync is not None:
            effects.syncs.append((sync, failed_sync(error)))

    # ---- small parts ---------------------------------------------------------------------------------------------

    def _touch(self, member_id: str, effects: Effects) -> None:
        effects.arm(TimerKind.SESSION, self.roster.members[member_id].session_timeout_ms, member_id)

    def _check_sync(self, request: SyncGroupRequest) -> ErrorCode:
        error = self.roster.check(request.member_id, request.group_instance_id)
        if error is not ErrorCode.NONE:
            return error
        if request.generation_id != self.generation_id:
            return ErrorCode.ILLEGAL_GENERATION
        for asked, actual in (
            (request.protocol_type, self.protocol_type),
            (request.protocol_name, self.protocol_name),
        ):
            if asked is not None and actual is not None and asked != actual:
                return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if self.state is GroupState.PREPARING_REBALANCE:
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    def _generation(self, member: ClassicMember) -> JoinGroupResponse:
        return joined(
            self.roster,
            member,
            generation_id=self.generation_id,
            protocol_type=self.protocol_type,
            protocol_name=self.protocol_name,
        )

    def _assignment(self, member: ClassicMember) -> SyncGroupResponse:
        return SyncGroupResponse(
            error_code=ErrorCode.NONE,
            protocol_type=self.protocol_type,
            protocol_name=self.protocol_name,
            assignment=member.assignment,
        )

    def _release_syncs(self, effects: Effects, error: ErrorCode) -> None:
        parked, self.parked_syncs = self.parked_syncs, {}
        for member_id, answer in parked.items():
            member = self.roster.members[member_id]
            effects.syncs.append((answer, failed_sync(error) if error else self._assignment(member)))
            self._touch(member_id, effects)


def _rebalance_timeout_ms(request: JoinGroupRequest) -> int:
    """JoinGroup v0 has none: the session timeout stands for it."""
    return request.session_timeout_ms if request.rebalance_timeout_ms < 0 else request.rebalance_timeout_ms
