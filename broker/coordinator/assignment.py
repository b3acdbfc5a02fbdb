"""Which partitions of which topics: the value that consumer groups hand around, and what is asked of it."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

Assignment = Mapping[bytes, frozenset[int]]
"""Partition numbers by topic id; topics without partitions are left out."""

Epochs = Mapping[bytes, Mapping[int, int]]
"""The same with the epoch at which the member got each partition (it fences commits of the one before it)."""

NOTHING: Assignment = MappingProxyType({})


class _TopicPartitions(Protocol):
    topic_id: bytes
    partitions: list[int]


def assignment_of(entries: Iterable[_TopicPartitions]) -> dict[bytes, frozenset[int]]:
    """The assignment in a message; a topic named twice counts with all its partitions."""
    found: dict[bytes, frozenset[int]] = {}
    for entry in entries:
        found[entry.topic_id] = found.get(entry.topic_id, frozenset()) | frozenset(entry.partitions)
    return found


def without_epochs(epochs: Epochs) -> dict[bytes, frozenset[int]]:
    """The assignment alone."""
    return {topic_id: frozenset(partitions) for topic_id, partitions in epochs.items()}


def with_epoch(assignment: Assignment, epoch: int) -> dict[bytes, dict[int, int]]:
    """Every partition of the assignment at one epoch."""
    return {topic_id: dict.fromkeys(sorted(partitions), epoch) for topic_id, partitions in assignment.items()}


def is_subset(owned: Assignment, epochs: Epochs) -> bool:
    """Whether everything owned is among the partitions of `epochs`."""
    return all(partitions <= epochs.get(topic_id, {}).keys() for topic_id, partitions in owned.items())


def overlap(owned: Assignment, epochs: Epochs) -> bool:
    """Whether anything owned is among the partitions of `epochs`."""
    return any(not partitions.isdisjoint(epochs.get(topic_id, {})) for topic_id, partitions in owned.items())
