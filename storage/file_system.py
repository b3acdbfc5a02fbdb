"""The disk as a port: the only module of the broker that opens files of the data directory.

Tests replace it with a file system in memory that loses unsynced writes and crashes at any call.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from storage.errors import DirectoryLocked

Buffer = bytes | bytearray | memoryview

BUFFERS_PER_WRITE = 1024
"""IOV_MAX of Linux."""
_FALLOCATE_KEEP_SIZE = 1
_PROBE_BYTES = 128 << 10
"""Distance of the pages probed for residency: the kernel's default read-ahead window."""
_LOAD_BYTES = 1 << 20


class Mapping(Protocol):
    """A file's bytes as memory."""

    view: memoryview
    """uint8[size], read-only; follows later writes to the same bytes."""

    def idle(self) -> bool:
        """Whether nobody holds a slice of `view` any more."""
        ...

    def close(self) -> None:
        """Unmap, or leave that to the last slice of `view`."""
        ...


class File(Protocol):
    """An open file; every position and size is in bytes."""

    def write(self, buffers: Sequence[Buffer], position: int) -> int:
        """Write at most `BUFFERS_PER_WRITE` buffers back to back; returns how many bytes were written."""
        ...

    def read(self, position: int, size: int) -> bytes: ...
    def size(self) -> int: ...
    def truncate(self, size: int) -> None: ...

    def allocate(self, size: int) -> None:
        """Make the file `size` bytes long with its blocks reserved, reading as zeros where never written."""
        ...

    def reserve(self, position: int, size: int) -> None:
        """Reserve blocks without changing the file's size; a hint, ignored where not supported."""
        ...

    def sync(self) -> None:
        """Return when data and size are on the disk (fdatasync)."""
        ...

    def map(self, size: int) -> Mapping: ...

    def resident(self, position: int, size: int) -> bool:
        """Whether reading this range would probably not wait for the disk."""
        ...

    def load(self, position: int, size: int) -> None:
        """Bring the range into memory, without the GIL; for threads."""
        ...

    def duplicate(self) -> "File":
        """The same open file, closed independently."""
        ...

    def close(self) -> None: ...


class FileSystem(Protocol):
    """The operations of a directory tree that the engine uses."""

    def open(self, path: Path, *, create: bool = False) -> File: ...
    def exists(self, path: Path) -> bool: ...

    def list_directory(self, path: Path) -> dict[str, int]:
        """Names in a directory with their sizes in bytes (-1 for a directory); empty if there is none."""
        ...

    def make_directory(self, path: Path) -> None:
        """With parents; no error if it exists."""
        ...

    def sync_directory(self, path: Path) -> None: ...

    def sync_all(self, path: Path) -> None:
        """Return when every file and directory of the file system that holds `path` is on the disk."""
        ...

    def rename(self, source: Path, target: Path) -> None: ...
    def remove(self, path: Path) -> None: ...

    def remove_tree(self, path: Path) -> None:
        """No error if it does not exist."""
        ...

    def free_bytes(self, path: Path) -> int: ...
    def random_bytes(self, size: int) -> bytes: ...

    def boot_id(self) -> str:
        """Changes when the machine starts, that is when unsynced writes may have been lost."""
        ...

    def lock(self, path: Path) -> File:
        """Hold an exclusive lock until the returned file is closed; raises DirectoryLocked naming the holder's pid."""
        ...


class OsMapping:
    """mmap of a whole file, read-only: writing through a mapping costs six times a pwritev (hot-path research, part 3)."""

    __slots__ = ("_memory", "view")

    def __init__(self, descriptor: int, size: int) -> None:
        self._memory = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
        self.view = memoryview(self._memory)

    def idle(self) -> bool:
        """Whether nobody holds a slice of `view` any more."""
        self.view.release()
        try:
            # CPython refuses to resize a read-only mapping: with BufferError while views exist, otherwise with TypeError.
            # Unlike close() this keeps the mapping, and so its page tables (27 us per MB), for the next use of the file.
            self._memory.resize(len(self._memory))
        except BufferError:
            return False
        except TypeError:
            pass
        self.view = memoryview(self._memory)
        return True

    def close(self) -> None:
        """Unmap, or leave that to the last slice of `view`."""
        self.view.release()
        try:
            self._memory.close()
        except BufferError:
            return


class OsFile:
    """A file descriptor; writes are positional, so that a write can be repeated."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def write(self, buffers: Sequence[Buffer], position: int) -> int:
        """Write the buffers back to back; returns how many bytes were written."""
        return os.pwritev(self.descriptor, buffers, position)

    def read(self, position: int, size: int) -> bytes:
        """At most `size` bytes."""
        return os.pread(self.descriptor, size, position)

    def size(self) -> int:
        """Bytes."""
        return os.fstat(self.descriptor).st_size

    def truncate(self, size: int) -> None:
        """Cut, or extend with a hole."""
        os.ftruncate(self.descriptor, size)

    def allocate(self, size: int) -> None:
        """Reserve blocks up to `size` and make the file that long."""
        os.posix_fallocate(self.descriptor, 0, size)

    def reserve(self, position: int, size: int) -> None:
        """Reserved blocks make appending a third cheaper: 185 instead of 290 us per MB on ext4 (measured)."""
        if _fallocate is not None:
            _fallocate(self.descriptor, _FALLOCATE_KEEP_SIZE, position, size)

    def sync(self) -> None:
        """fdatasync."""
        os.fdatasync(self.descriptor)

    def map(self, size: int) -> OsMapping:
        """Map the first `size` bytes."""
        return OsMapping(self.descriptor, size)

    def resident(self, position: int, size: int) -> bool:
        """Probes one byte per read-ahead window with RWF_NOWAIT."""
        probe = bytearray(1)
        end = position + size
        try:
            for at in (*range(position, end, _PROBE_BYTES), end - 1):
                os.preadv(self.descriptor, [probe], at, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        return True

    def load(self, position: int, size: int) -> None:
        """Read and forget: page faults would hold the GIL, a read does not."""
        scratch = bytearray(min(size, _LOAD_BYTES))
        for at in range(position, position + size, _LOAD_BYTES):
            os.preadv(self.descriptor, [scratch], at)

    def duplicate(self) -> "OsFile":
        """dup()."""
        return OsFile(os.dup(self.descriptor))

    def close(self) -> None:
        """Close the descriptor; a mapping stays valid."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        """A cold read that nobody loads (a long poll that goes on waiting) leaves its duplicate to this."""
        self.close()


class OsFileSystem:
    """The real disk."""

    def open(self, path: Path, *, create: bool = False) -> OsFile:
        """Open for reading and writing."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return OsFile(os.open(path, flags, 0o644))

    def exists(self, path: Path) -> bool:
        """Whether there is a file or directory of that name."""
        return path.exists()

    def list_directory(self, path: Path) -> dict[str, int]:
        """Names with sizes in bytes, -1 for directories."""
        try:
            with os.scandir(path) as entries:
                return {entry.name: -1 if entry.is_dir() else entry.stat().st_size for entry in entries}
        except FileNotFoundError:
            return {}

    def make_directory(self, path: Path) -> None:
        """With parents."""
        path.mkdir(parents=True, exist_ok=True)

    def sync_directory(self, path: Path) -> None:
        """Make creations, renames and removals in the directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_all(self, path: Path) -> None:
        """syncfs, which reports write errors since Linux 5.8; sync() elsewhere."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _syncfs is None:
                os.sync()
            elif _syncfs(descriptor) != 0:
                raise OSError(ctypes.get_errno(), "syncfs failed", str(path))
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Atomically, replacing a file at the target."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file; no error if it is gone."""
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory with all it holds; no error if it is gone."""
        shutil.rmtree(path, ignore_errors=True)

    def free_bytes(self, path: Path) -> int:
        """Bytes that an ordinary user may still write."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize

    def random_bytes(self, size: int) -> bytes:
        """Unpredictable bytes."""
        return os.urandom(size)

    def boot_id(self) -> str:
        """Empty where the kernel does not tell."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""

    def lock(self, path: Path) -> OsFile:
        """flock: released by the kernel however the holder ends."""
        file = self.open(path, create=True)
        try:
            fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read(0, 32).decode(errors="replace").strip() or "unknown"
            file.close()
            raise DirectoryLocked(f"{path.parent} is in use by another broker (process {holder})") from None
        file.truncate(0)
        file.write([f"{os.getpid()}\n".encode()], 0)
        return file


def _find_function(name: str, *arguments: type[ctypes.c_int | ctypes.c_longlong]) -> "ctypes._NamedFuncPointer | None":
    """A function of the C library that Python does not offer; None where there is none."""
    try:
        function: ctypes._NamedFuncPointer = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (AttributeError, OSError):
        return None
    function.argtypes = arguments
    return function


# Python offers only posix_fallocate, which changes the file's size.
_fallocate = _find_function("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)
_syncfs = _find_function("syncfs", ctypes.c_int)
