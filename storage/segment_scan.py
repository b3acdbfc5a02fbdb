"""Reading a segment's batches one by one, checking everything: after a power failure, and for `senselog check`."""

from protocol.record_batch import BatchHeader, crc_matches
from storage.file_system import FileSystem
from storage.log import PartitionLog
from storage.segment import BATCH_HEADER_BYTES, Segment


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
            segment.size += batch.size
            segment.end_offset = batch.last_offset + 1
            if segment.first_timestamp < 0:
                segment.first_timestamp = batch.max_timestamp
            if batch.max_timestamp > segment.max_timestamp:
                segment.max_timestamp, segment.max_timestamp_offset = batch.max_timestamp, batch.last_offset
            log.epochs.assign(batch.leader_epoch, batch.base_offset)
            log.leader_epoch = max(log.leader_epoch, batch.leader_epoch)
            # Older batches are in the producers' state of the checkpoint.
            if batch.producer_id >= 0 and batch.base_offset >= log.log_end_offset:
                log.producers.update(
                    batch.producer_id, batch.producer_epoch, batch.base_sequence, batch.last_offset_delta,
                    batch.base_offset, batch.max_timestamp, batch.max_timestamp,
                )  # fmt: skip
        segment.rebuild_indexes(view)
        view = memoryview(b"")
        mapping.close()
    finally:
        file.close()
    return segment
