"""The records that hits name, read back from the log: a hit always shows what the log holds."""

import asyncio
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass

from broker.topics import Topic
from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import Record, select_records, walk_batches
from vector.request import SearchRequest

# Batches decoded between two turns of the event loop: about a millisecond.
BATCHES_PER_TURN = 8
HIT_BYTES_MAX = 64 * 1024 * 1024
"""Keys, values and headers in one answer; a record that several queries found counts for each."""

Place = tuple[int, int]
"""(partition, offset)."""


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record, only with what the request includes, and the leader epoch of its batch."""

    record: Record
    leader_epoch: int
    value_cut: bool


async def read_records(topic: Topic, places: Iterable[Place], request: SearchRequest) -> dict[Place, FoundRecord]:
    """Those of the records that the log still has. A place counts as often as it is named.

    Raises KafkaError POLICY_VIOLATION above `HIT_BYTES_MAX`.
    """
    reading = _Reading(Counter(places), request)
    found = reading.found
    missing = sorted(reading.times)
    wanted: dict[int, list[int]] = {}
    for partition, offset in missing:
        wanted.setdefault(partition, []).append(offset)
    for count, (partition, offset) in enumerate(missing):
        if (partition, offset) in found:
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
        if log.config.compacts and offset >= log.log_start_offset and (partition, offset) not in found:
            gone.append((partition, offset))
    return gone


class _Reading:
    """What has been read for one answer, within its bound."""

    def __init__(self, times: Counter[Place], request: SearchRequest) -> None:
        self.times = times
        self.found: dict[Place, FoundRecord] = {}
        self._include = request.include
        self._value_bytes = request.max_value_bytes
        self._size = 0

    def collect(self, partition: int, batches: memoryview, wanted: list[int]) -> None:
        for header in walk_batches(batches):
            if header.control:
                continue
            for record in select_records(batches[header.position : header.position + header.size], wanted):
                place = partition, record.offset
                if place not in self.found:
                    self.found[place] = self._keep(record, header.leader_epoch, self.times[place])

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
        return FoundRecord(Record(record.offset, record.timestamp_ms, key, value, headers), leader_epoch, cut)
