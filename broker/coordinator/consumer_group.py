"""The consumer group protocol (KIP-848) of one group, as a synchronous state machine: the broker assigns, members follow.

Three epochs drive it. The *group epoch* grows with every reason to assign anew (subscriptions, members, partitions). The
*assignment epoch* is the group epoch that the target assignment was computed for. The *member epoch* is the one whose target
a member has come to; `reconciliation` says how it gets there.

A change is a record: it acts at once and is undone should the log refuse it. No clock, no socket, no log; see `effects`.
Members that speak the classic protocol are `classic_in_consumer`'s business. Source: KIP-848, KIP-1263; Kafka 4.3.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import structlog

from broker.coordinator import classic_in_consumer
from broker.coordinator.assignment import NOTHING, Assignment, assignment_of
from broker.coordinator.assignors import ASSIGNORS, MemberSpec
from broker.coordinator.classic_group import ClassicGroup
from broker.coordinator.consumer_member import (
    AWAY_EPOCH,
    JOINS_EPOCH,
    LEAVES_EPOCH,
    CurrentAssignment,
    MemberAccount,
    MemberState,
)
from broker.coordinator.consumer_records import (
    ConsumerRecord,
    CurrentRecord,
    GroupEpoch,
    GroupEpochRecord,
    MemberRecord,
    RegexRecord,
    ResolvedRegex,
    TargetEpoch,
    TargetEpochRecord,
    TargetRecord,
)
from broker.coordinator.consumer_state import ConsumerState
from broker.coordinator.effects import Effects, JoinAnswer, SyncAnswer, TimerKey, TimerKind
from broker.coordinator.group_state import ConsumerSettings, JoiningClient
from broker.coordinator.migration import downgraded
from broker.coordinator.reconciliation import Target, reconcile
from broker.coordinator.topic_catalog import TopicCatalog, metadata_hash
from broker.coordinator.topic_pattern import matching_topics
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    JoinGroupRequest,
    LeaveGroupRequest,
    LeaveGroupResponse,
    SyncGroupRequest,
)

logger = structlog.get_logger(__name__)

# New topics are matched against the patterns this often at most; Kafka's batching interval.
REGEX_REFRESH_MS_MIN = 10_000

_Response = ConsumerGroupHeartbeatResponse


class ConsumerGroup(ConsumerState):
    """One group. `time_ms` is wall time in ms, `new_id` returns an unused random id, `settings` what is configured now."""

    def __init__(
        self,
        group_id: str,
        topics: TopicCatalog,
        settings: Callable[[], ConsumerSettings],
        new_classic_group: Callable[[], ClassicGroup],
        *,
        time_ms: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        super().__init__(group_id, topics, settings)
        self.new_id = new_id
        self.joining_again: set[str] = set()
        """Classic members that have been called to join again and have their time for it running."""
        self._new_classic_group = new_classic_group
        self._time_ms = time_ms
        self._seen_revision = -1
        """The topics' revision when the group epoch was last compared with them; -1: not since the start."""

    # ---- records -------------------------------------------------------------------------------------------------

    def put(self, effects: Effects, record: ConsumerRecord) -> None:
        """Makes it so and has it written."""
        effects.undo.append(self.roster.take_up(record))
        effects.records.append(record)

    def undo(self, effects: Effects) -> None:
        """Makes the group as it was before, its timers running as they were."""
        for record in reversed(effects.undo):
            self.take_up(record)
        effects.timers.clear()
        self._seen_revision = -1

    @contextmanager
    def changes(self) -> Iterator[Effects]:
        """An operation: all of it, or with a KafkaError nothing."""
        effects = Effects()
        try:
            yield effects
        except KafkaError:
            self.undo(effects)
            raise

    # ---- ConsumerGroupHeartbeat ----------------------------------------------------------------------------------

    def consumer_heartbeat(
        self, request: ConsumerGroupHeartbeatRequest, client: JoiningClient
    ) -> tuple[ConsumerGroupHeartbeatResponse, Effects]:
        """Joins, keeps a member's session, tells it what it has now, or lets it go. Raises KafkaError, nothing changed then."""
        with self.changes() as effects:
            if request.member_epoch in (LEAVES_EPOCH, AWAY_EPOCH):
                return self._let_go(request, effects), effects
            return self._keep(request, client, effects), effects

    def _keep(
        self, request: ConsumerGroupHeartbeatRequest, client: JoiningClient, effects: Effects
    ) -> ConsumerGroupHeartbeatResponse:
        settings = self.settings()
        self.check_size(request.member_id)
        member_id = request.member_id or self.new_id()
        owned = None if request.topic_partitions is None else assignment_of(request.topic_partitions)
        self._admit(member_id, request, owned, effects)
        account = _updated(self.roster.accounts.get(member_id), request, client)
        before = self.roster.current(member_id)
        changed = self.subscribe(member_id, account, effects, may_describe=client.may_describe)
        self.assign(effects)
        current = self.advance(member_id, owned, effects, subscription_changed=changed)
        effects.arm(TimerKind.SESSION, settings.session_timeout_ms, member_id)
        response = _Response(
            member_id=member_id, member_epoch=current.epoch, heartbeat_interval_ms=settings.heartbeat_interval_ms
        )
        if request.member_epoch == JOINS_EPOCH or _is_full(request) or before.assigned != current.assigned:
            response.assignment = _Response.Assignment(
                topic_partitions=[
                    _Response.TopicPartitions(topic_id=topic_id, partitions=list(partitions))
                    for topic_id, partitions in current.assigned.items()
                ]
            )
        return response

    def _admit(
        self, member_id: str, request: ConsumerGroupHeartbeatRequest, owned: Assignment | None, effects: Effects
    ) -> None:
        """Checks who this is; a joining static member takes the place of its former process. Raises KafkaError."""
        joins, instance_id = request.member_epoch == JOINS_EPOCH, request.instance_id
        if instance_id is None:
            if not joins:
                self.require(member_id)
        elif joins:
            self.take_place(member_id, instance_id, effects, classic=False)
            return
        else:
            self.require_static(member_id, instance_id)
        if not joins:
            self.check_epoch(member_id, request.member_epoch, owned)

    def take_place(self, member_id: str, instance_id: str, effects: Effects, *, classic: bool) -> None:
        """Gives a new process of a static member all that the former one had. Raises KafkaError UNRELEASED_INSTANCE_ID."""
        roster = self.roster
        former_id = roster.static_members.get(instance_id)
        if former_id is None:
            return
        account, current = roster.accounts[former_id], roster.current(former_id)
        if not classic and account.classic is None and current.epoch != AWAY_EPOCH:
            reason = (
                f"Static member {member_id} with instance id {instance_id} cannot join the group because the instance id is "
                f"owned by {former_id} member."
            )
            raise KafkaError(ErrorCode.UNRELEASED_INSTANCE_ID, reason)
        target = roster.targets.get(former_id, NOTHING)
        self._remove(former_id, effects)
        self.put(effects, MemberRecord(self.group_id, member_id, account))
        self.put(effects, TargetRecord(self.group_id, member_id, target))
        joined = replace(current, epoch=JOINS_EPOCH, previous_epoch=JOINS_EPOCH)
        self.put(effects, CurrentRecord(self.group_id, member_id, joined))

    # ---- the three steps of every heartbeat: subscriptions, target assignment, the member's own assignment ---------------

    def subscribe(
        self, member_id: str, account: MemberAccount, effects: Effects, *, may_describe: Callable[[str], bool]
    ) -> bool:
        """Takes up what a member says of itself; returns whether what it reads has changed. Raises KafkaError."""
        roster = self.roster
        former = roster.accounts.get(member_id)
        if account != former:
            self.put(effects, MemberRecord(self.group_id, member_id, account))
        former = former or MemberAccount()
        names_changed = account.topic_names != former.topic_names
        regex_changed = account.topic_regex != former.topic_regex
        if regex_changed:
            self._forget_unread_regex(former.topic_regex, effects)
        changed = names_changed or regex_changed
        matches_changed = bool(roster.regex_readers) and self._resolve(effects, may_describe)
        if changed or matches_changed or self._seen_revision != self.topics.revision:
            self._bump_epoch(effects, always=changed or matches_changed)
        return changed

    def _resolve(self, effects: Effects, may_describe: Callable[[str], bool]) -> bool:
        """Finds the topics of new patterns, and now and then of all if there are other topics; whether any differ."""
        roster, now_ms, revision = self.roster, self._time_ms(), self.topics.revision
        wanted = [
            regex
            for regex in roster.regex_readers
            if (known := roster.regexes.get(regex)) is None
            or (known.version != revision and now_ms >= known.resolved_ms + REGEX_REFRESH_MS_MIN)
        ]
        changed = False
        for regex in wanted:
            matching = frozenset(filter(may_describe, matching_topics(regex, self.topics.names())))
            changed |= regex not in roster.regexes or roster.regexes[regex].topics != matching
            self.put(effects, RegexRecord(self.group_id, regex, ResolvedRegex(matching, revision, now_ms)))
        return changed

    def _forget_unread_regex(self, regex: str, effects: Effects) -> None:
        if regex in self.roster.regexes and not self.roster.regex_readers[regex]:
            self.put(effects, RegexRecord(self.group_id, regex, None))

    def _bump_epoch(self, effects: Effects, *, always: bool) -> None:
        """The next group epoch, if there is a reason or the topics that the group reads have changed."""
        roster = self.roster
        now = metadata_hash(roster.subscribed_topics(), self.topics)
        before = roster.group_epoch.metadata_hash if roster.group_epoch is not None else 0
        if always or now != before:
            self.put(effects, GroupEpochRecord(self.group_id, GroupEpoch(roster.epoch + 1, now)))
        self._seen_revision = self.topics.revision

    def assign(self, effects: Effects) -> None:
        """Computes the target assignment if it is behind the group epoch, and the last one is long enough ago (KIP-1263)."""
        roster, now_ms = self.roster, self._time_ms()
        if roster.assignment_epoch >= roster.epoch:
            return
        computed_ms = roster.target_epoch.computed_ms if roster.target_epoch is not None else 0
        if computed_ms and now_ms < computed_ms + self.settings().assignment_interval_ms:
            return
        counts: dict[bytes, int] = {}
        ids: dict[frozenset[str], frozenset[bytes]] = {}
        members = {}
        for member_id, account in roster.accounts.items():
            names = roster.topics_of(account)
            if names not in ids:
                found = [facts for name in names if (facts := self.topics.named(name)) is not None]
                counts.update((facts.topic_id, facts.partition_count) for facts in found)
                ids[names] = frozenset(facts.topic_id for facts in found)
            target = roster.targets.get(member_id, NOTHING)
            members[member_id] = MemberSpec(ids[names], target, account.group_instance_id)
        for member_id, assigned in ASSIGNORS[self.assignor_name](members, counts).items():
            if roster.targets.get(member_id, NOTHING) != assigned:
                self.put(effects, TargetRecord(self.group_id, member_id, assigned))
        self.put(effects, TargetEpochRecord(self.group_id, TargetEpoch(roster.epoch, now_ms)))
        logger.info("group assigned", group=self.group_id, epoch=roster.epoch, members=len(members))

    def advance(
        self, member_id: str, owned: Assignment | None, effects: Effects, *, subscription_changed: bool
    ) -> CurrentAssignment:
        """Brings the member as near to its target as can be; returns what it has then."""
        roster = self.roster
        current = roster.current(member_id)
        if not subscription_changed and current.is_reconciled_to(roster.assignment_epoch):
            return current
        account = roster.accounts[member_id]
        names = roster.topics_of(account)

        def is_subscribed(topic_id: bytes) -> bool:
            facts = self.topics.identified(topic_id)
            return facts is not None and facts.name in names

        target = Target(
            epoch=roster.assignment_epoch,
            assignment=roster.targets.get(member_id, NOTHING),
            is_subscribed=is_subscribed,
            is_free=lambda topic_id, partition: (topic_id, partition) not in roster.owners,
        )
        following = reconcile(current, target, owned, subscription_changed=subscription_changed)
        if following == current and member_id in roster.currents:
            return current
        self.put(effects, CurrentRecord(self.group_id, member_id, following))
        if account.classic is None:
            if following.state is MemberState.UNREVOKED_PARTITIONS:
                effects.arm(TimerKind.REVOCATION, account.rebalance_timeout_ms, member_id)
            else:
                effects.cancel(TimerKind.REVOCATION, member_id)
        return following

    # ---- leaving -------------------------------------------------------------------------------------------------

    def _let_go(self, request: ConsumerGroupHeartbeatRequest, effects: Effects) -> ConsumerGroupHeartbeatResponse:
        member_id = request.member_id
        if request.instance_id is None:
            self.require(member_id)
        else:
            self.require_static(member_id, request.instance_id)
        if request.instance_id is not None and request.member_epoch == AWAY_EPOCH:
            current = self.roster.current(member_id)
            # Whatever was to be given up is: the process is gone. Commits of its next one are right at any epoch.
            kept = {topic_id: dict.fromkeys(partitions, 0) for topic_id, partitions in current.assigned.items()}
            away = replace(current, epoch=AWAY_EPOCH, assigned=kept, revoking={})
            self.put(effects, CurrentRecord(self.group_id, member_id, away))
        else:
            self.fence([member_id], effects)
        return _Response(member_id=member_id, member_epoch=request.member_epoch)

    def fence(self, member_ids: Sequence[str], effects: Effects) -> None:
        """Takes members out; the others' next heartbeats bring the new assignment, or a classic group if all are classic."""
        if not member_ids:
            return
        if self.may_downgrade(without=member_ids):
            downgraded(self, self._new_classic_group(), effects, without=set(member_ids), rebalance=True)
            return
        regexes = {self.roster.accounts[member_id].topic_regex for member_id in member_ids}
        for member_id in member_ids:
            self._remove(member_id, effects)
        for regex in regexes:
            self._forget_unread_regex(regex, effects)
        self._bump_epoch(effects, always=True)

    def replace_by_classic(self, effects: Effects, *, rebalance: bool) -> None:
        """Goes on as a classic group with all members."""
        downgraded(self, self._new_classic_group(), effects, without=set(), rebalance=rebalance)

    def _remove(self, member_id: str, effects: Effects) -> None:
        self.put(effects, CurrentRecord(self.group_id, member_id, None))
        self.put(effects, TargetRecord(self.group_id, member_id, None))
        self.put(effects, MemberRecord(self.group_id, member_id, None))
        self.joining_again.discard(member_id)
        for kind in TimerKind:
            effects.cancel(kind, member_id)

    # ---- timers --------------------------------------------------------------------------------------------------

    def resume(self) -> Effects:
        """Starts the sessions of the members that a replay has brought back: they go on with the same epochs, or time out."""
        effects = Effects()
        for member_id, account in self.roster.accounts.items():
            effects.arm(TimerKind.SESSION, self.settings().session_timeout_ms, member_id)
            if self.roster.current(member_id).state is MemberState.UNREVOKED_PARTITIONS and account.classic is None:
                effects.arm(TimerKind.REVOCATION, account.rebalance_timeout_ms, member_id)
        return effects

    def timer_expired(self, key: TimerKey) -> Effects:
        """A member has been silent, has not given up its partitions, or has not joined or synced in time: it is out."""
        effects = Effects()
        if key.member_id in self.roster.accounts:
            logger.info("group member out", group=self.group_id, member=key.member_id, timeout=key.kind.value)
            self.fence([key.member_id], effects)
        return effects

    # ---- classic members -----------------------------------------------------------------------------------------

    def join(self, request: JoinGroupRequest, client: JoiningClient, answer: JoinAnswer) -> Effects:
        return classic_in_consumer.join(self, request, client, answer)

    def sync(self, request: SyncGroupRequest, answer: SyncAnswer) -> Effects:
        return classic_in_consumer.sync(self, request, answer)

    def heartbeat(self, member_id: str, group_instance_id: str | None, generation_id: int) -> tuple[ErrorCode, Effects]:
        return classic_in_consumer.heartbeat(self, member_id, group_instance_id, generation_id)

    def leave(
        self, identities: Iterable[LeaveGroupRequest.MemberIdentity]
    ) -> tuple[list[LeaveGroupResponse.MemberResponse], Effects]:
        return classic_in_consumer.leave(self, identities)


def _is_full(request: ConsumerGroupHeartbeatRequest) -> bool:
    """Whether the member tells everything: it does so when it does not know what the broker knows."""
    subscribes = request.subscribed_topic_names is not None or request.subscribed_topic_regex is not None
    return request.rebalance_timeout_ms != -1 and subscribes and request.topic_partitions is not None


def _updated(
    account: MemberAccount | None, request: ConsumerGroupHeartbeatRequest, client: JoiningClient
) -> MemberAccount:
    """The account with what the request gives; what it leaves out stays as it was."""
    former = account or MemberAccount()
    names, regex = request.subscribed_topic_names, request.subscribed_topic_regex
    return MemberAccount(
        group_instance_id=former.group_instance_id if request.instance_id is None else request.instance_id,
        rack_id=former.rack_id if request.rack_id is None else request.rack_id,
        client_id=client.client_id,
        client_host=client.client_host,
        topic_names=former.topic_names if names is None else frozenset(names),
        topic_regex=former.topic_regex if regex is None else regex,
        rebalance_timeout_ms=(
            former.rebalance_timeout_ms if request.rebalance_timeout_ms == -1 else request.rebalance_timeout_ms
        ),
        server_assignor=former.server_assignor if request.server_assignor is None else request.server_assignor,
    )
