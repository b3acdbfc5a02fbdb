"""What compaction has removed from the log, found without a search having to meet it: the log is read again, and compared."""

import asyncio

import numpy as np

from protocol.errors import KafkaError
from protocol.record_batch import iterate_records, walk_batches
from vector.arrays import Int64
from vector.index.partition_index import PartitionIndex
from vector.log_source import LogSource, PartitionPlace
from vector.threads import WorkerThreads

READ_BYTES = 256 * 1024
PAUSE_S = 0.02
"""Between two reads: 12 MB/s at most, behind whatever else broker and worker have to do."""


async def bury_compacted(
    index: PartitionIndex, place: PartitionPlace, cleaned_offset: int, source: LogSource, threads: WorkerThreads
) -> int:
    """Buries records below `cleaned_offset` that the log has no more; how many. Raises KafkaError, ChannelClosed.

    Reads the log up to there once, which compaction has just made small; searches leave the records out from then on, and the next
    builds of their segments do.
    """
    loop = asyncio.get_running_loop()
    offset, buried = index.first_offset, 0
    while offset < min(cleaned_offset, index.indexed_offset):
        run = await source.read(place.topic_id, place.partition, offset, READ_BYTES)
        end = min(run.next_offset, cleaned_offset)
        if end <= offset:
            break  # the log has lost its tail
        indexed = index.offsets_between(max(offset, run.state.log_start_offset), end)
        if len(indexed):
            gone = await loop.run_in_executor(threads.shards, _gone, run.batches, indexed)
            if len(gone):
                await loop.run_in_executor(threads.index, index.bury, gone)
                buried += len(gone)
        offset = run.next_offset
        await asyncio.sleep(PAUSE_S)
    return buried


def _gone(batches: bytes, indexed: Int64) -> Int64:
    """Those of the offsets (int64[n], ascending) that no record of the batches has."""
    there: list[int] = []
    view = memoryview(batches)
    for header in walk_batches(view):
        if header.control:
            continue
        try:
            there += [
                record.offset for record in iterate_records(view[header.position : header.position + header.size])
            ]
        except KafkaError:  # nobody can read the batch; it is no news of compaction
            there += range(header.base_offset, header.last_offset + 1)
    return np.setdiff1d(indexed, np.asarray(there, dtype=np.int64), assume_unique=True)
