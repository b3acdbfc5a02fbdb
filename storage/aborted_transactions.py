"""The aborted transactions of one log, in Kafka's own format: readers of committed records must leave their records out.

An entry of a segment's `.txnindex`: version i16 (0), producer id, first offset, last offset (the marker's) and the log's
last stable offset once the marker was written, i64 each. In memory they are kept as they lie in the files.
"""

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from protocol.record_batch import read_marker, walk_batches

ENTRY_BYTES = 34
_ENTRY = struct.Struct(">hqqqq")
_VERSION = 0
_unpack_last_offset = struct.Struct(">q").unpack_from
_LAST_OFFSET_POSITION = 18


class AbortedTransaction(NamedTuple):
    """One transaction in one partition."""

    producer_id: int
    first_offset: int
    last_offset: int
    """Of the marker."""
    last_stable_offset: int
    """Of the log once the marker was written: whatever begins at or above it, a later entry names."""


class AbortedTransactions:
    """In the order of their markers."""

    __slots__ = ("_entries",)

    def __init__(self, entries: bytes = b"") -> None:
        self._entries = bytearray(entries)

    def __len__(self) -> int:
        return len(self._entries) // ENTRY_BYTES

    def __getitem__(self, index: int) -> AbortedTransaction:
        return AbortedTransaction(*_ENTRY.unpack_from(self._entries, index * ENTRY_BYTES)[1:])

    def __iter__(self) -> Iterator[AbortedTransaction]:
        return map(self.__getitem__, range(len(self)))

    def add(self, transaction: AbortedTransaction) -> None:
        """Its marker is the newest."""
        self._entries += _ENTRY.pack(_VERSION, *transaction)

    @property
    def entries(self) -> bytes:
        """All of them, as a file holds them."""
        return bytes(self._entries)

    def replace(self, start_offset: int, end_offset: int, entries: bytes) -> None:
        """Those whose markers lie at offsets [start, end) are now these."""
        start, end = self._first_at(start_offset), self._first_at(end_offset)
        self._entries[start * ENTRY_BYTES : end * ENTRY_BYTES] = entries

    def prepend(self, entries: bytes) -> None:
        """Older ones, as files hold them."""
        self._entries[:0] = entries

    def between(self, start_offset: int, end_offset: int) -> bytes:
        """Entries whose markers lie at offsets [start, end), as a file holds them."""
        start, end = self._first_at(start_offset), self._first_at(end_offset)
        return bytes(self._entries[start * ENTRY_BYTES : end * ENTRY_BYTES])

    def overlapping(self, start_offset: int, end_offset: int) -> list[AbortedTransaction]:
        """Those with records at offsets [start, end), as far as these are below the last stable offset."""
        found = []
        for index in range(self._first_at(start_offset), len(self)):
            transaction = self[index]
            if transaction.first_offset < end_offset:
                found.append(transaction)
            if transaction.last_stable_offset >= end_offset:
                break
        return found

    def drop_below(self, offset: int) -> None:
        """Forget those whose markers lie below."""
        if self._entries:
            del self._entries[: self._first_at(offset) * ENTRY_BYTES]

    def drop_from(self, offset: int) -> None:
        """Forget those whose markers lie at or beyond a cut end."""
        del self._entries[self._first_at(offset) * ENTRY_BYTES :]

    def _first_at(self, offset: int) -> int:
        """Index of the first whose marker does not lie below `offset`."""
        return bisect_left(range(len(self)), offset, key=self._last_offset)

    def _last_offset(self, index: int) -> int:
        offset: int = _unpack_last_offset(self._entries, index * ENTRY_BYTES + _LAST_OFFSET_POSITION)[0]
        return offset


def valid_entries(entries: bytes, start_offset: int, end_offset: int) -> bool:
    """Whether these can be the entries of a segment that holds offsets [start, end)."""
    last = start_offset - 1
    for version, _, first_offset, last_offset, _ in _ENTRY.iter_unpack(
        entries[: len(entries) // ENTRY_BYTES * ENTRY_BYTES]
    ):
        if version != _VERSION or not last < last_offset < end_offset or first_offset > last_offset:
            return False
        last = last_offset
    return len(entries) % ENTRY_BYTES == 0


def without_aborted(batches: memoryview, aborted: Iterable[AbortedTransaction]) -> list[memoryview]:
    """The batches that are not of these transactions: what a consumer of committed records does with a Fetch answer."""
    waiting = sorted(aborted, key=lambda transaction: transaction.first_offset, reverse=True)
    producer_ids: set[int] = set()
    kept = []
    for batch in walk_batches(batches):
        data = batches[batch.position : batch.position + batch.size]
        while waiting and waiting[-1].first_offset <= batch.last_offset:
            producer_ids.add(waiting.pop().producer_id)
        if batch.control:
            marker = read_marker(data)
            if marker is not None and not marker.commit:
                producer_ids.discard(batch.producer_id)
        elif batch.transactional and batch.producer_id in producer_ids:
            continue
        kept.append(data)
    return kept
