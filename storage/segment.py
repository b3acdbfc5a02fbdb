"""One segment of a log: Kafka's `.log` file with its sparse offset and time indexes.

Files: `.log` record batches; `.index` (relative last offset i32, position i32) of one batch about every 4 KiB;
`.timeindex` (largest timestamp so far i64, relative last offset of its batch i32); `.txnindex` (`aborted_transactions`), only if
transactions were aborted. All as kafka-dump-log expects them.
"""

import contextlib
import struct
import sys
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from protocol.batch_header import BatchHeader
from protocol.errors import ErrorCode, KafkaError
from storage.file_system import File, FileSystem, Mapping

SEGMENT_ENDINGS = (".log", ".index", ".timeindex", ".txnindex")
"""In the order in which compaction's files are renamed: the others follow their log."""
RELATIVE_OFFSET_MAX = (1 << 31) - 1
"""Of a segment: its indexes hold offsets as int32 from the base offset on."""
INDEX_ENTRY_BYTES = 8
TIME_ENTRY_BYTES = 12
BATCH_HEADER_BYTES = 61
_BATCH_OVERHEAD = 12
"""Bytes of a batch that its length field does not count."""
_TIME_ENTRY = struct.Struct(">qi")
_unpack_base = struct.Struct(">qi").unpack_from
_unpack_delta = struct.Struct(">i").unpack_from
INDEX_INTERVAL_BYTES = 4096
"""For rebuilt indexes; Kafka's default of index.interval.bytes."""
STAGED_SUFFIX = ".cleaned"


class Segment:
    """State of one segment. Only the event loop changes it; the write-behind thread only touches the files."""

    __slots__ = (
        "aborted_count", "base_offset", "directory", "end_offset", "first_timestamp", "index_count", "max_timestamp",
        "max_timestamp_offset", "offsets", "positions", "revision", "saved_index_count", "saved_time_count", "sealed",
        "size", "staged", "time_count", "time_offsets", "timestamps",
    )  # fmt: skip

    def __init__(self, directory: Path, base_offset: int) -> None:
        self.directory = directory
        self.base_offset = base_offset
        self.end_offset = base_offset
        self.size = 0
        self.first_timestamp = -1
        """Largest timestamp of the first batch, ms: rolling by time counts from it, as in Kafka."""
        self.max_timestamp = -1
        self.max_timestamp_offset = base_offset
        """Last offset of the batch that holds max_timestamp."""
        self.sealed = False
        self.revision = 0
        """Not 0: made by a compaction, whose random number it is. Offsets may then be missing, but not the last one."""
        self.staged = False
        """Compaction's files still have names of their own: the segments that they replace are in the last checkpoint."""
        self.offsets: array[int] | None = array("i")
        """Relative last offsets of the indexed batches; None: not loaded, like the three below."""
        self.positions: array[int] = array("i")
        self.timestamps: array[int] = array("q")
        self.time_offsets: array[int] = array("i")
        self.index_count = 0
        self.time_count = 0
        self.saved_index_count = 0
        """Entries in the file; the rest is written at the next checkpoint, or when the segment is sealed."""
        self.saved_time_count = 0
        self.aborted_count = 0
        """Entries in the `.txnindex`."""

    @property
    def name(self) -> str:
        """File name without its ending."""
        return f"{self.base_offset:020d}"

    def path(self, ending: str) -> Path:
        """Of one of the segment's files (SEGMENT_ENDINGS)."""
        return self.directory / self.file_name(ending)

    def file_name(self, ending: str) -> str:
        """See `path`."""
        return self.staged_name(ending) if self.staged else self.name + ending

    def staged_name(self, ending: str) -> str:
        """Where compaction writes the file."""
        return f"{self.name}{ending}.{self.revision:08x}{STAGED_SUFFIX}"

    def locate(self, present: Container[str]) -> None:
        """Find out from the names in the directory whether the segment is still staged."""
        self.staged = self.revision != 0 and self.staged_name(".log") in present

    def state(self) -> list[int]:
        """For the checkpoint; see `restore`."""
        return [
            self.base_offset, self.end_offset, self.size, self.first_timestamp, self.max_timestamp,
            self.max_timestamp_offset, int(self.sealed), self.index_count, self.time_count, self.aborted_count,
            self.revision,
        ]  # fmt: skip

    @classmethod
    def restore(cls, directory: Path, state: list[int]) -> "Segment":
        """From a checkpoint; the indexes are loaded on first use."""
        segment = cls(directory, state[0])
        segment.end_offset, segment.size, segment.first_timestamp = state[1:4]
        segment.max_timestamp, segment.max_timestamp_offset = state[4:6]
        segment.sealed = bool(state[6])
        segment.index_count, segment.time_count = segment.saved_index_count, segment.saved_time_count = state[7:9]
        # Shorter in checkpoints from before there were transactions, and before there was compaction.
        segment.aborted_count, segment.revision, *_ = [*state[9:], 0, 0]
        segment.offsets = None
        return segment

    def extend(self, write: "SegmentWrite") -> None:
        """Account for batches that have been written to the files."""
        self.sealed = self.sealed or write.seals
        if not write.size:
            return
        assert self.offsets is not None
        self.size += write.size
        self.end_offset = write.end_offset
        if self.first_timestamp < 0:
            self.first_timestamp = write.first_timestamp
        if write.max_timestamp > self.max_timestamp:
            self.max_timestamp = write.max_timestamp
            self.max_timestamp_offset = write.max_timestamp_offset
        self.offsets.extend(write.offsets)
        self.positions.extend(write.positions)
        self.timestamps.extend(write.timestamps)
        self.time_offsets.extend(write.time_offsets)
        self.index_count = len(self.offsets)
        self.time_count = len(self.timestamps)

    def append(self, batch: BatchHeader, interval: int = INDEX_INTERVAL_BYTES) -> None:
        """Account for the batch that follows; the index gets an entry about every `interval` bytes."""
        assert self.offsets is not None
        position = self.size
        if self.first_timestamp < 0:
            self.first_timestamp = batch.max_timestamp
        if batch.max_timestamp > self.max_timestamp:
            self.max_timestamp, self.max_timestamp_offset = batch.max_timestamp, batch.last_offset
        if position - (self.positions[-1] if self.positions else 0) >= interval:
            self.offsets.append(batch.last_offset - self.base_offset)
            self.positions.append(position)
            if self.max_timestamp > (self.timestamps[-1] if self.timestamps else -1):
                self.timestamps.append(self.max_timestamp)
                self.time_offsets.append(self.max_timestamp_offset - self.base_offset)
        self.size = position + batch.size
        self.end_offset = batch.last_offset + 1
        self.index_count, self.time_count = len(self.offsets), len(self.timestamps)

    def load_indexes(self, file_system: FileSystem, log: memoryview) -> None:
        """Read the indexes, or rebuild them from the batches if a file is damaged: they are derived."""
        self.offsets, self.positions = array("i"), array("i")
        self.timestamps, self.time_offsets = array("q"), array("i")
        index = read_whole(file_system, self.path(".index"), self.index_count * INDEX_ENTRY_BYTES)
        times = read_whole(file_system, self.path(".timeindex"), self.time_count * TIME_ENTRY_BYTES)
        numbers = array("i", index)
        if sys.byteorder == "little":
            numbers.byteswap()
        self.offsets, self.positions = numbers[0::2], numbers[1::2]
        for timestamp, offset in _TIME_ENTRY.iter_unpack(times):
            self.timestamps.append(timestamp)
            self.time_offsets.append(offset)
        whole = len(self.offsets) == self.index_count and len(self.timestamps) == self.time_count
        if not whole or not _ascending(self.positions, self.size) or not _ascending(self.offsets, self.end_offset):
            self.rebuild_indexes(log)

    def rebuild_indexes(self, log: memoryview) -> None:
        """From the batches themselves."""
        rebuilt = Segment(self.directory, self.base_offset)
        while rebuilt.size < self.size:
            self.batch_at(log, rebuilt.size)
            rebuilt.append(BatchHeader(log, rebuilt.size))
        self.offsets, self.positions = rebuilt.offsets, rebuilt.positions
        self.timestamps, self.time_offsets = rebuilt.timestamps, rebuilt.time_offsets
        self.index_count, self.time_count = rebuilt.index_count, rebuilt.time_count
        # The files are rewritten from the start when the segment is next saved.
        self.saved_index_count = self.saved_time_count = 0

    def unload_indexes(self) -> None:
        """Free the memory of indexes that are complete and saved (2 MB per GiB of log)."""
        if self.sealed and self.saved_index_count == self.index_count and self.saved_time_count == self.time_count:
            self.offsets = None
            self.positions, self.timestamps, self.time_offsets = array("i"), array("q"), array("i")

    def index_bytes(self, more_offsets: "array[int]", more_positions: "array[int]") -> bytes:
        """The `.index` entries not yet in the file, then those of a write that is about to happen."""
        assert self.offsets is not None
        start = self.saved_index_count
        offsets, positions = self.offsets[start:] + more_offsets, self.positions[start:] + more_positions
        numbers = array("i", bytes(len(offsets) * INDEX_ENTRY_BYTES))
        numbers[0::2], numbers[1::2] = offsets, positions
        if sys.byteorder == "little":
            numbers.byteswap()
        return numbers.tobytes()

    def time_index_bytes(self, more_timestamps: "array[int]", more_offsets: "array[int]") -> bytes:
        """The `.timeindex` entries not yet in the file, then those of a write that is about to happen."""
        start = self.saved_time_count
        timestamps, offsets = self.timestamps[start:] + more_timestamps, self.time_offsets[start:] + more_offsets
        return b"".join(map(_TIME_ENTRY.pack, timestamps, offsets))

    def batch_at(self, log: memoryview, position: int) -> tuple[int, int]:
        """(base offset, size in bytes) of the batch at a position. KafkaError CORRUPT_MESSAGE if there is none."""
        if position + BATCH_HEADER_BYTES <= self.size:
            base_offset, length = _unpack_base(log, position)
            size = length + _BATCH_OVERHEAD
            if (
                self.base_offset <= base_offset < self.end_offset
                and size >= BATCH_HEADER_BYTES
                and position + size <= self.size
            ):
                return base_offset, size
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"{self.path('.log')}: no batch at byte {position}")

    def position_of(self, log: memoryview, offset: int) -> int:
        """Position of the first batch whose last offset is not below `offset`; the size if there is none."""
        assert self.offsets is not None
        index = bisect_right(self.offsets, offset - self.base_offset) - 1
        position = self.positions[index] if index >= 0 else 0
        while position < self.size:
            base_offset, size = self.batch_at(log, position)
            if base_offset + _unpack_delta(log, position + 23)[0] >= offset:
                break
            position += size
        return position

    def end_within(self, log: memoryview, start: int, limit: int) -> int:
        """Largest batch boundary in [start, limit]."""
        if limit >= self.size:
            return self.size
        index = bisect_right(self.positions, limit) - 1
        position = max(self.positions[index], start) if index >= 0 else start
        while True:
            end = position + self.batch_at(log, position)[1]
            if end > limit:
                return position
            position = end

    def position_before_time(self, log: memoryview, timestamp_ms: int) -> int:
        """A position before which every record is older than `timestamp_ms`."""
        index = bisect_right(self.timestamps, timestamp_ms - 1) - 1
        return self.position_of(log, self.base_offset + self.time_offsets[index]) if index >= 0 else 0


@dataclass(slots=True)
class SegmentWrite:
    """Batches on their way from the tail to a segment's files."""

    segment: Segment
    position: int
    buffers: list[memoryview]
    size: int
    end_offset: int
    first_timestamp: int
    max_timestamp: int
    max_timestamp_offset: int
    offsets: "array[int]"
    positions: "array[int]"
    timestamps: "array[int]"
    time_offsets: "array[int]"
    seals: bool = False
    index: tuple[int, bytes] | None = None
    """Where in the `.index` to write which bytes; None: not now."""
    time_index: tuple[int, bytes] | None = None
    transaction_index: tuple[int, bytes] | None = None
    sync: bool = False


def _load(file: File, position: int, size: int) -> None:
    try:
        file.load(position, size)
    finally:
        file.close()


def _load_files(file_system: FileSystem, paths: Sequence[Path]) -> None:
    for path in paths:
        # Compaction may have renamed it, or a small segment has none: then it is read on the loop, or made anew.
        with contextlib.suppress(FileNotFoundError):
            file = file_system.open(path)
            _load(file, 0, file.size())


def open_log(file_system: FileSystem, segment: Segment) -> File:
    """The segment's `.log`; in any thread."""
    try:
        return file_system.open(segment.path(".log"))
    except FileNotFoundError:
        # The thread that renames staged files is ahead of the loop, which has yet to hear of it.
        return file_system.open(segment.directory / f"{segment.name}.log")


def read_whole(file_system: FileSystem, path: Path, size: int) -> bytes:
    """Whole entries of an index file, at most `size` bytes; empty if it does not exist."""
    if size == 0 or not file_system.exists(path):
        return b""
    file = file_system.open(path)
    try:
        data = file.read(0, size)
    finally:
        file.close()
    return data if len(data) == size else b""


def _ascending(numbers: "array[int]", limit: int) -> bool:
    """Whether an index column can be right; a wrong entry that passes is caught by `batch_at`."""
    return not numbers or (numbers[0] >= 0 and numbers[-1] < limit and all(map(int.__lt__, numbers, numbers[1:])))


class OpenSegment:
    """A segment's `.log` opened for reading."""

    __slots__ = ("file", "mapped", "mapping")

    def __init__(self, file: File) -> None:
        self.file = file
        self.mapping: Mapping | None = None
        self.mapped = 0


class SegmentReaders:
    """Open segments of all logs, least recently used first; closing waits for nobody: slices keep their mapping."""

    def __init__(self, file_system: FileSystem, open_max: int) -> None:
        self._file_system = file_system
        self._open_max = open_max
        self._open: OrderedDict[Segment, OpenSegment] = OrderedDict()

    def view(self, segment: Segment) -> memoryview:
        """The segment's bytes, with its indexes loaded."""
        opened = self.opened(segment)
        if opened.mapping is None or opened.mapped < segment.size:
            if opened.mapping is not None:
                opened.mapping.close()
            opened.mapping = opened.file.map(segment.size)
            opened.mapped = segment.size
        view = opened.mapping.view
        if segment.offsets is None:
            segment.load_indexes(self._file_system, view)
        return view

    def opened(self, segment: Segment) -> OpenSegment:
        """The open file of a segment."""
        opened = self._open.get(segment)
        if opened is None:
            if len(self._open) >= self._open_max:
                oldest = next(iter(self._open))
                self.close(oldest)
                oldest.unload_indexes()
            opened = self._open[segment] = OpenSegment(open_log(self._file_system, segment))
        else:
            self._open.move_to_end(segment)
        return opened

    def load(self, segment: Segment, position: int, size: int) -> Callable[[], None] | None:
        """Brings a range of the log into memory, in a thread; None if it is there."""
        file = self.opened(segment).file
        if size <= 0 or file.resident(position, size):
            return None
        return partial(_load, file.duplicate(), position, size)

    def load_indexes(self, segment: Segment) -> Callable[[], None]:
        """Brings the index files into memory, in a thread."""
        paths = [segment.path(ending) for ending in SEGMENT_ENDINGS[1:3]]
        return partial(_load_files, self._file_system, paths)

    def close(self, segment: Segment) -> None:
        """Forget one segment (deleted, or too many are open)."""
        opened = self._open.pop(segment, None)
        if opened is not None:
            if opened.mapping is not None:
                opened.mapping.close()
            opened.file.close()

    def close_all(self) -> None:
        """At the end."""
        for segment in list(self._open):
            self.close(segment)
