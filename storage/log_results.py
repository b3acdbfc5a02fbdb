"""What appending to a log and reading from it give."""

from typing import NamedTuple, TypeAlias

from storage.file_system import File


class AppendResult(NamedTuple):
    """Where a batch went; `sequence` is what to wait for with `LogManager.when_durable`."""

    base_offset: int
    log_append_time_ms: int
    """-1 unless the log stamps records itself, or the batch is a duplicate (then its time), as in Kafka."""
    log_start_offset: int
    sequence: int


Appended: TypeAlias = tuple[int, int, int, int]
"""An AppendResult without names, which takes 0.2 µs less to make."""


class ReadResult:
    """Whole batches as they lie in the page cache; the first may start before the offset asked for."""

    __slots__ = ("_cold_ranges", "buffers", "next_offset", "size")

    def __init__(self, next_offset: int) -> None:
        self.buffers: list[memoryview] = []
        self.size = 0
        self.next_offset = next_offset
        self._cold_ranges: list[tuple[File, int, int]] = []

    @property
    def cold(self) -> bool:
        """Touching the buffers would wait for the disk: call `load` in a thread first."""
        return bool(self._cold_ranges)

    def add_cold(self, file: File, position: int, size: int) -> None:
        """This range of an open file, which the result takes over, has to be loaded first."""
        self._cold_ranges.append((file, position, size))

    def load(self) -> None:
        """Bring the buffers into memory, without the GIL."""
        for file, position, size in self._cold_ranges:
            file.load(position, size)
            file.close()
        self._cold_ranges = []
