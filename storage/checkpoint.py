"""The checkpoint: what every log looked like, and from which WAL frame on recovery has to replay.

Written as a whole: temporary file, sync, rename, directory sync. A log that has not changed since the last one is not
packed again; its bytes are kept (`PartitionLog.saved_state`).

There are two of them. `checkpoint` describes data that is on the disk. With `storage.sync=os` a second one,
`checkpoint.unsynced`, lets the WAL be recycled without waiting for the disk: it is believed only in the same boot of the
machine, while the page cache that it describes cannot have been lost.
"""

from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from protocol.crc import crc32c
from storage.errors import CorruptStorage
from storage.file_system import FileSystem
from storage.log import PartitionLog
from storage.segment import Segment

NAME = "checkpoint"
UNSYNCED_NAME = "checkpoint.unsynced"
REPAIRED_BOOT = "repaired"
"""Instead of a boot id: it equals no machine's, so that the next start trusts nothing it has not read."""
_MAGIC = b"SLCK"
_FORMAT = 1


@dataclass(slots=True)
class Checkpoint:
    """Decoded, except for the logs."""

    number: int
    replay_from: int
    """First WAL sequence that may hold something the logs below do not."""
    wal_generation: int
    """Of the file that was being written: it must still be there."""
    clean: bool
    """Written by a clean shutdown: nothing follows in the WAL."""
    boot_id: str
    """Of the machine's boot in which the WAL and newer segments may be trusted; empty: always (they are synced in time)."""
    states: list[bytes] = field(default_factory=list)
    synced: bool = True
    """What it names is on the disk."""


def pack_log(log: PartitionLog, producers: list[list[object]], end_offset: int) -> bytes:
    """One log's state at `end_offset`, up to which its batches are in segments."""
    state = [
        log.topic_id, log.topic, log.partition, log.log_start_offset, end_offset, log.leader_epoch,
        log.epochs.entries(), [segment.state() for segment in log.segments], producers, log.cleaned_offset,
    ]  # fmt: skip
    packed: bytes = msgpack.packb(state)
    return packed


@dataclass(slots=True)
class LogState:
    """One log in a checkpoint."""

    topic_id: bytes
    topic: str
    partition: int
    log_start_offset: int
    end_offset: int
    leader_epoch: int
    epochs: list[list[int]]
    segments: list[list[int]]
    producers: list[Any]
    cleaned_offset: int = 0


def unpack_log(state: bytes) -> LogState:
    """See `pack_log`."""
    return LogState(*msgpack.unpackb(state))


def pack_state(state: LogState) -> bytes:
    """The opposite of `unpack_log`."""
    packed: bytes = msgpack.packb(list(astuple(state)))
    return packed


def restore_log(log: PartitionLog, state: LogState, packed: bytes) -> None:
    """Give a new log object the state of a checkpoint."""
    log.leader_epoch = state.leader_epoch
    log.log_start_offset = state.log_start_offset
    log.high_watermark = log.log_end_offset = log.tail.end_offset = state.end_offset
    log.epochs = type(log.epochs)([(epoch, offset) for epoch, offset in state.epochs])
    log.segments = [Segment.restore(log.directory, segment) for segment in state.segments]
    log.producers.restore(state.producers)
    log.cleaned_offset = state.cleaned_offset
    log.saved_state = packed


def write_checkpoint(file_system: FileSystem, directory: Path, checkpoint: Checkpoint, *, sync: bool) -> None:
    """Replace the checkpoint atomically; OSError if that was not possible (the old one then still holds)."""
    header = [
        checkpoint.number, checkpoint.replay_from, checkpoint.wal_generation, checkpoint.clean, checkpoint.boot_id,
        len(checkpoint.states),
    ]  # fmt: skip
    body = b"".join([msgpack.packb(header), *checkpoint.states])
    data = _MAGIC + bytes([_FORMAT]) + crc32c(body).to_bytes(4, "big") + body
    path = directory / (NAME if sync else UNSYNCED_NAME)
    temporary = path.with_name(path.name + ".new")
    file = file_system.open(temporary, create=True)
    try:
        file.truncate(0)
        written = 0
        while written < len(data):
            written += file.write([memoryview(data)[written:]], written)
        if sync:
            file.sync()
    finally:
        file.close()
    file_system.rename(temporary, path)
    if sync:
        file_system.sync_directory(directory)


def read_checkpoint(file_system: FileSystem, directory: Path) -> Checkpoint | None:
    """The newest one that holds; None in a new directory. CorruptStorage if it is damaged."""
    synced = _read(file_system, directory / NAME)
    try:
        unsynced = _read(file_system, directory / UNSYNCED_NAME)
    except CorruptStorage:
        unsynced = None
    if unsynced is None or not unsynced.boot_id or unsynced.boot_id != file_system.boot_id():
        return synced
    if synced is not None and synced.number > unsynced.number:
        return synced
    unsynced.synced = False
    return unsynced


def _read(file_system: FileSystem, path: Path) -> Checkpoint | None:
    if not file_system.exists(path):
        return None
    file = file_system.open(path)
    try:
        data = file.read(0, file.size())
    finally:
        file.close()
    body = data[9:]
    if data[:4] != _MAGIC or data[4] != _FORMAT or int.from_bytes(data[5:9], "big") != crc32c(body):
        raise CorruptStorage(path, 0, "the checkpoint's magic, format or checksum is wrong")
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(body)
    number, replay_from, generation, clean, boot_id, count = unpacker.unpack()
    states = []
    position = unpacker.tell()
    for _ in range(count):
        unpacker.skip()
        states.append(body[position : unpacker.tell()])
        position = unpacker.tell()
    return Checkpoint(number, replay_from, generation, clean, boot_id, states)
