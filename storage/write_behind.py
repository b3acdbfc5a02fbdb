"""Write-behind and checkpoints: moves batches from the WAL into segments, in rounds.

A round takes the logs in slices: plan on the loop (no I/O), write in the thread, apply on the loop, next slice. A
checkpoint round also syncs what it and earlier rounds wrote, then writes the checkpoint, then recycles WAL files. Each
log is cut at its own moment: its state (offset, producers) is taken together with its log end offset, and everything up
to there is awaited in the WAL and written before the checkpoint names it; replay is idempotent by offset.
"""

import errno
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storage.checkpoint import Checkpoint, pack_log, write_checkpoint
from storage.clock import Clock
from storage.config import StorageConfig
from storage.errors import StorageFailure
from storage.file_system import FileSystem
from storage.flush_plan import plan_flush
from storage.log import LogKey, PartitionLog
from storage.log_services import FileChange, LogServices
from storage.segment import SegmentWrite
from storage.segment_writer import SegmentWriter
from storage.wal import Group
from storage.wal_files import WalFile, WalFiles
from storage.worker import InlineWorker, Worker

SLICE_LOGS = 64
"""Logs planned in one turn of the loop: about a millisecond."""
FLUSH_LOG_BYTES = 32 << 10
"""Worth a write of its own: with many busy logs a round waits until each has about this much."""
BACKLOG_BYTES = 16 << 20
"""Beyond it the loop writes behind itself: the thread does not get enough of a busy core, and the WAL would grow."""
COMPACTION_CHECKPOINT_S = 4.0
"""After a synced checkpoint, before another one only because compaction waits for it: a little less than the time between
two calls of `tick`, so that a closed segment is being compacted 10 s later. Kafka's cleaner looks every 15 s."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class _Cut:
    """One log's share of a round."""

    log: PartitionLog
    until_offset: int
    producers: list[list[object]] | None
    """None outside checkpoints."""


@dataclass(slots=True)
class _Round:
    checkpoint: bool
    queue: list[PartitionLog]
    replay_from: int = 0
    file_changes: int = 0
    """How many of those that wait are due with the checkpoint."""
    clean: bool = False
    sync: bool = False


class WriteBehind:
    """One round at a time. All methods run on the loop, except those named `_run_…`."""

    def __init__(
        self,
        config: StorageConfig,
        directory: Path,
        *,
        file_system: FileSystem,
        clock: Clock,
        worker: Worker,
        services: LogServices,
        wal_files: WalFiles,
        logs: dict[LogKey, PartitionLog],
        number: int,
        complete: Callable[[Callable[[], None]], None],
        run_later: Callable[[Callable[[], None]], None],
    ) -> None:
        self._config = config
        self._directory = directory
        self._file_system = file_system
        self._clock = clock
        self._worker = worker
        self._services = services
        self._wal_files = wal_files
        self._logs = logs
        self._complete = complete
        self._run_later = run_later
        self._writer = SegmentWriter(file_system, config.open_files_max)
        self._boot_id = file_system.boot_id()
        self._number = number
        self._round: _Round | None = None
        self._dirty: dict[PartitionLog, None] = {}
        """Logs with batches that are only in the WAL."""
        self._wanted: _Round | None = None
        self._preparing_spare = False
        self._removing = 0
        """Deleted logs whose directories the thread has yet to remove."""
        self._unflushed_bytes = 0
        """Since the last round began."""
        self._backlog_bytes = 0
        """In the WAL only."""
        self._checkpoint_bytes = 0
        self._checkpoint_time = self._sync_time = clock.monotonic()
        self._deadline = math.inf
        self.disk_full: OSError | None = None

    @property
    def idle(self) -> bool:
        """Whether no round is running or waiting."""
        return self._round is None and self._wanted is None

    def on_published(self, group: Group, size: int) -> None:
        """The WAL has written a group of `size` payload bytes."""
        dirty = self._dirty
        for log in group.end_offsets:
            dirty[log] = None  # type: ignore[index]  # the WAL knows logs only as Appended
        self._unflushed_bytes += size
        self._backlog_bytes += size
        self._checkpoint_bytes += size
        if self._unflushed_bytes >= self._config.flush_bytes and self.idle:
            self._request_if_due()

    def _request_if_due(self) -> None:
        config = self._config
        wanted = min(config.flush_bytes + len(self._dirty) * FLUSH_LOG_BYTES, config.checkpoint_bytes)
        if self._unflushed_bytes >= wanted:
            self.request(checkpoint=self._checkpoint_bytes >= config.checkpoint_bytes)

    def mark_dirty(self, log: PartitionLog) -> None:
        """Recovery found batches of this log in the WAL."""
        self._dirty[log] = None

    def distrust(self, directories: list[Path]) -> None:
        """The names in these directories may not be on the disk."""
        self._writer.distrust([self._directory, *directories])

    def request(self, *, checkpoint: bool, clean: bool = False, sync: bool = False) -> None:
        """Begin a round soon, or after the running one."""
        if self._services.wal.failed is not None:
            return
        if self._wanted is None:
            self._wanted = _Round(checkpoint, [], clean=clean)
            if self._round is None:
                self._run_later(self._begin)
        self._wanted.checkpoint |= checkpoint
        self._wanted.clean |= clean
        self._wanted.sync |= sync

    def tick(self, *, to_compact: bool = False) -> None:
        """Every few seconds: a checkpoint if one is due or compaction waits for it, another attempt after a full disk."""
        now = self._clock.monotonic()
        if to_compact and self.idle and now - self._sync_time >= COMPACTION_CHECKPOINT_S:
            self.request(checkpoint=True, sync=True)
        due = now - self._checkpoint_time >= self._config.checkpoint_interval_ms / 1000
        changed = self._dirty or self._services.changed or self._services.file_changes
        if self.idle and (self.disk_full is not None or (changed and due)):
            self.request(checkpoint=True)

    def checkpoint_now(self, drain: Callable[[], None]) -> None:
        """A synced checkpoint inside this call, before anything is appended; `drain` runs what has been completed.

        Raises OSError if the disk is full and StorageFailure if it fails.
        """
        worker, self._worker = self._worker, InlineWorker()
        self._sync_time = -math.inf
        try:
            self.request(checkpoint=True)
            drain()
        finally:
            self._worker = worker
        problem = self._services.wal.failed or self.disk_full
        if problem is not None:
            raise problem

    def finish_by(self, deadline: float) -> None:
        """From `deadline` on (monotonic, s) rounds stop where they are: the WAL is synced and holds the rest."""
        self._deadline = deadline

    def forget(self, log: PartitionLog) -> None:
        """A log has been deleted: nobody writes the rest of its tail to segments."""
        self._dirty.pop(log, None)
        tail = log.tail
        # Recovered batches were never counted.
        self._backlog_bytes = max(self._backlog_bytes - (tail.end_position - tail.start_position), 0)

    def remove_log(self, log: PartitionLog) -> None:
        """Remove a deleted log's files; its deletion is durable in the WAL."""
        self._removing += 1
        self._worker.submit(lambda: self._run_remove(log.directory))

    def _run_remove(self, directory: Path) -> None:
        try:
            self._writer.remove_directory(directory)
        except Exception as error:
            failure = StorageFailure(f"removing {directory} failed: {error!r}")
            self._complete(lambda: self._services.wal.fail(failure))
        self._complete(self._removed)

    def _removed(self) -> None:
        self._removing -= 1

    def close(self) -> None:
        """Close the files."""
        self._writer.close_all()

    # ------------------------------------------------------------------ rounds

    def _begin(self) -> None:
        if self._round is not None or self._wanted is None or self._services.wal.failed is not None:
            return
        current, self._wanted = self._wanted, None
        self._round = current
        services = self._services
        current.queue = list(self._dirty)
        self._dirty = {}
        self._unflushed_bytes = 0
        if current.checkpoint:
            current.sync = self._must_sync(current)
            unsynced = [log for log in self._logs.values() if log.dirty_segments] if current.sync else []
            current.queue = list({**services.changed, **dict.fromkeys(current.queue + unsynced)})
            services.changed = {}
            current.file_changes = len(services.file_changes)
            current.replay_from = services.wal.written_sequence + 1
            self._checkpoint_bytes = 0
            self._checkpoint_time = self._clock.monotonic()
        self._next_slice()

    def _must_sync(self, current: _Round) -> bool:
        now = self._clock.monotonic()
        # Under `os` the kernel decides: two checkpoint intervals bound what a power failure makes recovery read again.
        due = now - self._sync_time >= 2 * self._config.checkpoint_interval_ms / 1000
        if self._config.sync == "os" and not (current.clean or current.sync or due):
            return False
        self._sync_time = now
        return True

    def _next_slice(self) -> None:
        current = self._round
        if current is None or self._services.wal.failed is not None:
            return
        if self._clock.monotonic() >= self._deadline:
            self._end_round()
            return
        if not current.queue:
            if current.checkpoint:
                self._finish_checkpoint(current)
            else:
                self._end_round()
            return
        logs = [log for log in current.queue[:SLICE_LOGS] if not log.deleted]
        del current.queue[:SLICE_LOGS]
        if not current.checkpoint:
            self._write_slice([_Cut(log, log.high_watermark, None) for log in logs])
            return
        oldest_ms = self._clock.time_ms() - self._config.producer_id_expiration_ms
        cuts = []
        for log in logs:
            log.producers.expire(oldest_ms)
            cuts.append(_Cut(log, log.log_end_offset, log.producers.snapshot()))
        # The producers' state may include batches that are not durable yet: a checkpoint that remembers a batch which
        # a crash then loses would take the retry for a duplicate.
        self._services.wal.commit()
        self._services.wal.when_durable(
            self._services.wal.allocated_sequence,
            lambda error: self._write_slice(cuts) if error is None else None,
        )

    def _write_slice(self, cuts: list[_Cut]) -> None:
        current = self._round
        assert current is not None
        plans: list[tuple[_Cut, list[SegmentWrite]]] = []
        for cut in cuts:
            if cut.log.deleted:
                continue
            cut.log.flushing = True
            sync = current.checkpoint and current.sync
            plans.append((cut, plan_flush(cut.log, cut.until_offset, checkpoint=current.checkpoint, sync=sync)))
        # Not past a removal that the thread has yet to come to: it may be of the directory that is about to be written.
        if self._backlog_bytes > BACKLOG_BYTES and not self._removing:
            self._run_slice(plans)
        else:
            self._worker.submit(lambda: self._run_slice(plans))

    def _run_slice(self, plans: list[tuple[_Cut, list[SegmentWrite]]]) -> None:
        done: list[int] = []
        failure: Exception | None = None
        try:
            for _, writes in plans:
                done.append(0)
                for write in writes:
                    self._writer.execute(write)
                    done[-1] += 1
        except Exception as error:
            failure = error
        self._complete(lambda: self._apply_slice(plans, done, failure))

    def _apply_slice(
        self, plans: list[tuple[_Cut, list[SegmentWrite]]], done: list[int], failure: Exception | None
    ) -> None:
        current = self._round
        assert current is not None
        for position, (cut, writes) in enumerate(plans):
            log = cut.log
            log.flushing = False
            if log.deleted:
                continue
            finished = done[position] if position < len(done) else 0
            for write in writes[:finished]:
                log.apply_write(write)
                self._backlog_bytes -= write.size
            if finished < len(writes) or position >= len(done):
                self._dirty[log] = None
            elif cut.producers is not None:
                log.saved_state = pack_log(log, cut.producers, cut.until_offset)
            if cut.producers is None and finished:
                self._services.changed[log] = None
        if failure is None:
            self.disk_full = None
            self._next_slice()
        else:
            self._give_up(current, failure)

    def _give_up(self, current: _Round, failure: Exception) -> None:
        """A full disk is waited out; any other error may mean that synced data is gone, or the thread's state is wrong."""
        if not isinstance(failure, OSError) or failure.errno not in _DISK_FULL:
            self._services.wal.fail(StorageFailure(f"writing segments failed: {failure!r}"))
            return
        self.disk_full = failure
        self._dirty.update(dict.fromkeys(current.queue))
        self._services.changed.update(self._dirty)
        current.queue.clear()
        self._end_round()

    def _end_round(self) -> None:
        self._round = None
        if self._deadline == math.inf:
            self._prepare_spare()
        if not self._dirty:
            self._backlog_bytes = 0
        if self._wanted is not None:
            self._run_later(self._begin)
        elif self.disk_full is None:
            self._request_if_due()

    # ------------------------------------------------------------------ checkpoint

    def _finish_checkpoint(self, current: _Round) -> None:
        services = self._services
        self._number += 1
        boot_id = self._boot_id if self._config.sync == "os" else ""
        checkpoint = Checkpoint(
            self._number, current.replay_from, services.wal.active.generation.number, current.clean, boot_id,
            [log.saved_state for log in self._logs.values() if log.saved_state],
        )  # fmt: skip
        # An unsynced checkpoint may be lost, and the one before names these files.
        changes = services.file_changes[: current.file_changes] if current.sync else []
        recyclable = services.wal.recyclable(current.replay_from)
        self._worker.submit(lambda: self._run_checkpoint(current, checkpoint, changes, recyclable))

    def _run_checkpoint(
        self, current: _Round, checkpoint: Checkpoint, changes: list[FileChange], recyclable: list[WalFile]
    ) -> None:
        failure: Exception | None = None
        try:
            if current.sync:
                self._writer.sync(self._directory)
            write_checkpoint(self._file_system, self._directory, checkpoint, sync=current.sync)
            for change in changes:
                # A deleted log's files go with its directory, which may belong to the next topic of its name by now.
                if not change.log.deleted:
                    self._writer.change(change.path, change.renamed)
            while recyclable:
                self._wal_files.recycle(recyclable[0])
                del recyclable[0]
        except Exception as error:
            failure = error
        self._complete(lambda: self._checkpoint_done(current, changes, recyclable, failure))

    def _checkpoint_done(
        self, current: _Round, changes: list[FileChange], kept: list[WalFile], failure: Exception | None
    ) -> None:
        services = self._services
        services.wal.old_files[:0] = kept
        if failure is not None:
            # Everything is packed again next time; what was removed or recycled stays so.
            services.changed.update(dict.fromkeys(self._logs.values()))
            self._give_up(current, failure)
            return
        del services.file_changes[: len(changes)]
        for change in changes:
            if change.segment is not None:
                change.segment.staged = False
        # Also when there was nothing to write to a segment: it may be a WAL file that had no room.
        self.disk_full = None
        self._end_round()

    def _prepare_spare(self) -> None:
        """Have the next WAL file ready before the active one is full."""
        active = self._services.wal.active
        if self._wal_files.spares or self._preparing_spare or active.position * 2 < active.size:
            return
        self._preparing_spare = True
        self._worker.submit(self._run_prepare_spare)

    def _run_prepare_spare(self) -> None:
        try:
            self._wal_files.prepare_spare()
        except OSError as error:
            # Not fatal: the loop tries again when it needs the file, and refuses appends if it cannot have it.
            full = error
            self._complete(lambda: self._spare_failed(full))
        except Exception as error:
            failure = StorageFailure(f"preparing a WAL file failed: {error!r}")
            self._complete(lambda: self._services.wal.fail(failure))
        self._preparing_spare = False

    def _spare_failed(self, failure: OSError) -> None:
        self.disk_full = failure
