"""The words that the parts of the group protocols share."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from broker.producer_ids import ProducerIdAndEpoch

MEMBER_ID_REQUIRED_FROM = 4  # JoinGroup version, KIP-394


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
    """Who wants to be a member, and in which version of the request."""

    client_id: str
    client_host: str
    api_version: int
    may_describe: Callable[[str], bool] = lambda _: True
    """Which topics it may know of: its pattern matches no others."""


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


class GroupType(StrEnum):
    """Names as Kafka prints them."""

    CLASSIC = "classic"
    CONSUMER = "consumer"


class ConsumerGroupState(StrEnum):
    """Names as Kafka prints them."""

    EMPTY = "Empty"
    ASSIGNING = "Assigning"
    RECONCILING = "Reconciling"
    STABLE = "Stable"


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """What the broker's and the group's own configs say of a consumer group."""

    session_timeout_ms: int
    heartbeat_interval_ms: int
    assignment_interval_ms: int
    members_max: int
    """`group.consumer.max.size`"""
    classic_members_max: int
    """`group.max.size`, which a group must fit to go on under the classic protocol."""
    default_assignor: str
    may_downgrade: bool
    """`group.consumer.migration.policy` lets the group become a classic one once only classic members are left."""
