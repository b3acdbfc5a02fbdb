"""What a classic group is: its generation, its members, and what follows from them. What it does is in `classic_group`."""

from collections.abc import Callable, Iterable, Sequence

from broker.coordinator.classic_member import ClassicMember
from broker.coordinator.effects import Effects
from broker.coordinator.group_metadata import GroupMetadata
from broker.coordinator.group_state import Committer, GroupState, GroupType
from broker.coordinator.records import CoordinatorRecord, GroupRecord
from broker.coordinator.roster import Roster
from broker.coordinator.subscription import subscribed_topics
from protocol.errors import ErrorCode

CONSUMER_PROTOCOL_TYPE = "consumer"


class ClassicGroupState:
    """One group's state and the questions about it. `time_ms` is wall time in ms."""

    type = GroupType.CLASSIC

    def __init__(self, group_id: str, *, time_ms: Callable[[], int]) -> None:
        self.group_id = group_id
        self.generation_id = 0
        self.protocol_type: str | None = None
        self.protocol_name: str | None = None
        self.state = GroupState.EMPTY
        self.state_timestamp_ms = time_ms()
        self.subscribed_topics: frozenset[str] | None = None
        """Topics of a consumer group's current generation; None when its metadata cannot be read or is not a consumer's."""
        self.persisted: GroupMetadata | None = None
        """The generation written last; None for a group that only holds offsets."""
        self.roster = Roster()
        self._time_ms = time_ms

    @property
    def state_name(self) -> str:
        return self.state.value

    @property
    def is_empty(self) -> bool:
        return self.state is GroupState.EMPTY

    def is_subscribed(self, topic: str) -> bool:
        """Whether a live consumer group reads the topic; when its subscriptions cannot be read, every topic counts."""
        if self.protocol_type != CONSUMER_PROTOCOL_TYPE:
            return False
        return self.subscribed_topics is None or topic in self.subscribed_topics

    def unused_since_ms(self, topic: str, commit_timestamp_ms: int) -> int | None:
        """From when on the retention of an offset runs (KIP-211); None while the group may need it.

        It runs from the commit for a group that never had members and for topics that a Stable consumer group has stopped
        reading, from the moment the group became empty otherwise.
        """
        if self.protocol_type is None:
            return commit_timestamp_ms
        if self.state is GroupState.EMPTY:
            return self.state_timestamp_ms if self.state_timestamp_ms >= 0 else commit_timestamp_ms
        if self.state is GroupState.STABLE and self.subscribed_topics is not None and not self.is_subscribed(topic):
            return commit_timestamp_ms
        return None

    @property
    def is_disposable(self) -> bool:
        """Whether nothing but offsets keeps the group."""
        return self.state is GroupState.EMPTY and not self.roster.pending_join

    def check_offset_commit(self, committer: Committer, offsets: Sequence[object]) -> ErrorCode:  # noqa: ARG002 - all alike
        """Whether this caller may commit offsets now; NONE also for a simple commit to a group without members."""
        member_id, group_instance_id = committer.member_id, committer.group_instance_id
        generation_id = committer.generation_id
        if generation_id < 0 and self.state is GroupState.EMPTY:
            return ErrorCode.NONE
        transactional = committer.producer is not None
        if generation_id < 0 and not member_id and group_instance_id is None:
            # TxnOffsetCommit before v3 says nothing of members.
            return ErrorCode.NONE if transactional else ErrorCode.UNKNOWN_MEMBER_ID
        error = self.roster.check(member_id, group_instance_id)
        if error is ErrorCode.NONE and generation_id != self.generation_id:
            error = ErrorCode.ILLEGAL_GENERATION
        if error is ErrorCode.NONE and self.state is GroupState.COMPLETING_REBALANCE and not transactional:
            error = ErrorCode.REBALANCE_IN_PROGRESS
        return error

    def check_offset_fetch(self, member_id: str | None, member_epoch: int) -> ErrorCode:  # noqa: ARG002
        """Anybody may."""
        return ErrorCode.NONE

    def check_delete(self) -> ErrorCode:
        """NONE when the group may be deleted."""
        return ErrorCode.NONE if self.state is GroupState.EMPTY else ErrorCode.NON_EMPTY_GROUP

    def check_offset_delete(self) -> ErrorCode:
        """NONE when single offsets may be deleted: subscriptions protect the topics in use, if they can be read."""
        return ErrorCode.NONE if self.protocol_type == CONSUMER_PROTOCOL_TYPE else self.check_delete()

    def snapshot(self) -> GroupMetadata:
        """The current generation, to be persisted."""
        return GroupMetadata(
            generation_id=self.generation_id,
            protocol_type=self.protocol_type,
            protocol_name=self.protocol_name,
            leader_id=self.roster.leader_id,
            state_timestamp_ms=self.state_timestamp_ms,
            members=self.roster.snapshot(self.protocol_name),
        )

    # ---- what is written -----------------------------------------------------------------------------------------

    def live_records(self) -> list[CoordinatorRecord]:
        """What a replay needs to have the group as it is persisted."""
        return [] if self.persisted is None else [GroupRecord(self.group_id, self.persisted)]

    def deletion_records(self) -> list[CoordinatorRecord]:
        """What deletes the group."""
        return [GroupRecord(self.group_id, None)]

    def take_up(self, record: CoordinatorRecord) -> None:
        """Takes the place of a persisted generation; `resume` starts its timers once everything is replayed."""
        if not isinstance(record, GroupRecord):
            return
        self.persisted = metadata = record.value
        if metadata is None:
            return
        self.generation_id = metadata.generation_id
        self.protocol_type = metadata.protocol_type
        self.protocol_name = metadata.protocol_name
        self.roster = Roster.restored(metadata)
        self.state = GroupState.STABLE if metadata.members else GroupState.EMPTY
        self.state_timestamp_ms = metadata.state_timestamp_ms
        self._read_subscriptions()

    def undo(self, effects: Effects) -> None:
        """Members are told and begin anew; the next generation is written as a whole, so only `persisted` needs mending."""
        for record in reversed(effects.undo):
            if isinstance(record, GroupRecord):
                self.persisted = record.value

    def persist_empty(self, effects: Effects) -> None:
        """Has a new group written that nobody has joined yet."""
        self._persist(GroupMetadata(state_timestamp_ms=self.state_timestamp_ms), effects)

    def _persist(self, metadata: GroupMetadata, effects: Effects) -> None:
        effects.undo.append(GroupRecord(self.group_id, self.persisted))
        effects.records.append(GroupRecord(self.group_id, metadata))
        self.persisted = metadata

    def take_over(self, generation_id: int, members: Iterable[ClassicMember], effects: Effects) -> None:
        """Goes on from a consumer group, with its members and what they have."""
        self.generation_id, self.protocol_type = generation_id, CONSUMER_PROTOCOL_TYPE
        for member in members:
            self.roster.add(member)
        self.protocol_name = self.roster.select_protocol()
        self._read_subscriptions()
        self._transition(GroupState.STABLE)
        self._persist(self.snapshot(), effects)

    def _transition(self, state: GroupState) -> None:
        self.state = state
        self.state_timestamp_ms = self._time_ms()

    def _read_subscriptions(self) -> None:
        self.subscribed_topics = None
        if self.protocol_type == CONSUMER_PROTOCOL_TYPE:
            topics: set[str] = set()
            for member in self.roster.members.values():
                read = subscribed_topics(member.metadata(self.protocol_name))
                if read is None:
                    return
                topics |= read
            self.subscribed_topics = frozenset(topics)
