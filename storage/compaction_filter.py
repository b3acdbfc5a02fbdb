"""What remains of a batch: the last record of each key, tombstones for a while, and what offsets and sequences need.

The rules are those of Kafka's Cleaner and MemoryRecords.filterTo. No I/O.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from protocol.record_batch import BatchHeader, read_marker
from protocol.record_keys import KeyedRecords, empty_batch, keep_records, read_keys
from storage.aborted_transactions import AbortedTransaction, AbortedTransactions
from storage.file_system import Buffer
from storage.offset_map import OffsetMap


class CompactedTransactions:
    """Which batches are of aborted transactions, and which markers still have batches; told of all in offset order.

    As Kafka's CleanedTransactionMetadata.
    """

    def __init__(self, aborted: Iterable[AbortedTransaction]) -> None:
        self._waiting = sorted(aborted, key=lambda transaction: transaction.first_offset, reverse=True)
        self._aborted: dict[int, AbortedTransaction] = {}
        """By producer id, those whose marker is yet to come."""
        self._seen: set[int] = set()
        """Producers with a batch in their transaction, committed or aborted."""
        self.still_aborted = AbortedTransactions()
        """Those of which something is left, but for the owner to empty."""

    def aborted(self, header: BatchHeader) -> bool:
        """Whether nobody who reads committed records sees this batch of records."""
        if not header.transactional:
            return False
        self._begin(header)
        self._seen.add(header.producer_id)
        return header.producer_id in self._aborted

    def ended(self, header: BatchHeader, batch: memoryview) -> bool:
        """Whether nothing is left of what this marker ends."""
        self._begin(header)
        marker = read_marker(batch)
        if marker is None:
            return False
        seen = header.producer_id in self._seen
        self._seen.discard(header.producer_id)
        transaction = None if marker.commit else self._aborted.pop(header.producer_id, None)
        if transaction is not None and seen:
            self.still_aborted.add(transaction)
        return not seen

    def _begin(self, header: BatchHeader) -> None:
        while self._waiting and self._waiting[-1].first_offset <= header.last_offset:
            transaction = self._waiting.pop()
            self._aborted[transaction.producer_id] = transaction


@dataclass(frozen=True, slots=True)
class ProducerEnds:
    """What must stay of each producer, so that a log alone still tells its last sequence and epoch."""

    last_offsets: Mapping[int, int]
    """Of its last record."""
    marker_epochs: Mapping[int, int]
    """Of those that have written markers alone."""

    def needs(self, header: BatchHeader) -> bool:
        """Whether the batch, or its header, stays."""
        if header.producer_id in self.last_offsets:
            return self.last_offsets[header.producer_id] == header.last_offset
        return header.control and self.marker_epochs.get(header.producer_id) == header.producer_epoch


class CompactionFilter:
    """One compaction's decisions."""

    def __init__(
        self,
        newest: OffsetMap,
        transactions: CompactedTransactions,
        producers: ProducerEnds,
        *,
        now_ms: int,
        delete_retention_ms: int,
    ) -> None:
        self._newest = newest
        self.transactions = transactions
        self._producers = producers
        self._now_ms = now_ms
        self._new_horizon_ms = now_ms + delete_retention_ms

    def remains(self, header: BatchHeader, batch: memoryview, *, last: bool) -> Buffer | None:
        """Of a batch; None: nothing. `last`: of its segment, which ends where it ended before.

        Raises KafkaError as `read_keys` does.
        """
        if header.control:
            return self._remains_of_marker(header, batch, last=last)
        records = read_keys(header, batch)
        kept = [] if self.transactions.aborted(header) else self._kept(header, records)
        if not kept:
            if not last and not self._producers.needs(header):
                return None
            return empty_batch(header) if header.record_count else batch
        horizon = None
        if header.delete_horizon_ms is None and any(records.tombstones[index] for index in kept):
            horizon = self._new_horizon_ms
        if horizon is None and len(kept) == len(records):
            return batch
        return keep_records(header, records, kept, delete_horizon_ms=horizon)

    def _remains_of_marker(self, header: BatchHeader, batch: memoryview, *, last: bool) -> Buffer | None:
        """A marker stays as long as something of its transaction, then like a tombstone; it is never emptied."""
        if not self.transactions.ended(header, batch):
            return batch
        horizon = header.delete_horizon_ms
        if horizon is None:
            records = read_keys(header, batch)
            return keep_records(header, records, range(len(records)), delete_horizon_ms=self._new_horizon_ms)
        return batch if last or self._now_ms < horizon or self._producers.needs(header) else None

    def _kept(self, header: BatchHeader, records: KeyedRecords) -> list[int]:
        base_offset, end_offset = header.base_offset, self._newest.end_offset
        horizon = header.delete_horizon_ms
        tombstones_stay = horizon is None or self._now_ms < horizon
        newest = self._newest.newest
        kept = []
        for index, key in enumerate(records.keys):
            offset = base_offset + records.offset_deltas[index]
            if offset < end_offset:
                # A record without a key, from before the topic was compacted, has nothing to say for any key.
                if key is None or newest(key) > offset:
                    continue
                if records.tombstones[index] and not tombstones_stay:
                    continue
            kept.append(index)
        return kept
