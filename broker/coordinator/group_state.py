"""The words of the classic protocol that its parts share."""

from dataclasses import dataclass
from enum import StrEnum

from broker.producer_ids import ProducerIdAndEpoch


class GroupState(StrEnum):
    """Names as Kafka prints them; DEAD is the answer for a group that does not exist."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """`group.max.size`, `group.initial.rebalance.delay.ms`."""

    members_max: int
    initial_rebalance_delay_ms: int


@dataclass(frozen=True, slots=True)
class JoiningClient:
    """Who sends a JoinGroup, and in which version."""

    client_id: str
    client_host: str
    api_version: int


@dataclass(frozen=True, slots=True)
class Committer:
    """Who commits offsets; generation -1 and an empty member id: nobody's member."""

    group_id: str
    member_id: str
    group_instance_id: str | None
    generation_id: int
    api_version: int
    producer: ProducerIdAndEpoch | None = None
    """Whose transaction the offsets belong to (TxnOffsetCommit)."""
