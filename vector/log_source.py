"""The broker's log, as a worker sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vector.prepare import Failure


@dataclass(frozen=True, slots=True)
class LogState:
    """A partition's offsets, as the broker last told them."""

    log_start_offset: int
    high_watermark: int
    last_stable_offset: int
    cleaned_offset: int = 0
    """Below, compaction may have removed records."""


@dataclass(frozen=True, slots=True)
class LogRun:
    """Whole committed batches from an offset on, at most up to the last stable offset; `next_offset` is behind the last one."""

    batches: bytes
    next_offset: int
    state: LogState


class LogSource(Protocol):
    """The broker's log, as the worker reads it."""

    async def read(self, topic_id: bytes, partition: int, offset: int, max_bytes: int) -> LogRun:
        """From `offset`, or the log's start if that is higher. Raises KafkaError, ChannelClosed."""
        ...

    async def quarantine(self, place: "PartitionPlace", model: str, failures: Sequence[Failure]) -> None:
        """Makes it known, durably and once, which records cannot be indexed and why. Raises KafkaError, ChannelClosed."""
        ...


@dataclass(frozen=True, slots=True)
class PartitionPlace:
    """Which partition of which generation of a topic's index."""

    topic_id: bytes
    generation: int
    partition: int
