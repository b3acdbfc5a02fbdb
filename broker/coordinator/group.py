"""What every group can be asked, whichever protocol it speaks."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from broker.coordinator.effects import Effects, JoinAnswer, SyncAnswer, TimerKey
from broker.coordinator.group_state import Committer, GroupType, JoiningClient
from broker.coordinator.records import CommittedOffset, CoordinatorRecord
from protocol.errors import ErrorCode
from protocol.messages import JoinGroupRequest, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest

OffsetToCommit = tuple[str, int, CommittedOffset]
"""Topic, partition and what to commit."""


class Group(Protocol):
    """A group: synchronous and pure; what it wants done is in the effects that it returns."""

    group_id: str

    @property
    def type(self) -> GroupType: ...

    @property
    def state_name(self) -> str:
        """As Kafka prints it."""

    @property
    def protocol_type(self) -> str | None: ...

    @property
    def is_empty(self) -> bool:
        """Nobody is in it."""

    @property
    def is_disposable(self) -> bool:
        """Nothing but offsets keeps it."""

    # The classic protocol; a consumer group speaks it with its classic members.
    def join(self, request: JoinGroupRequest, client: JoiningClient, answer: JoinAnswer) -> Effects: ...
    def sync(self, request: SyncGroupRequest, answer: SyncAnswer) -> Effects: ...
    def heartbeat(
        self, member_id: str, group_instance_id: str | None, generation_id: int
    ) -> tuple[ErrorCode, Effects]: ...
    def leave(
        self, identities: Iterable[LeaveGroupRequest.MemberIdentity]
    ) -> tuple[list[LeaveGroupResponse.MemberResponse], Effects]: ...

    def check_offset_commit(self, committer: Committer, offsets: Sequence[OffsetToCommit]) -> ErrorCode:
        """Whether this caller may commit these offsets now."""

    def check_offset_fetch(self, member_id: str | None, member_epoch: int) -> ErrorCode:
        """Whether this caller may fetch offsets."""

    def offsets_committed(self, member_id: str) -> Effects:
        """What an accepted commit means for the member's session."""

    def check_offset_delete(self) -> ErrorCode:
        """Whether single offsets may be deleted, of topics that are not subscribed to."""

    def check_delete(self) -> ErrorCode:
        """Whether the group may be deleted."""

    def is_subscribed(self, topic: str) -> bool:
        """Whether a member reads the topic."""

    def unused_since_ms(self, topic: str, commit_timestamp_ms: int) -> int | None:
        """From when on the retention of an offset runs (KIP-211); None while the group may need it."""

    def timer_expired(self, key: TimerKey) -> Effects: ...

    def resume(self) -> Effects:
        """Starts the sessions of the members that a replay has brought back."""

    def take_up(self, record: CoordinatorRecord) -> None:
        """Makes what a replayed record says so."""

    def undo(self, effects: Effects) -> None:
        """Deals with an operation whose records the log has refused: what stays of its effects is for the group to say."""

    def live_records(self) -> Iterable[CoordinatorRecord]:
        """What a replay needs to have the group as it is; nothing for a group that only holds offsets."""

    def deletion_records(self) -> Iterable[CoordinatorRecord]:
        """What deletes the group."""
