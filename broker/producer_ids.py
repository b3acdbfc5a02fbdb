"""Producer ids, each given out once in the life of the data directory."""

from typing import NamedTuple

from broker.meta_store import MetaStore

BLOCK = 1000
"""Ids made durable at once, as in Kafka (ProducerIdsBlock); a restart skips what was left of the block."""


class ProducerIdAndEpoch(NamedTuple):
    """A producer, and which of its successive lives."""

    producer_id: int
    producer_epoch: int


class ProducerIds:
    """Hands out producer ids; the block that they come from is durable first, so that no id is given out twice."""

    def __init__(self, store: MetaStore) -> None:
        self._store = store
        self._next = self._limit = store.metadata.next_producer_id

    def next(self) -> int:
        """A new producer id; raises OSError when the next block cannot be made durable."""
        if self._next == self._limit:
            self._store.replace(next_producer_id=self._limit + BLOCK)
            self._limit += BLOCK
        self._next += 1
        return self._next - 1
