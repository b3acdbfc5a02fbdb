"""The files of an index directory: the only module under vector/index that touches the disk.

Rules: a file that others may read is written in full, fsynced and only then named by a manifest; the manifest is replaced
by temp + fsync + rename + fsync of the directory. Every file named anywhere has its size and CRC32C beside its name.
"""

import contextlib
import errno
import mmap
import os
import shutil
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
from fastcrc import crc32

DAMAGED_DIRECTORY = "damaged"
VERIFY_BYTES = 256 * 1024
"""Read at a time: they stay in the processor's cache."""
Buffer = bytes | bytearray | memoryview
LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EIO)
"""What the machine lacks, or its disk: libraries tell of that by its text alone, in the words that they have for damage too."""


class DamagedFile(Exception):
    """A file that is missing or short, whose checksum does not match, or that its library cannot read; the index sets it aside."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path.name}: {reason}")
        self.path = path
        self.reason = reason


@contextlib.contextmanager
def read_by(reader: str, path: Path) -> Iterator[None]:
    """For reading a file whose checksum is right: what `reader` refuses all the same, it would refuse for ever. Raises DamagedFile, and
    OSError where the machine is to blame."""
    try:
        yield
    except (RuntimeError, ValueError, LookupError, TypeError) as error:  # FAISS raises RuntimeError, tantivy ValueError
        said = str(error)
        code = next((code for code in LACKING if os.strerror(code) in said), None)
        if code is not None:
            raise OSError(code, said, str(path)) from error
        raise DamagedFile(path, f"{reader} cannot read it: {said}") from error


@dataclass(slots=True, frozen=True)
class FileReference:
    """A file as the manifest names it: size in bytes and CRC32C of the whole."""

    name: str
    size: int
    checksum: int


def checksum(data: Buffer) -> int:
    """CRC32C (Castagnoli) of `data`; 5 GB/s here, so verifying an index at start is bounded by the disk."""
    return int(crc32.iscsi(data))


def with_checksum(text: bytes) -> bytes:
    """First line: CRC32C of the rest, in hex. The rest: `text`, for people too."""
    return f"{checksum(text):08x}\n".encode() + text


def without_checksum(data: bytes) -> bytes | None:
    """The inverse; None when it is not what was written."""
    head, _, text = data.partition(b"\n")
    return text if head == f"{checksum(text):08x}".encode() else None


def sync_directory(directory: Path) -> None:
    """Makes names created, renamed or removed in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_directory(directory: Path) -> None:
    """Creates `directory` with its parents, durably: each name in each of them."""
    if not directory.is_dir():
        create_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


def file_names(directory: Path) -> list[str]:
    """Names of what lies in `directory` but the folder of damaged files, sorted."""
    return sorted(entry.name for entry in os.scandir(directory) if entry.name != DAMAGED_DIRECTORY)


def read(path: Path) -> bytes:
    """The whole file. Raises DamagedFile when it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DamagedFile(path, "missing") from None


def write_durable(path: Path, chunks: Iterable[Buffer]) -> FileReference:
    """Writes a new file and fsyncs it; the name becomes durable with the next sync of its directory."""
    size, state = 0, 0
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            size += len(chunk)
            state = int(crc32.iscsi(chunk, state))
        file.flush()
        os.fsync(file.fileno())
    return FileReference(path.name, size, state)


def replace_durable(path: Path, data: Buffer) -> None:
    """Replaces `path` atomically: a crash leaves the old content or the new, never a mix."""
    temporary = path.with_name(path.name + ".tmp")
    write_durable(temporary, [data])
    temporary.replace(path)
    sync_directory(path.parent)


def write_faiss(path: Path, index: Any) -> FileReference:
    """Writes a FAISS index and fsyncs it."""
    faiss.write_index(index, str(path))
    return sync_file(path.parent, path.name)


def sync_file(directory: Path, name: str) -> FileReference:
    """Fsyncs a file that a library has written; `name` may lead into a folder of `directory`."""
    descriptor = os.open(directory / name, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    data = map_file(directory / name)
    return FileReference(name, len(data), checksum(data))


def read_faiss(path: Path, *, mapped: bool = True) -> Any:
    """Opens a FAISS index memory-mapped: codes and neighbours stay in the page cache, not on the heap; else a copy of one's own.

    IO_FLAG_MMAP_IFC is the flag that works for HNSW and flat codes (research/vector-search.md 5.8). Never call `add` on
    the result: it aborts the process. Verify the checksum first: FAISS trusts what it reads. Raises DamagedFile, OSError.
    """
    with read_by("FAISS", path):
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)


def map_file(path: Path) -> memoryview:
    """The file memory-mapped read-only; stays valid after the file is unlinked. Raises DamagedFile when missing or empty."""
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise DamagedFile(path, "missing") from None
    except ValueError:
        raise DamagedFile(path, "empty") from None


def let_go(mapped: memoryview) -> None:
    """Makes the pages of `map_file`'s result resident no more; those that are needed again come back from the page cache."""
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.obj.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def verify(directory: Path, reference: FileReference) -> None:
    """Checks size and checksum by reading: of a mapping, all pages would stay resident. Raises DamagedFile."""
    path = directory / reference.name
    size, state, block = 0, 0, memoryview(bytearray(VERIFY_BYTES))
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(block):
                size, state = size + count, int(crc32.iscsi(block[:count], state))
    except FileNotFoundError:
        raise DamagedFile(path, "missing") from None
    if size != reference.size:
        raise DamagedFile(path, f"{size} bytes, expected {reference.size}")
    if state != reference.checksum:
        raise DamagedFile(path, "checksum does not match")


class PiecesFile:
    """A file of pieces of the same size, read one by one; stays readable after it is unlinked, and closes when nobody holds it."""

    def __init__(self, path: Path, first: int, size: int) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self._first = first
        self._size = size
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, pieces: Iterable[int]) -> bytes:
        """Those of these numbers, one after the other. Raises OSError."""
        descriptor, first, size = self._descriptor, self._first, self._size
        return b"".join([os.pread(descriptor, size, first + size * piece) for piece in pieces])


class AppendFile:
    """A file that only grows, for the journal of a growing segment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        existed = path.exists()
        self._file = path.open("ab", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size
        if not existed:  # a manifest is about to name it
            sync_directory(path.parent)

    def append_durable(self, chunks: Sequence[Buffer]) -> None:
        """Appends all of `chunks` and fsyncs. After an OSError nothing of them counts: the next call writes over what was torn."""
        descriptor = self._file.fileno()
        os.ftruncate(descriptor, self.size)
        data = memoryview(b"".join(chunks))
        size = self.size + len(data)
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
        self.size = size

    def close(self) -> None:
        self._file.close()


def truncate(path: Path, size: int) -> None:
    """Cuts a torn tail off, durably."""
    with path.open("r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def remove(directory: Path, names: Iterable[str]) -> None:
    """Removes files and folders; one that is already gone is fine. Not synced: what no manifest names is removed again at the next open."""
    for name in names:
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def set_aside(path: Path, *, copy: bool = False) -> None:
    """Moves (or copies) a damaged file or folder into the folder `damaged` beside it, for people to look at; replaces an older one."""
    if not path.exists():
        return
    target = path.parent / DAMAGED_DIRECTORY
    create_directory(target)
    if copy:
        shutil.copyfile(path, target / path.name)
    else:
        if path.is_dir():
            shutil.rmtree(target / path.name, ignore_errors=True)
        path.replace(target / path.name)
        sync_directory(path.parent)
    sync_directory(target)
