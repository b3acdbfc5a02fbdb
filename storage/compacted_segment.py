"""A segment in the making: what remains of neighbouring ones, written to staged files beside them."""

from array import array

from protocol.record_batch import BatchHeader
from storage.aborted_transactions import ENTRY_BYTES
from storage.file_system import Buffer, File, FileSystem
from storage.segment import SEGMENT_ENDINGS, Segment
from storage.segment_writer import write_all

_WRITE_BYTES = 512 << 10
_SYNC_BYTES = 16 << 20
"""Synced piece by piece: behind one sync of a gigabyte the WAL's would wait."""


class CompactedSegment:
    """Used by one thread; `finish` or `discard` at the end."""

    def __init__(self, file_system: FileSystem, source: Segment, revision: int, index_interval_bytes: int) -> None:
        self._file_system = file_system
        self._interval = index_interval_bytes
        self._source = source
        self.segment = Segment(source.directory, source.base_offset)
        self.segment.revision, self.segment.staged = revision, True
        self._file: File = file_system.open(self.segment.path(".log"), create=True)
        self._pending = bytearray()
        self._written = 0
        self._synced = 0

    def add(self, header: BatchHeader, batch: Buffer) -> None:
        """The batch that follows. OSError if the disk is full or fails."""
        self.segment.append(header, self._interval)
        self._pending += batch
        if len(self._pending) >= _WRITE_BYTES:
            self._write()

    def _write(self) -> None:
        write_all(self._file, [self._pending], self._written)
        self._pending = bytearray()
        self._written = self.segment.size
        if self._written - self._synced >= _SYNC_BYTES:
            self._file.sync()
            self._synced = self._written

    def finish(self, aborted: bytes) -> Segment:
        """Everything is on the disk when it returns, `aborted` as its `.txnindex`."""
        segment = self.segment
        self._write()
        self._file.sync()
        self._file.close()
        # Also when they are empty: they take the place of others.
        self._write_index(".index", segment.index_bytes(array("i"), array("i")))
        self._write_index(".timeindex", segment.time_index_bytes(array("q"), array("i")))
        if aborted or self._source.aborted_count:
            self._write_index(".txnindex", aborted)
        segment.aborted_count = len(aborted) // ENTRY_BYTES
        self._file_system.sync_directory(segment.directory)
        segment.saved_index_count, segment.saved_time_count = segment.index_count, segment.time_count
        segment.sealed = True
        segment.unload_indexes()
        return segment

    def _write_index(self, ending: str, content: bytes) -> None:
        file = self._file_system.open(self.segment.path(ending), create=True)
        try:
            write_all(file, [content], 0)
            file.sync()
        finally:
            file.close()

    def discard(self) -> None:
        """Nobody needs it."""
        self._file.close()
        remove_staged(self._file_system, self.segment)


def remove_staged(file_system: FileSystem, segment: Segment) -> None:
    """The files of a segment that did not become one."""
    for ending in SEGMENT_ENDINGS:
        file_system.remove(segment.directory / segment.staged_name(ending))
