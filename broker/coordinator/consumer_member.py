"""What is known of one member of a consumer group (KIP-848): its own account of itself, and what it has been given."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from broker.coordinator.assignment import Epochs
from broker.coordinator.classic_member import Protocols

JOINS_EPOCH = 0
LEAVES_EPOCH = -1
AWAY_EPOCH = -2
"""A static member that went for a while: its partitions wait for its next process."""


class MemberState(IntEnum):
    """How far a member has come towards its target; the numbers are those of Kafka's records."""

    STABLE = 0
    UNREVOKED_PARTITIONS = 1
    """It has been told to give up partitions and has not confirmed it."""
    UNRELEASED_PARTITIONS = 2
    """It waits for partitions that others have not given up yet."""
    UNKNOWN = 127


@dataclass(frozen=True, slots=True)
class ClassicSupport:
    """Of a member that speaks the classic protocol: what that takes, and going back to a classic group."""

    session_timeout_ms: int
    protocols: Protocols


@dataclass(frozen=True, slots=True)
class MemberAccount:
    """What a member says of itself."""

    group_instance_id: str | None = None
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    topic_names: frozenset[str] = frozenset()
    topic_regex: str = ""
    rebalance_timeout_ms: int = -1
    server_assignor: str | None = None
    classic: ClassicSupport | None = None


@dataclass(frozen=True, slots=True)
class CurrentAssignment:
    """What a member has, and at which epoch."""

    epoch: int = JOINS_EPOCH
    previous_epoch: int = -1
    state: MemberState = MemberState.STABLE
    assigned: Epochs = field(default_factory=dict)
    revoking: Epochs = field(default_factory=dict)
    """Partitions it has been told to give up; nobody else gets them before it says that it has."""

    def is_reconciled_to(self, epoch: int) -> bool:
        """Whether it has all that the target assignment of this epoch gives it, and no more."""
        return self.state is MemberState.STABLE and self.epoch == epoch

    def moved_to(self, epoch: int, state: MemberState, assigned: Epochs, revoking: Epochs | None = None) -> Self:
        """One step further."""
        return type(self)(epoch, self.epoch, state, assigned, revoking or {})

    def assignment_epoch(self, topic_id: bytes, partition: int) -> int | None:
        """At which epoch it got a partition that it has or is giving up; None for any other."""
        for epochs in (self.assigned, self.revoking):
            epoch = epochs.get(topic_id, {}).get(partition)
            if epoch is not None:
                return epoch
        return None
