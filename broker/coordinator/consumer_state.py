"""What a consumer group (KIP-848) is, and what can be asked of it. What it does is in `consumer_group`."""

from collections.abc import Callable, Iterator, Sequence

from broker.coordinator.assignment import Assignment, is_subset
from broker.coordinator.classic_state import CONSUMER_PROTOCOL_TYPE
from broker.coordinator.consumer_roster import ConsumerRoster
from broker.coordinator.effects import Effects
from broker.coordinator.group import OffsetToCommit
from broker.coordinator.group_state import Committer, ConsumerGroupState, ConsumerSettings, GroupType
from broker.coordinator.records import CoordinatorRecord, GroupRecord, OffsetRecord
from broker.coordinator.topic_catalog import TopicCatalog
from protocol.errors import ErrorCode, KafkaError

MEMBER_EPOCHS_FROM = 9  # OffsetCommit version


class ConsumerState:
    """One group's state and the questions about it; `settings` returns what is configured now."""

    def __init__(self, group_id: str, topics: TopicCatalog, settings: Callable[[], ConsumerSettings]) -> None:
        self.group_id = group_id
        self.roster = ConsumerRoster(group_id)
        self.topics = topics
        self.settings = settings

    type = GroupType.CONSUMER
    protocol_type = CONSUMER_PROTOCOL_TYPE

    @property
    def state(self) -> ConsumerGroupState:
        roster = self.roster
        if not roster.accounts:
            return ConsumerGroupState.EMPTY
        if roster.epoch > roster.assignment_epoch:
            return ConsumerGroupState.ASSIGNING
        epoch = roster.assignment_epoch
        reconciled = all(roster.current(member_id).is_reconciled_to(epoch) for member_id in roster.accounts)
        return ConsumerGroupState.STABLE if reconciled else ConsumerGroupState.RECONCILING

    @property
    def state_name(self) -> str:
        return self.state.value

    @property
    def assignor_name(self) -> str:
        """The assignor that most members ask for; the broker's first when nobody asks for one."""
        wanted = self.roster.assignors.most_common(1)
        return wanted[0][0] if wanted else self.settings().default_assignor

    @property
    def is_empty(self) -> bool:
        return not self.roster.accounts

    is_disposable = is_empty

    def is_subscribed(self, topic: str) -> bool:
        return self.roster.is_subscribed(topic)

    def unused_since_ms(self, topic: str, commit_timestamp_ms: int) -> int | None:
        """Offsets of topics that nobody reads age from their commit on, whether the group has members or not."""
        return None if self.is_subscribed(topic) else commit_timestamp_ms

    def check_offset_commit(self, committer: Committer, offsets: Sequence[OffsetToCommit]) -> ErrorCode:
        """A member may commit with its epoch, or with an older one what it has had since then (KIP-1251)."""
        epoch = committer.generation_id
        if epoch < 0 and self.is_empty:
            return ErrorCode.NONE
        transactional = committer.producer is not None
        if transactional and epoch == -1 and not committer.member_id and committer.group_instance_id is None:
            return ErrorCode.NONE  # TxnOffsetCommit before v3 says nothing of members
        account = self.roster.accounts.get(committer.member_id)
        if account is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if account.classic is None and committer.api_version < MEMBER_EPOCHS_FROM and not transactional:
            return ErrorCode.UNSUPPORTED_VERSION
        current = self.roster.current(committer.member_id)
        stale = ErrorCode.STALE_MEMBER_EPOCH if account.classic is None else ErrorCode.ILLEGAL_GENERATION
        if epoch == current.epoch:
            return ErrorCode.NONE
        if epoch > current.epoch:
            return stale
        for _, partition, committed in offsets:
            since = current.assignment_epoch(committed.topic_id, partition)
            if since is None or epoch < since:
                return stale
        return ErrorCode.NONE

    def check_offset_fetch(self, member_id: str | None, member_epoch: int) -> ErrorCode:
        """Members give their epoch; others give neither id nor epoch."""
        if member_id is None and member_epoch < 0:
            return ErrorCode.NONE
        account = self.roster.accounts.get(member_id or "")
        if account is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if member_epoch == self.roster.current(member_id or "").epoch:
            return ErrorCode.NONE
        return ErrorCode.STALE_MEMBER_EPOCH if account.classic is None else ErrorCode.ILLEGAL_GENERATION

    def offsets_committed(self, member_id: str) -> Effects:  # noqa: ARG002 - a heartbeat alone keeps these sessions
        return Effects()

    def check_offset_delete(self) -> ErrorCode:
        return ErrorCode.NONE

    def check_delete(self) -> ErrorCode:
        return ErrorCode.NONE if self.is_empty else ErrorCode.NON_EMPTY_GROUP

    def may_downgrade(self, *, without: Sequence[str]) -> bool:
        """Whether only classic members would be left, and a classic group may have them."""
        roster, settings = self.roster, self.settings()
        leaving_classic = sum(roster.accounts[member_id].classic is not None for member_id in without)
        left = len(roster.accounts) - len(without)
        return (
            0 < left <= settings.classic_members_max
            and roster.classic_members - leaving_classic == left
            and settings.may_downgrade
        )

    def may_downgrade_all_but(self, member_id: str) -> bool:
        """Whether a classic process in the place of this member would leave classic members only."""
        roster, settings = self.roster, self.settings()
        others_classic = roster.classic_members == len(roster.accounts) - 1
        return (
            roster.accounts[member_id].classic is None
            and others_classic
            and len(roster.accounts) <= settings.classic_members_max
            and settings.may_downgrade
        )

    # ---- who is who; these raise KafkaError ----------------------------------------------------------------------

    def check_size(self, member_id: str) -> None:
        """Raises KafkaError GROUP_MAX_SIZE_REACHED when there is no room for one more."""
        limit = self.settings().members_max
        if len(self.roster.accounts) >= limit and member_id not in self.roster.accounts:
            reason = f"The consumer group has reached its maximum capacity of {limit} members."
            raise KafkaError(ErrorCode.GROUP_MAX_SIZE_REACHED, reason)

    def require(self, member_id: str) -> None:
        """Raises KafkaError UNKNOWN_MEMBER_ID."""
        if member_id not in self.roster.accounts:
            reason = f"Member {member_id} is not a member of group {self.group_id}."
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID, reason)

    def require_static(self, member_id: str, instance_id: str) -> None:
        """Raises KafkaError UNKNOWN_MEMBER_ID, or FENCED_INSTANCE_ID when another process has the instance now."""
        owner = self.roster.static_members.get(instance_id)
        if owner is None:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID, f"Instance id {instance_id} is unknown.")
        if owner != member_id:
            reason = f"Static member {member_id} with instance id {instance_id} was fenced by member {owner}"
            raise KafkaError(ErrorCode.FENCED_INSTANCE_ID, reason)

    def check_epoch(self, member_id: str, epoch: int, owned: Assignment | None) -> None:
        """An epoch before the current one is right once more if the answer that told of the new one may be lost."""
        current = self.roster.current(member_id)
        if epoch == current.epoch:
            return
        lost_answer = epoch == current.previous_epoch and owned is not None and is_subset(owned, current.assigned)
        if epoch > current.epoch or not lost_answer:
            reason = (
                f"The consumer group member has a {'greater' if epoch > current.epoch else 'smaller'} member epoch ({epoch}) "
                f"than the one known by the group coordinator ({current.epoch}). "
                "The member must abandon all its partitions and rejoin."
            )
            raise KafkaError(ErrorCode.FENCED_MEMBER_EPOCH, reason)

    # ---- records -------------------------------------------------------------------------------------------------

    def live_records(self) -> Iterator[CoordinatorRecord]:
        return self.roster.live_records()

    def deletion_records(self) -> Iterator[CoordinatorRecord]:
        return self.roster.deletion_records()

    def take_up(self, record: CoordinatorRecord) -> None:
        if not isinstance(record, (GroupRecord, OffsetRecord)):
            self.roster.take_up(record)
