"""The records that hits name, read back from the log: a hit always shows what the log holds."""

import asyncio
from array import array
from collections import Counter, OrderedDict
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from broker.topics import Topic
from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import BatchHeader, Record, no_starts, select_records, walk_batches
from storage.log import PartitionLog
from vector.request import SearchRequest

# Batches decoded between two turns of the event loop: about a millisecond.
BATCHES_PER_TURN = 8
HIT_BYTES_MAX = 64 * 1024 * 1024
"""Keys, values and headers in one answer; a record that several queries found counts for each."""

STARTS_MAX = 500_000
"""Starts of records that are remembered, 8 bytes each: those of 8 million records in large batches, or 10,000 small batches."""
STARTS_OF_A_BATCH = 50
"""What else is kept of a batch takes as much memory as so many starts."""
OF_RECORDS = frozenset({"key", "value", "headers"})
"""What a hit shows that is in the record alone."""

Place = tuple[int, int]
"""(partition, offset)."""


class FoundRecord(NamedTuple):
    """Of a record what the request includes, and the leader epoch of its batch."""

    leader_epoch: int
    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    value_cut: bool = False


class BatchStarts:
    """Where records begin in the batches that hits were read from lately: to hop over 5,000 records takes 0.4 ms."""

    def __init__(self) -> None:
        self._starts: OrderedDict[tuple[bytes, int, int, int, int], array[int]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def of(self, topic_id: bytes, partition: int, header: BatchHeader) -> "array[int]":
        """The batch's, to read with; then call `learned`."""
        key = (topic_id, partition, header.base_offset, header.size, header.crc)
        starts = self._starts.get(key)
        if starts is None:
            starts = self._starts[key] = no_starts()
            self._count += STARTS_OF_A_BATCH + len(starts)
        else:
            self._starts.move_to_end(key)
        return starts

    def learned(self, count: int) -> None:
        """So many starts have been added; those of batches that were not read lately are forgotten for them."""
        self._count += count
        while self._count > STARTS_MAX and self._starts:
            self._count -= STARTS_OF_A_BATCH + len(self._starts.popitem(last=False)[1])


async def read_records(
    topic: Topic, places: Iterable[Place], request: SearchRequest, starts: BatchStarts
) -> dict[Place, FoundRecord]:
    """Those of the records that the log still has. A place counts as often as it is named.

    Raises KafkaError POLICY_VIOLATION above `HIT_BYTES_MAX`.
    """
    reading = _Reading(topic.topic_id, Counter(places), request, starts)
    found = reading.found
    missing = sorted(reading.times)
    wanted: dict[int, list[int]] = {}
    for partition, offset in missing:
        wanted.setdefault(partition, []).append(offset)
    for count, (partition, offset) in enumerate(missing):
        if (partition, offset) in found or reading.known_unread(topic.partitions[partition], offset):
            continue
        if count % BATCHES_PER_TURN == BATCHES_PER_TURN - 1:
            await asyncio.sleep(0)
        try:
            log = topic.partition(partition)
            result = log.read(offset, 1, up_to=log.high_watermark, at_least_one=True)
        except KafkaError:  # retention was faster, or the topic is gone
            continue
        if result.cold:
            await asyncio.get_running_loop().run_in_executor(None, result.load)
        for buffer in result.buffers:
            # A batch may begin below the log's start, which may have moved while the search waited.
            alive = [offset for offset in wanted[partition] if offset >= log.log_start_offset]
            reading.collect(partition, memoryview(buffer), alive)
    return found


def compacted_away(topic: Topic, places: Iterable[Place], found: Container[Place]) -> list[Place]:
    """Those of the places whose record compaction has removed: the index, told of them, has others to show."""
    gone = []
    for partition, offset in sorted(set(places)):
        log = topic.partitions[partition]
        if _may_be_compacted(log, offset) and offset >= log.log_start_offset and (partition, offset) not in found:
            gone.append((partition, offset))
    return gone


def _may_be_compacted(log: PartitionLog, offset: int) -> bool:
    """Also in a topic that was compacted once and is no more."""
    return log.config.compacts or offset < log.cleaned_offset


class _Reading:
    """What has been read for one answer, within its bound."""

    def __init__(self, topic_id: bytes, times: Counter[Place], request: SearchRequest, starts: BatchStarts) -> None:
        self.times = times
        self.found: dict[Place, FoundRecord] = {}
        self._topic_id = topic_id
        self._starts = starts
        self._include = request.include
        self._positions_only = not request.include & OF_RECORDS
        self._value_bytes = request.max_value_bytes
        self._size = 0

    def known_unread(self, log: PartitionLog, offset: int) -> bool:
        """Whether all that is asked for of a hit is known without its record: nothing but compaction leaves gaps in a log."""
        known = self._positions_only and log.log_start_offset <= offset < log.high_watermark
        if not known or _may_be_compacted(log, offset):
            return False
        self.found[log.partition, offset] = FoundRecord(log.epochs.epoch_of(offset))
        return True

    def collect(self, partition: int, batches: memoryview, wanted: list[int]) -> None:
        for header in walk_batches(batches):
            if header.control:
                continue
            if self._positions_only and header.whole:  # that they are there is all there is to know of them
                here = [offset for offset in wanted if header.base_offset <= offset <= header.last_offset]
                self.found |= dict.fromkeys(((partition, offset) for offset in here), FoundRecord(header.leader_epoch))
                continue
            starts = self._starts.of(self._topic_id, partition, header)
            known = len(starts)
            batch = batches[header.position : header.position + header.size]
            for record in select_records(batch, wanted, starts):
                place = partition, record.offset
                if place not in self.found:
                    self.found[place] = self._keep(record, header.leader_epoch, self.times[place])
            self._starts.learned(len(starts) - known)

    def _keep(self, record: Record, leader_epoch: int, times: int) -> FoundRecord:
        key = record.key if "key" in self._include else None
        headers = record.headers if "headers" in self._include else ()
        value = record.value if "value" in self._include else None
        cut = value is not None and self._value_bytes is not None and len(value) > self._value_bytes
        if cut and value is not None:
            value = value[: self._value_bytes]
        size = len(key or b"") + len(value or b"") + sum(len(name) + len(data or b"") for name, data in headers)
        self._size += size * times
        if self._size > HIT_BYTES_MAX:
            raise KafkaError(
                ErrorCode.POLICY_VIOLATION,
                f"max_value_bytes: the hits take more than the limit of {HIT_BYTES_MAX} bytes; lower max_value_bytes or limit",
            )
        return FoundRecord(leader_epoch, key, value, headers, cut)
