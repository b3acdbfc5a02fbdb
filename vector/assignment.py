"""A topic as the broker hands it to a worker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from vector.config import VectorConfig
from vector.log_source import LogState


@dataclass(slots=True)
class Assignment:
    """`states` names the partitions that this worker has. `model` is never None here: the broker put in its default.

    `recovered` has the log end of each partition at broker start, once: an index beyond it holds what the log has lost.
    """

    topic: str
    topic_id: bytes
    config: VectorConfig
    model: str
    states: dict[int, LogState]
    recovered: dict[int, int] = field(default_factory=dict)
    leads: bool = True
    """Whether this worker decides what the generations are for; else it does what the lead says, as `roles` told last."""
    roles: Mapping[str, Any] | None = None
    foreign: Sequence[int] = ()
    """Partitions that a worker on another machine has: what this one's folder still holds of them has not followed the log."""

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        """As the broker sends it."""
        states = {partition: LogState(*state) for partition, state in message["states"].items()}
        return cls(**{**message, "config": VectorConfig(**message["config"]), "states": states})
