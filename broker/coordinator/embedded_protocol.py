"""What consumers write into the classic protocol's byte strings: subscriptions and assignments ("consumer" embedded protocol).

A group that changes between the protocols needs both; otherwise a coordinator reads nothing but topics (`subscription`).
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from broker.coordinator.assignment import Assignment
from broker.coordinator.topic_catalog import TopicCatalog
from protocol.codec import decode_data, encode_data
from protocol.errors import MalformedMessage
from protocol.messages import ConsumerProtocolAssignment

VERSION_MAX = 3
_VERSION = struct.Struct(">h")


@dataclass(frozen=True, slots=True)
class EmbeddedSubscription:
    """What a classic consumer says when it joins."""

    version: int
    topic_names: frozenset[str]
    owned: Assignment
    rack_id: str | None


def read_subscription(data: bytes, topics: TopicCatalog) -> EmbeddedSubscription:
    """Later versions only add fields, so they are read as the newest known one. Raises MalformedMessage."""
    version = _version(data)
    message = decode_data("ConsumerProtocolSubscription", min(version, VERSION_MAX), data, _VERSION.size)
    owned = _by_id(((entry.topic, entry.partitions) for entry in message.owned_partitions), topics)
    return EmbeddedSubscription(version, frozenset(message.topics), owned, message.rack_id or None)


def read_assignment(data: bytes, topics: TopicCatalog) -> tuple[Assignment, bool]:
    """The assignment, topics that are no more left out, and whether user data would be lost. Raises MalformedMessage."""
    if not data:
        return {}, False
    message = decode_data("ConsumerProtocolAssignment", min(_version(data), VERSION_MAX), data, _VERSION.size)
    entries = ((entry.topic, entry.partitions) for entry in message.assigned_partitions)
    return _by_id(entries, topics), bool(message.user_data)


def write_assignment(assignment: Assignment, version: int, topics: TopicCatalog) -> bytes:
    """The assignment as a consumer reads it; topics that are no more are left out."""
    known = [
        (facts.name, partitions)
        for topic_id, partitions in assignment.items()
        if (facts := topics.identified(topic_id))
    ]
    message = ConsumerProtocolAssignment(
        assigned_partitions=[
            ConsumerProtocolAssignment.TopicPartition(topic=name, partitions=sorted(partitions))
            for name, partitions in sorted(known)
        ],
        user_data=None,
    )
    version = min(version, VERSION_MAX)
    return _VERSION.pack(version) + encode_data("ConsumerProtocolAssignment", version, message)


def _version(data: bytes) -> int:
    if len(data) < _VERSION.size or (version := _VERSION.unpack_from(data)[0]) < 0:
        raise MalformedMessage("no version of the consumer protocol")
    return int(version)


def _by_id(entries: Iterable[tuple[str, list[int]]], topics: TopicCatalog) -> dict[bytes, frozenset[int]]:
    found: dict[bytes, frozenset[int]] = {}
    for name, partitions in entries:
        facts = topics.named(name)
        if facts is not None and partitions:
            found[facts.topic_id] = found.get(facts.topic_id, frozenset()) | frozenset(partitions)
    return found
