"""The write-behind thread's side: writes planned batches into segment files. Knows nothing of logs."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from storage.file_system import BUFFERS_PER_WRITE, Buffer, File, FileSystem
from storage.segment import SEGMENT_ENDINGS, Segment, SegmentWrite

_RESERVE_FROM_BYTES = 256 << 10
"""Writes as large as this announce a busy partition, worth reserving blocks for."""
SYNC_SINGLY_MAX = 32
"""Files synced one by one at 0.2 to 0.4 ms each; beyond, one syncfs of the file system is cheaper (50 files: 1 ms)."""
_RESERVE_BYTES = 4 << 20
_WRITE_BYTES_MAX = 1 << 20
"""Of one write. For larger ones the page cache takes larger blocks, whose memory is colder: with writes of 4 to 10 MB a
megabyte cost 1.5 to 2.1 ms instead of 0.2 (measured on ext4 in a virtual machine)."""


class _OpenSegment:
    __slots__ = ("file", "reserved")

    def __init__(self, file: File) -> None:
        self.file = file
        self.reserved = 0


class SegmentWriter:
    """Open files for writing, least recently used first; every write names its position, so it can be repeated."""

    def __init__(self, file_system: FileSystem, open_max: int) -> None:
        self._file_system = file_system
        self._open_max = open_max
        self._open: OrderedDict[Path, _OpenSegment] = OrderedDict()
        self._new_directories: dict[Path, None] = {}
        self._unsynced: dict[Path, None] = {}

    def execute(self, write: SegmentWrite) -> None:
        """Write one segment's share; OSError if the disk is full or fails."""
        segment = write.segment
        opened = self._opened(segment, new=write.position == 0)
        if write.size:
            if write.size >= _RESERVE_FROM_BYTES and write.position + write.size > opened.reserved:
                opened.file.reserve(write.position, max(write.size, _RESERVE_BYTES))
                opened.reserved = write.position + max(write.size, _RESERVE_BYTES)
            write_all(opened.file, write.buffers, write.position)
        if write.seals and opened.reserved:
            opened.file.truncate(write.position + write.size)
        for content, ending in (
            (write.index, ".index"),
            (write.time_index, ".timeindex"),
            (write.transaction_index, ".txnindex"),
        ):
            if content is not None and content[1]:
                self._write_index(segment.path(ending), content)
            if write.sync:
                # Also when it was written earlier, by a round without a checkpoint.
                self._unsynced[segment.path(ending)] = None
        if write.sync:
            self._unsynced[segment.path(".log")] = None
        if write.seals:
            self.close(segment.path(".log"))

    def distrust(self, directories: list[Path]) -> None:
        """Sync these, too, next time."""
        self._new_directories.update(dict.fromkeys(directories))

    def sync(self, directory: Path) -> None:
        """Make everything durable that was written with `sync`, and the names of all new files below `directory`."""
        if len(self._unsynced) + len(self._new_directories) > SYNC_SINGLY_MAX:
            self._file_system.sync_all(directory)
        else:
            for path in self._unsynced:
                self._sync_file(path)
            for changed in self._new_directories:
                self._file_system.sync_directory(changed)
        self._unsynced.clear()
        self._new_directories.clear()

    def _sync_file(self, path: Path) -> None:
        opened = self._open.get(path)
        if opened is not None:
            opened.file.sync()
            return
        if not self._file_system.exists(path):
            # A small segment has no index entries.
            return
        file = self._file_system.open(path)
        try:
            file.sync()
        finally:
            file.close()

    def close(self, path: Path) -> None:
        """Close one file; what was written to it still counts as unsynced."""
        opened = self._open.pop(path, None)
        if opened is not None:
            opened.file.close()

    def change(self, path: Path, renamed: Path | None) -> None:
        """Rename a file over another, or remove it: no checkpoint needs it any more as it is. Can be repeated."""
        for changed in (path, renamed or path):
            self.close(changed)
            self._unsynced.pop(changed, None)
        if renamed is None:
            self._file_system.remove(path)
        elif self._file_system.exists(path):
            self._file_system.rename(path, renamed)

    def remove_directory(self, directory: Path) -> None:
        """A deleted log's files."""
        for path in [path for path in self._open if path.parent == directory]:
            self.close(path)
        self._new_directories.pop(directory, None)
        self._unsynced = {path: None for path in self._unsynced if path.parent != directory}
        self._file_system.remove_tree(directory)

    def close_all(self) -> None:
        """At the end."""
        for path in list(self._open):
            self.close(path)

    def _opened(self, segment: Segment, *, new: bool) -> _OpenSegment:
        path = segment.path(".log")
        opened = self._open.get(path)
        if opened is not None and not new:
            self._open.move_to_end(path)
            return opened
        if new:
            self.close(path)
            self._file_system.make_directory(segment.directory)
            self._new_directories[segment.directory] = None
            self._new_directories[segment.directory.parent] = None
        if len(self._open) >= self._open_max:
            self.close(next(iter(self._open)))
        opened = self._open[path] = _OpenSegment(self._file_system.open(path, create=new))
        if new:
            # What an earlier life of the broker left under this name was never part of the log.
            opened.file.truncate(0)
            for ending in SEGMENT_ENDINGS[1:]:
                self._file_system.remove(segment.path(ending))
        return opened

    def _write_index(self, path: Path, content: tuple[int, bytes]) -> None:
        position, data = content
        file = self._file_system.open(path, create=True)
        try:
            if position == 0:
                file.truncate(0)
                self._new_directories[path.parent] = None
            write_all(file, [data], position)
        finally:
            file.close()


def write_all(file: File, buffers: Sequence[Buffer], position: int) -> None:
    """All buffers back to back, however many and however short the single writes are."""
    for chunk in _chunks(buffers):
        size = sum(map(len, chunk))
        written = file.write(chunk, position)
        if written < size:
            data = b"".join(chunk)
            while written < size:
                written += file.write([memoryview(data)[written:]], position + written)
        position += size


def _chunks(buffers: Sequence[Buffer]) -> Iterator[list[Buffer]]:
    """The buffers in writes of at most BUFFERS_PER_WRITE buffers and about _WRITE_BYTES_MAX bytes."""
    chunk: list[Buffer] = []
    room = _WRITE_BYTES_MAX
    for buffer in buffers:
        if len(buffer) <= room and len(chunk) < BUFFERS_PER_WRITE:  # as nearly all do
            chunk.append(buffer)
            room -= len(buffer)
            continue
        for start in range(0, len(buffer), _WRITE_BYTES_MAX):
            piece = buffer if len(buffer) <= _WRITE_BYTES_MAX else memoryview(buffer)[start : start + _WRITE_BYTES_MAX]
            if chunk and (len(piece) > room or len(chunk) == BUFFERS_PER_WRITE):
                yield chunk
                chunk, room = [], _WRITE_BYTES_MAX
            chunk.append(piece)
            room -= len(piece)
    if chunk:
        yield chunk
