"""What to write behind: a log's tail, cut into segments with their index entries. No I/O."""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from storage.aborted_transactions import ENTRY_BYTES
from storage.config import LogConfig
from storage.log import PartitionLog
from storage.segment import INDEX_ENTRY_BYTES, RELATIVE_OFFSET_MAX, TIME_ENTRY_BYTES, Segment, SegmentWrite
from storage.tail import Tail


def plan_flush(log: PartitionLog, until_offset: int, *, checkpoint: bool, sync: bool) -> list[SegmentWrite]:
    """Writes that bring all batches below `until_offset` into segments, at most one per segment.

    For a checkpoint also the indexes (and a sync) of every segment that changed since the last one.
    """
    tail = log.tail
    stop = tail.first_at_or_after(until_offset)
    writes: list[SegmentWrite] = []
    index = 0
    segment = log.segments[-1] if log.segments else None
    if stop and segment is not None and segment.offsets is None and not segment.sealed:
        log.load_indexes(segment)
    while index < stop:
        end = (
            _end_in_segment(tail, log.config, segment, index, stop)
            if segment is not None and not segment.sealed
            else index
        )
        if end == index:
            if segment is not None and not segment.sealed:
                writes.append(_empty_write(segment, seals=True))
            segment = Segment(log.directory, tail.base_offset(index))
            end = _end_in_segment(tail, log.config, segment, index, stop)
        assert segment is not None
        write = _segment_write(tail, segment, index, end, log.config.index_interval_bytes)
        writes.append(write)
        index = end
        if index < stop:
            write.seals = True
            segment = Segment(log.directory, tail.base_offset(index))
    if checkpoint:
        planned = {write.segment for write in writes}
        writes += [_empty_write(changed, seals=False) for changed in log.dirty_segments if changed not in planned]
    for write in writes:
        if checkpoint or write.seals:
            _add_indexes(write)
            _add_transaction_index(write, log)
            write.sync = sync
    return writes


def tail_closes_segment(segments: Sequence[Segment], tail: Tail, config: LogConfig) -> bool:
    """Whether a log with these segments has one more that is closed once its tail is in segments."""
    if not len(tail):
        return False
    newest = segments[-1] if segments else Segment(Path(), tail.start_offset)
    return newest.sealed or _end_in_segment(tail, config, newest, 0, len(tail)) < len(tail)


def _end_in_segment(tail: Tail, config: LogConfig, segment: Segment, index: int, stop: int) -> int:
    """Index after the last batch of the tail that still belongs to the segment; `index` if none does."""
    end = min(stop, tail.last_within(tail.position(index) + config.segment_bytes - segment.size))
    if segment.size == 0:
        end = max(end, index + 1)
    end = min(end, max(tail.first_at_or_after(segment.base_offset + RELATIVE_OFFSET_MAX), index + 1))
    if end <= index:
        return index
    first_timestamp = segment.first_timestamp if segment.first_timestamp >= 0 else tail.max_timestamps[index]
    limit = first_timestamp + config.roll_ms
    if max(tail.max_timestamps[index:end]) > limit:
        end = next(at for at in range(index, end) if tail.max_timestamps[at] > limit)
    return end


def _empty_write(segment: Segment, *, seals: bool) -> SegmentWrite:
    return SegmentWrite(
        segment, segment.size, [], 0, segment.end_offset, -1, -1, segment.end_offset,
        array("i"), array("i"), array("q"), array("i"), seals,
    )  # fmt: skip


def _segment_write(tail: Tail, segment: Segment, index: int, end: int, interval: int) -> SegmentWrite:
    start, stop = tail.position(index), tail.position(end)
    write = _empty_write(segment, seals=False)
    write.buffers = tail.buffers(start, stop)
    write.size = stop - start
    write.end_offset = tail.base_offset(end)
    write.first_timestamp = tail.max_timestamps[index]
    shift = segment.size - start
    indexed = segment.positions[-1] if segment.positions else 0
    last_time = segment.timestamps[-1] if segment.timestamps else -1
    largest, largest_offset = segment.max_timestamp, segment.max_timestamp_offset
    positions, timestamps = tail.positions, tail.max_timestamps
    done = index
    while done < end:
        # The first batch at least an interval behind the last indexed one; everything before it only counts for its time.
        entry, newest = done, timestamps[done]
        if positions[done] + shift - indexed < interval:
            entry = min(bisect_left(positions, indexed + interval - shift, done, end), end - 1)
            newest = max(timestamps[done : entry + 1])
        if newest > largest:
            largest = newest
            largest_offset = tail.base_offset(timestamps.index(newest, done) + 1) - 1
        done = entry + 1
        position = positions[entry] + shift
        if position - indexed >= interval:
            indexed = position
            write.offsets.append(tail.base_offset(entry + 1) - 1 - segment.base_offset)
            write.positions.append(indexed)
            if largest > last_time:
                write.timestamps.append(largest)
                write.time_offsets.append(largest_offset - segment.base_offset)
                last_time = largest
    write.max_timestamp, write.max_timestamp_offset = largest, largest_offset
    return write


def _add_transaction_index(write: SegmentWrite, log: PartitionLog) -> None:
    segment = write.segment
    entries = log.aborted.between(segment.base_offset, write.end_offset) if log.aborted else b""
    saved_bytes = segment.aborted_count * ENTRY_BYTES
    if len(entries) > saved_bytes:
        write.transaction_index = saved_bytes, entries[saved_bytes:]


def _add_indexes(write: SegmentWrite) -> None:
    segment = write.segment
    if segment.offsets is None:
        return
    write.index = segment.saved_index_count * INDEX_ENTRY_BYTES, segment.index_bytes(write.offsets, write.positions)
    write.time_index = (
        segment.saved_time_count * TIME_ENTRY_BYTES,
        segment.time_index_bytes(write.timestamps, write.time_offsets),
    )
