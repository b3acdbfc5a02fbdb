"""The newest batches of one log: acked, but so far only in the WAL. Where each of them lies, in flat arrays."""

from array import array
from bisect import bisect_left, bisect_right
from typing import Protocol

from storage.file_system import Mapping


class TailFile(Protocol):
    """A WAL file as far as its readers are concerned."""

    mapping: Mapping


class Tail:
    """Batches in offset order. *Positions* count the log's bytes from an arbitrary origin and are contiguous.

    A run is a stretch of positions that is contiguous in one WAL file too, so that one producer's pipelined batches are
    read and written behind as one piece. Arrays of integers, not tuples: a million tuples cost the garbage collector
    22 ms per full collection (hot-path research, part 6).
    """

    __slots__ = (
        "_last_delta", "_last_file", "base_offsets", "end_offset", "end_position", "max_timestamps",
        "positions", "run_deltas", "run_files", "run_positions",
    )  # fmt: skip

    def __init__(self, end_offset: int) -> None:
        self.base_offsets = array("q")
        self.positions = array("q")
        self.max_timestamps = array("q")
        self.run_positions = array("q")
        self.run_deltas = array("q")
        self.run_files: list[TailFile] = []
        self.end_offset = end_offset
        self.end_position = 0
        self._last_file: TailFile | None = None
        self._last_delta = 0

    def __len__(self) -> int:
        return len(self.base_offsets)

    @property
    def start_offset(self) -> int:
        """Offsets below are in segments."""
        return self.base_offsets[0] if self.base_offsets else self.end_offset

    @property
    def start_position(self) -> int:
        """Position of the first batch."""
        return self.positions[0] if self.positions else self.end_position

    def add(
        self, base_offset: int, next_offset: int, size: int, max_timestamp: int, file: TailFile, file_position: int
    ) -> None:
        """A batch of `size` bytes at `file_position` of a WAL file."""
        position = self.end_position
        self.base_offsets.append(base_offset)
        self.positions.append(position)
        self.max_timestamps.append(max_timestamp)
        delta = file_position - position
        if delta != self._last_delta or file is not self._last_file:
            self.run_positions.append(position)
            self.run_deltas.append(delta)
            self.run_files.append(file)
            self._last_delta = delta
            self._last_file = file
        self.end_position = position + size
        self.end_offset = next_offset

    def batch_of(self, offset: int) -> int:
        """Index of the batch that holds `offset` (of the last one before it, after compaction)."""
        return bisect_right(self.base_offsets, offset) - 1

    def first_at_or_after(self, offset: int) -> int:
        """Index of the first batch whose base offset is not below `offset`."""
        return bisect_left(self.base_offsets, offset)

    def base_offset(self, index: int) -> int:
        """Of batch `index`; the end offset for the index after the last."""
        return self.base_offsets[index] if index < len(self.base_offsets) else self.end_offset

    def position(self, index: int) -> int:
        """Of batch `index`; the end position for the index after the last."""
        return self.positions[index] if index < len(self.positions) else self.end_position

    def last_within(self, position: int) -> int:
        """Index after the last batch that ends at or before `position`."""
        if position >= self.end_position:
            return len(self.positions)
        return max(bisect_right(self.positions, position) - 1, 0)

    def buffers(self, start: int, end: int) -> list[memoryview]:
        """The bytes at positions [start, end), as few pieces as possible, not copied."""
        pieces = []
        positions, deltas, files = self.run_positions, self.run_deltas, self.run_files
        run, last = bisect_right(positions, start) - 1, len(positions) - 1
        while start < end:
            stop = positions[run + 1] if run < last else end
            if stop > end:
                stop = end
            delta = deltas[run]
            pieces.append(files[run].mapping.view[start + delta : stop + delta])
            start = stop
            run += 1
        return pieces

    def drop(self, count: int) -> None:
        """Forget the first `count` batches: they are in a segment now."""
        del self.base_offsets[:count]
        del self.positions[:count]
        del self.max_timestamps[:count]
        if not self.positions:
            self.run_positions = array("q")
            self.run_deltas = array("q")
            self.run_files = []
            self._last_file = None
            return
        runs = bisect_right(self.run_positions, self.positions[0]) - 1
        if runs > 0:
            del self.run_positions[:runs]
            del self.run_deltas[:runs]
            del self.run_files[:runs]
