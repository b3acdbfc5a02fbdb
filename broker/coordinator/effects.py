"""What a group operation wants done, as data: the shell does it, a test looks at it."""

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from broker.coordinator.records import CoordinatorRecord
from broker.deferred import Deferred
from protocol.messages import JoinGroupResponse, SyncGroupResponse

if TYPE_CHECKING:
    from broker.coordinator.group import Group

JoinAnswer = Deferred[JoinGroupResponse]
SyncAnswer = Deferred[SyncGroupResponse]


class TimerKind(Enum):
    """SESSION and REVOCATION belong to one member or pending id; JOIN and SYNC to a classic group, or to one classic member
    of a consumer group.
    """

    SESSION = "session"
    REVOCATION = "revocation"
    JOIN = "join"
    SYNC = "sync"


class TimerKey(NamedTuple):
    """A group has one timer per key; arming it again replaces it."""

    kind: TimerKind
    member_id: str = ""


@dataclass(slots=True)
class Effects:
    """Answers are released once `records` are durable; timers are armed (delay in ms) or cancelled (None).

    `undo` makes the group as it was should the log refuse the records, taken up in reverse order. With a `replacement` the
    group goes on under the other protocol, as another object, and the timers are that object's.
    """

    joins: list[tuple[JoinAnswer, JoinGroupResponse]] = field(default_factory=list)
    syncs: list[tuple[SyncAnswer, SyncGroupResponse]] = field(default_factory=list)
    records: list[CoordinatorRecord] = field(default_factory=list)
    undo: list[CoordinatorRecord] = field(default_factory=list)
    replacement: "Group | None" = None
    timers: dict[TimerKey, int | None] = field(default_factory=dict)

    def arm(self, kind: TimerKind, delay_ms: int, member_id: str = "") -> None:
        self.timers[TimerKey(kind, member_id)] = delay_ms

    def cancel(self, kind: TimerKind, member_id: str = "") -> None:
        self.timers[TimerKey(kind, member_id)] = None

    def follow(self, later: "Effects") -> None:
        """Adds what a later operation wants done."""
        self.joins += later.joins
        self.syncs += later.syncs
        self.records += later.records
        self.undo += later.undo
        self.replacement = later.replacement or self.replacement
        self.timers |= later.timers
