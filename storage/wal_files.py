"""The WAL's files: preallocated, zero-filled, recycled, each use under a generation of its own.

A file gets its final name only after its header is on the disk, so a damaged header of a named file is damage, never a
crash. Recycled files are cheaper twice: their blocks exist (fdatasync 0.15 instead of 0.22 ms) and their pages are in
the page cache (75 instead of 190 us per MB written).
"""

import itertools
from collections import deque
from pathlib import Path

from storage.errors import CorruptStorage
from storage.file_system import File, FileSystem, Mapping
from storage.wal_frame import FILE_HEADER_BYTES, Generation, decode_file_header, encode_file_header

SUFFIX = ".wal"
DAMAGED_SUFFIX = ".damaged"
"""What a repair has set aside, here and among segments: nobody but a person removes it."""
SPARE_FILES_MAX = 4
"""Recycled files kept: one is in use while checkpoints free the others; more would only hold disk space."""
_ZEROS = bytes(256 << 10)
"""What a file is filled with at a time, hence the size of its blocks in the page cache, which each write looks through piece
by piece: with 1 MiB a frame of 200 bytes takes 1.5 us instead of 1.0, one of 16 KB 1.9 instead of 1.2, one of 128 KB 4.0
instead of 3.6; with 4 KiB the three take 0.8, 2.9 and 13 (ext4, Linux 6.18)."""


class WalFile:
    """One use of a file: header, then frames up to `position`."""

    __slots__ = ("file", "filled", "generation", "last_sequence", "mapping", "path", "position", "seed", "size")

    def __init__(self, path: Path, file: File, mapping: Mapping, generation: Generation, size: int) -> None:
        self.path = path
        self.file = file
        self.mapping = mapping
        self.generation = generation
        self.seed = generation.seed()
        self.size = size
        self.position = FILE_HEADER_BYTES
        """Where the next frame goes."""
        self.last_sequence = 0
        """Of the frames reserved in this file; 0 if none."""
        self.filled = True
        """Not by its frames alone: see `WalFiles.recycle`."""

    def close(self) -> None:
        """Release the descriptor; slices of the mapping stay valid."""
        self.mapping.close()
        self.file.close()


class WalFiles:
    """Creates, recycles and removes the files of one WAL directory. `durable`: sync before first use."""

    def __init__(self, file_system: FileSystem, directory: Path, file_bytes: int, *, durable: bool) -> None:
        self._file_system = file_system
        self._directory = directory
        self._file_bytes = file_bytes
        self._durable = durable
        self._numbers = itertools.count(1)
        self.spares: deque[WalFile] = deque()
        """Ready for use; filled by the write-behind thread, emptied by the loop."""

    def open_existing(self, *, tidy: bool = True, trusted: bool = True) -> list[WalFile]:
        """Files of earlier runs; `tidy` removes what a crash left half prepared.

        Raises CorruptStorage on a bad header, unless the files are not `trusted` because nothing was ever synced.
        """
        if tidy:
            self._file_system.make_directory(self._directory)
        found: list[WalFile] = []
        newest = 0
        for name, size in sorted(self._file_system.list_directory(self._directory).items()):
            path = self._directory / name
            if not name.endswith(SUFFIX):
                if tidy and not name.endswith(DAMAGED_SUFFIX):
                    self._file_system.remove(path)
                continue
            file = self._file_system.open(path)
            generation = decode_file_header(file.read(0, FILE_HEADER_BYTES))
            if generation is None and not trusted:
                file.close()
                if tidy:
                    self._file_system.remove(path)
                continue
            if generation is None:
                raise CorruptStorage(path, 0, "the header of this WAL file is not valid")
            # A power failure under storage.sync=os may bring back the header of a recycled file's earlier use.
            newest = max(newest, generation.number, int(name.removesuffix(SUFFIX)))
            found.append(WalFile(path, file, file.map(size), generation, size))
        self._numbers = itertools.count(newest + 1)
        return found

    def take(self, size: int) -> WalFile:
        """A file with room for `size` bytes behind its header. OSError when the disk is full."""
        needed = FILE_HEADER_BYTES + size
        if needed <= self._file_bytes and self.spares:
            return self.spares.popleft()
        generation, path, temporary = self._next()
        file = self._file_system.open(temporary, create=True)
        size = max(self._file_bytes, needed)
        try:
            # Reserved, not zero-filled: this happens on the loop, at the start and when write-behind is late.
            file.allocate(size)
        except OSError:
            file.close()
            self._file_system.remove(temporary)
            raise
        taken = self._finish(file, temporary, path, generation, size)
        taken.filled = False
        return taken

    def prepare_spare(self) -> None:
        """Create a zero-filled file (write-behind thread). OSError when the disk is full."""
        generation, path, temporary = self._next()
        file = self._file_system.open(temporary, create=True)
        try:
            position = 0
            while position < self._file_bytes:
                # A nearly full disk takes less than asked for, then nothing (ENOSPC).
                position += file.write([_ZEROS[: self._file_bytes - position]], position)
        except OSError:
            file.close()
            self._file_system.remove(temporary)
            raise
        self.spares.append(self._finish(file, temporary, path, generation, self._file_bytes))

    def recycle(self, file: WalFile) -> None:
        """A file whose frames are all checkpointed becomes a spare, or is removed (write-behind thread).

        One that was never zero-filled is not worth keeping: its blocks in the page cache are as small as the frames that
        made them, which costs a 16 KB batch 1 of 15 us for ever.
        """
        wanted = file.filled and file.size == self._file_bytes and len(self.spares) < SPARE_FILES_MAX
        if not wanted or not file.mapping.idle():
            # A slow consumer's socket may still hold slices: the bytes live until the last slice is gone.
            file.close()
            self._file_system.remove(file.path)
            return
        generation, path, temporary = self._next()
        self._file_system.rename(file.path, temporary)
        if self._durable:
            self._file_system.sync_directory(self._directory)
        self.spares.append(self._finish(file.file, temporary, path, generation, file.size, file.mapping))

    def discard(self, file: WalFile) -> None:
        """Remove a file that recovery does not want."""
        file.close()
        self._file_system.remove(file.path)

    def sync_directory(self) -> None:
        """Make removals durable."""
        self._file_system.sync_directory(self._directory)

    def close(self) -> None:
        """Close the spares; they are found again at the next start."""
        while self.spares:
            self.spares.popleft().close()

    def _next(self) -> tuple[Generation, Path, Path]:
        generation = Generation(next(self._numbers), self._file_system.random_bytes(8))
        name = f"{generation.number:020d}"
        return generation, self._directory / f"{name}{SUFFIX}", self._directory / f"{name}.new"

    def _finish(
        self, file: File, temporary: Path, path: Path, generation: Generation, size: int, mapping: Mapping | None = None
    ) -> WalFile:
        file.write([encode_file_header(generation)], 0)
        if self._durable:
            file.sync()
        self._file_system.rename(temporary, path)
        if self._durable:
            self._file_system.sync_directory(self._directory)
        return WalFile(path, file, mapping or file.map(size), generation, size)
