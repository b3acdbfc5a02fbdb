"""Reading a log's batches one by one: after a power failure, and where an index of transactions is damaged."""

from collections.abc import Iterator

from protocol.record_batch import BatchHeader, crc_matches
from storage.aborted_transactions import AbortedTransactions
from storage.file_system import FileSystem
from storage.log import PartitionLog
from storage.producer_state import ProducerState
from storage.segment import BATCH_HEADER_BYTES, Segment, open_log


def scan_segment(file_system: FileSystem, segment: Segment, size: int, log: PartitionLog) -> Segment:
    """Give the segment the size and offsets of its longest valid prefix; producers and epochs are told."""
    if size == 0:
        return segment
    file = file_system.open(segment.path(".log"))
    try:
        mapping = file.map(size)
        view = mapping.view
        while segment.size + BATCH_HEADER_BYTES <= size:
            batch = BatchHeader(view, segment.size)
            whole = batch.magic == 2 and BATCH_HEADER_BYTES <= batch.size <= size - segment.size
            if not whole or batch.base_offset < segment.end_offset or not crc_matches(view, batch):
                break
            data = view[segment.size : segment.size + batch.size]
            segment.append(batch)
            log.epochs.assign(batch.leader_epoch, batch.base_offset)
            log.leader_epoch = max(log.leader_epoch, batch.leader_epoch)
            # Older batches are in the producers' state of the checkpoint.
            if batch.base_offset >= log.log_end_offset:
                log.take_up(batch, data, batch.max_timestamp)
        view = data = memoryview(b"")
        mapping.close()
    finally:
        file.close()
    return segment


def rebuild_transactions(file_system: FileSystem, log: PartitionLog) -> None:
    """Find the open and the aborted transactions by reading the headers of all batches; the indexes are written anew."""
    state = ProducerState()
    log.aborted = AbortedTransactions()
    for segment in log.segments:
        segment.aborted_count = 0
        log.dirty_segments[segment] = None
    for data in _batches(file_system, log):
        batch = BatchHeader(data)
        if batch.transactional:
            aborted = state.take_up(batch, data, batch.max_timestamp)
            if aborted is not None:
                log.aborted.add(aborted)
    log.producers.open_transactions = state.open_transactions


def _batches(file_system: FileSystem, log: PartitionLog) -> Iterator[memoryview]:
    for segment in log.segments:
        if not segment.size:
            continue
        file = open_log(file_system, segment)
        try:
            view, position = memoryview(file.read(0, segment.size)), 0
        finally:
            file.close()
        while position < segment.size:
            size = segment.batch_at(view, position)[1]
            yield view[position : position + size]
            position += size
    for index in range(len(log.tail)):
        yield from log.tail.buffers(log.tail.position(index), log.tail.position(index + 1))
