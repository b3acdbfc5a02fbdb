"""The write-ahead log of all partitions: group commit.

Appends of one loop turn form a group; `commit` writes it as one frame with one pwritev of the callers' own buffers; the
sync policy then says when it is durable. Under `always` a thread syncs whatever has been written, while the loop
already writes the next group; 100 connections with one batch in flight share a sync (50 requests per fdatasync measured).

Everything but `_sync_loop` runs on the event loop.
"""

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from protocol.errors import ErrorCode, KafkaError
from storage.config import StorageConfig
from storage.errors import StorageFailure
from storage.file_system import Buffer
from storage.wal_files import WalFile, WalFiles
from storage.wal_frame import ENTRY_BYTES, FRAME_HEADER_BYTES, encode_frame_header, pack_entry
from storage.worker import Worker

ENTRIES_MAX = 1000
"""Per frame: header, payloads and table must fit one pwritev (IOV_MAX 1024)."""
_TABLE_ROOM = ENTRIES_MAX * ENTRY_BYTES

DurableCallback = Callable[[Exception | None], None]
logger = logging.getLogger(__name__)


class Appended(Protocol):
    """What the WAL tells a log: its batches below this offset are durable."""

    def advance_high_watermark(self, offset: int) -> None: ...


class Group:
    """The frame being filled."""

    __slots__ = ("buffers", "end_offsets", "file", "limit", "position", "sequence", "start", "table")

    def __init__(self, sequence: int, file: WalFile, limit: int) -> None:
        self.sequence = sequence
        self.file = file
        self.start = file.position
        self.position = self.start + FRAME_HEADER_BYTES
        """Where the next payload will lie in the file."""
        self.limit = limit
        self.buffers: list[Buffer] = [b""]
        """The frame's header goes first."""
        self.table: list[bytes] = []
        self.end_offsets: dict[Appended, int] = {}


class Wal:
    """Groups, frames, syncs and who waits for them. Sequences number the frames from 1."""

    def __init__(
        self,
        config: StorageConfig,
        files: WalFiles,
        worker: Worker,
        *,
        next_sequence: int,
        old_files: list[WalFile],
        run_later: Callable[[Callable[[], None]], None],
        complete: Callable[[Callable[[], None]], None],
        on_published: Callable[[Group, int], None],
        on_failure: Callable[[StorageFailure], None],
    ) -> None:
        self._config = config
        self._files = files
        self._worker = worker
        self._run_later = run_later
        self._complete = complete
        self._on_published = on_published
        self._on_failure = on_failure
        self._group_bytes = config.group_bytes
        self._always = config.sync == "always"
        self._syncs = config.sync != "os"
        self._next_sequence = next_sequence
        self._group: Group | None = None
        self._full_groups: list[Group] = []
        self._unpublished: deque[Group] = deque()
        self._waiters: dict[int, list[DurableCallback]] = {}
        self._syncing = False
        self._unsynced_files: list[WalFile] = []
        self.written_sequence = self.durable_sequence = next_sequence - 1
        self.synced_sequence = next_sequence - 1 if self._syncs else 0
        self.failed: StorageFailure | None = None
        self.old_files = old_files
        """No longer written to, oldest first; the checkpoint recycles them."""
        self.active: WalFile = files.take(_TABLE_ROOM)

    @property
    def allocated_sequence(self) -> int:
        """The newest frame that anything has been appended to."""
        return self._next_sequence - 1

    def add(
        self, topic_id: bytes, partition: int, base_offset: int, size: int, crc: int, leader_epoch: int, payload: Buffer
    ) -> Group:
        """Append one payload to the open group; it lies at `group.position - size` of `group.file`.

        The buffer is borrowed until `commit` returns. KafkaError KAFKA_STORAGE_ERROR if the disk is full: nothing changed.
        """
        group = self._group
        if group is None or group.position + size > group.limit or len(group.table) >= ENTRIES_MAX:
            group = self._open_group(size)
        group.position += size
        group.buffers.append(payload)
        group.table.append(pack_entry(topic_id, partition, base_offset, size, crc, leader_epoch))
        return group

    def reserve(self, count: int) -> None:
        """Make room for `count` deletions, each in a frame of its own; KafkaError KAFKA_STORAGE_ERROR, nothing changed then.

        They may go one file beyond `wal_bytes_max`: when no segment can be written any more, they are what frees space.
        """
        group, file = self._group, self.active
        end = file.position if group is None else group.position + _TABLE_ROOM
        needed = count * (FRAME_HEADER_BYTES + ENTRY_BYTES + 1) + FRAME_HEADER_BYTES + _TABLE_ROOM
        if end + needed > file.size:
            if group is not None:
                self._close_group(group)
            self._rotate(needed, self._config.wal_bytes_max + self._config.wal_file_bytes)

    def commit(self) -> None:
        """Write what has been appended: one pwritev per group, normally one group."""
        if self._group is None:
            # Groups may wait although none is open: the disk was full when the next one was asked for.
            if not self._full_groups:
                return
        else:
            self._full_groups.append(self._group)
        groups = self._full_groups
        self._full_groups = []
        self._group = None
        if self.failed is not None:
            return
        for group in groups:
            try:
                size = self._write(group)
            except (OSError, StorageFailure) as error:
                self.fail(StorageFailure(f"writing {group.file.path} failed: {error}"))
                return
            self.written_sequence = group.sequence
            self._unpublished.append(group)
            self._on_published(group, size)
        if not self._always:
            self._publish(self.written_sequence)
        if self._syncs and not self._syncing:
            self._syncing = True
            # Not at once: the other connections of this loop turn join the group.
            self._run_later(self._start_sync)

    def when_durable(self, sequence: int, callback: DurableCallback) -> None:
        """Call back (at once if possible) when frame `sequence` is durable under the policy, or with what went wrong."""
        if self.failed is not None:
            callback(self.failed)
        elif sequence <= self.durable_sequence:
            callback(None)
        else:
            self._waiters.setdefault(sequence, []).append(callback)

    def sync_now(self) -> None:
        """Write and, unless the kernel is trusted with it, sync everything in the caller; used at the end."""
        self.commit()
        if self._syncs and self.failed is None:
            self._sync_loop()

    def fail(self, error: StorageFailure) -> None:
        """The end: nothing is acknowledged any more."""
        if self.failed is not None:
            return
        self.failed = error
        waiters, self._waiters = self._waiters, {}
        for callbacks in waiters.values():
            _call(callbacks, error)
        self._on_failure(error)

    def recyclable(self, replay_from: int) -> list[WalFile]:
        """Take out the files that hold only frames before `replay_from`."""
        # A file that the sync thread still holds stays until the next checkpoint.
        held = set(self._unsynced_files)
        done = [file for file in self.old_files if file.last_sequence < replay_from and file not in held]
        self.old_files = [file for file in self.old_files if file not in done]
        return done

    def bytes_held(self) -> int:
        """Disk space of the files that a checkpoint would free, and the active one."""
        return sum(file.size for file in self.old_files) + self.active.size

    def close(self) -> None:
        """Close all files."""
        for file in (*self.old_files, self.active):
            file.close()
        self._files.close()

    def _open_group(self, size: int) -> Group:
        if self._group is not None:
            self._close_group(self._group)
        file = self.active
        if file.position + FRAME_HEADER_BYTES + size + _TABLE_ROOM > file.size:
            file = self._rotate(size, self._config.wal_bytes_max)
        sequence = file.last_sequence = self._next_sequence
        self._next_sequence = sequence + 1
        # Not min and max: calling them takes 0.2 µs, and of a few small requests each turn of the loop makes a group.
        limit = file.position + FRAME_HEADER_BYTES + (size if size > self._group_bytes else self._group_bytes)
        group = Group(sequence, file, limit if limit < file.size - _TABLE_ROOM else file.size - _TABLE_ROOM)
        self._group = group
        return group

    def _close_group(self, group: Group) -> None:
        self._full_groups.append(group)
        self._group = None
        group.file.position = group.position + len(group.table) * ENTRY_BYTES

    def _rotate(self, size: int, bytes_max: int) -> WalFile:
        if self.bytes_held() >= bytes_max:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "the disk is slower than the producers: the WAL is full")
        try:
            file = self._files.take(FRAME_HEADER_BYTES + size + _TABLE_ROOM)
        except OSError as error:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"no room for a WAL file: {error}") from error
        self.old_files.append(self.active)
        self.active = file
        return file

    def _write(self, group: Group) -> int:
        file = group.file
        table = b"".join(group.table)
        payload_bytes = group.position - group.start - FRAME_HEADER_BYTES
        buffers = group.buffers
        buffers[0] = encode_frame_header(
            file.seed, group.sequence, self.synced_sequence, payload_bytes, len(group.table), table
        )
        buffers.append(table)
        end = group.position + len(table)
        if file.position == group.start:
            file.position = end
        if self._syncs and (not self._unsynced_files or self._unsynced_files[-1] is not file):
            self._unsynced_files.append(file)
        written = file.file.write(buffers, group.start)
        if written != end - group.start:
            raise StorageFailure(f"short write: {written} of {end - group.start} bytes")
        group.buffers = []
        return payload_bytes

    def _publish(self, sequence: int) -> None:
        unpublished = self._unpublished
        while unpublished and unpublished[0].sequence <= sequence:
            group = unpublished.popleft()
            self.durable_sequence = group.sequence
            for log, end_offset in group.end_offsets.items():
                log.advance_high_watermark(end_offset)
            callbacks = self._waiters.pop(group.sequence, None)
            if callbacks is not None:
                _call(callbacks, None)

    def _start_sync(self) -> None:
        delay_ms = 0 if self._always else self._config.sync_interval_ms
        self._worker.submit(self._sync_loop, delay_ms / 1000)

    def _sync_loop(self) -> None:
        """Sync until nothing unsynced is left (sync thread)."""
        while True:
            target = self.written_sequence
            if target <= self.synced_sequence:
                self._syncing = False
                if self.written_sequence <= self.synced_sequence:
                    return
                continue
            files = list(self._unsynced_files)
            try:
                for file in files:
                    file.file.sync()
            except Exception as error:
                # Whatever it is: a thread that dies silently leaves every producer waiting.
                self._complete(partial(self.fail, StorageFailure(f"syncing the WAL failed: {error!r}")))
                return
            # The last one may have been written to meanwhile.
            del self._unsynced_files[: len(files) - 1]
            self.synced_sequence = target
            if not self._always:
                # What was written meanwhile waits for the next interval.
                self._complete(self._sync_again)
                return
            self._complete(self._publish_synced)

    def _sync_again(self) -> None:
        self._syncing = self.written_sequence > self.synced_sequence
        if self._syncing:
            self._start_sync()

    def _publish_synced(self) -> None:
        if self.failed is None:
            self._publish(self.synced_sequence)


def _call(callbacks: list[DurableCallback], error: StorageFailure | None) -> None:
    """Tell everybody who waits: what goes wrong for one of them is not the others' loss."""
    for callback in callbacks:
        try:
            callback(error)
        except Exception:
            logger.exception("a callback of the WAL failed")
