"""What a group operation wants done, as data: the shell does it, a test looks at it."""

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from broker.coordinator.records import CoordinatorRecord
from broker.deferred import Deferred
from protocol.messages import JoinGroupResponse, SyncGroupResponse

JoinAnswer = Deferred[JoinGroupResponse]
SyncAnswer = Deferred[SyncGroupResponse]


class TimerKind(Enum):
    """SESSION belongs to one member or pending id, the others to the group."""

    SESSION = "session"
    JOIN = "join"
    SYNC = "sync"


class TimerKey(NamedTuple):
    """A group has one timer per key; arming it again replaces it."""

    kind: TimerKind
    member_id: str = ""


@dataclass(slots=True)
class Effects:
    """Answers are released once `records` are durable; timers are armed (delay in ms) or cancelled (None)."""

    joins: list[tuple[JoinAnswer, JoinGroupResponse]] = field(default_factory=list)
    syncs: list[tuple[SyncAnswer, SyncGroupResponse]] = field(default_factory=list)
    records: list[CoordinatorRecord] = field(default_factory=list)
    timers: dict[TimerKey, int | None] = field(default_factory=dict)

    def arm(self, kind: TimerKind, delay_ms: int, member_id: str = "") -> None:
        self.timers[TimerKey(kind, member_id)] = delay_ms

    def cancel(self, kind: TimerKind, member_id: str = "") -> None:
        self.timers[TimerKey(kind, member_id)] = None
