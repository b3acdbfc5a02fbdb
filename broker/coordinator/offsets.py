"""The committed offsets of one group, and which of them have outlived their use."""

from collections.abc import Iterator

from broker.coordinator.group import Group
from broker.coordinator.records import CommittedOffset


class OffsetTable:
    """Committed offsets by topic and partition; topics and partitions in the order in which they were first committed.

    Those of open transactions are pending: they count with the commit, unless a plain commit or a deletion came after them.
    """

    __slots__ = ("_pending", "_topics")

    def __init__(self) -> None:
        self._topics: dict[str, dict[int, CommittedOffset]] = {}
        self._pending: dict[int, dict[tuple[str, int], CommittedOffset | None]] = {}
        """Producer id -> (topic, partition) -> offset; None: something newer has been written."""

    def __bool__(self) -> bool:
        return bool(self._topics or self._pending)

    def __iter__(self) -> Iterator[tuple[str, int, CommittedOffset]]:
        for topic, partitions in self._topics.items():
            for partition, committed in partitions.items():
                yield topic, partition, committed

    def get(self, topic: str, partition: int) -> CommittedOffset | None:
        return self._topics.get(topic, {}).get(partition)

    def of_topic(self, topic: str) -> dict[int, CommittedOffset]:
        """A copy: partition to committed offset."""
        return dict(self._topics.get(topic, {}))

    def topics(self) -> list[str]:
        return list(self._topics)

    def partitions(self) -> list[tuple[str, int]]:
        """Every (topic, partition) of which an offset is committed or pending."""
        committed = [(topic, partition) for topic, partitions in self._topics.items() for partition in partitions]
        return list(dict.fromkeys([*committed, *(place for offsets in self._pending.values() for place in offsets)]))

    def is_pending(self, topic: str, partition: int) -> bool:
        """Whether an open transaction commits an offset of the partition."""
        return any((topic, partition) in offsets for offsets in self._pending.values())

    def put_pending(self, producer_id: int, topic: str, partition: int, committed: CommittedOffset) -> None:
        self._pending.setdefault(producer_id, {})[topic, partition] = committed

    def end_transaction(self, producer_id: int, *, commit: bool) -> None:
        for (topic, partition), committed in self._pending.pop(producer_id, {}).items():
            if commit and committed is not None:
                self.put(topic, partition, committed)

    def put(self, topic: str, partition: int, committed: CommittedOffset) -> None:
        self._overtake(topic, partition)
        self._topics.setdefault(topic, {})[partition] = committed

    def remove(self, topic: str, partition: int) -> None:
        self._overtake(topic, partition)
        partitions = self._topics.get(topic, {})
        partitions.pop(partition, None)
        if not partitions:
            self._topics.pop(topic, None)

    def _overtake(self, topic: str, partition: int) -> None:
        for offsets in self._pending.values():
            if (topic, partition) in offsets:
                offsets[topic, partition] = None


def metadata_fits(metadata: str | None, characters_max: int) -> bool:
    """Whether the note that comes with an offset may be stored: Kafka counts UTF-16 units against a limit that it calls bytes."""
    return len((metadata or "").encode("utf-16-le", "surrogatepass")) // 2 <= characters_max


def expired_offsets(group: Group, offsets: OffsetTable, *, now_ms: int, retention_ms: int) -> list[tuple[str, int]]:
    """The (topic, partition) pairs whose retention (`offsets.retention.minutes`, KIP-211) is over.

    Offsets committed with a retention of their own (OffsetCommit v2-4) go by that.
    """
    expired = []
    for topic, partition, committed in offsets:
        unused_since_ms = group.unused_since_ms(topic, committed.commit_timestamp_ms)
        if unused_since_ms is None:
            continue
        own_ms = committed.expire_timestamp_ms
        if now_ms >= (own_ms if own_ms >= 0 else unused_since_ms + retention_ms):
            expired.append((topic, partition))
    return expired
