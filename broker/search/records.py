"""The records that hits name, read back from the log: a hit always shows what the log holds."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from broker.topics import Topic
from protocol.errors import KafkaError
from protocol.record_batch import Record, select_records, walk_batches

# Batches decoded between two turns of the event loop: about a millisecond.
BATCHES_PER_TURN = 8

Place = tuple[int, int]
"""(partition, offset)."""


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record and the leader epoch of its batch."""

    record: Record
    leader_epoch: int


async def read_records(topic: Topic, places: Iterable[Place]) -> dict[Place, FoundRecord]:
    """Those of the records that the log still has."""
    found: dict[Place, FoundRecord] = {}
    missing = sorted(set(places))
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
            _collect(partition, memoryview(buffer), alive, found)
    return found


def _collect(partition: int, batches: memoryview, wanted: list[int], found: dict[Place, FoundRecord]) -> None:
    for header in walk_batches(batches):
        if header.control:
            continue
        for record in select_records(batches[header.position : header.position + header.size], wanted):
            found[partition, record.offset] = FoundRecord(record, header.leader_epoch)
