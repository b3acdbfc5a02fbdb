"""All logs of one data directory: opening and recovery, creating and deleting, commit, maintenance, checkpoint, closing."""

import contextlib
import queue
from collections.abc import Callable, Iterable
from pathlib import Path

import msgpack

from protocol.crc import crc32c
from protocol.errors import ErrorCode, KafkaError
from storage.checkpoint import REPAIRED_BOOT, Checkpoint, read_checkpoint, write_checkpoint
from storage.cleaner import Cleaner
from storage.clock import Clock
from storage.config import LogConfig, StorageConfig
from storage.errors import CorruptStorage, StorageFailure
from storage.file_system import FileSystem
from storage.log import LogKey, PartitionLog
from storage.log_services import LogServices
from storage.recovery import DirectoryCheck, Replay, ReplayedWal, replay_wal, restore_logs
from storage.retention import plan_retention, rolls_by_age
from storage.segment import SegmentReaders
from storage.wal import DurableCallback, Wal
from storage.wal_files import WalFiles
from storage.wal_frame import CREATE, DELETE
from storage.worker import ThreadWorker, Worker
from storage.write_behind import WriteBehind

CLOSE_FLUSH_S = 1.5
"""How long a clean stop writes segments; then the next start replays what is left. 2,000 new logs take 1 s on a quiet
machine and 7 s on a busy one, mostly to create their files; SIGTERM promises less than 5 s for everything."""
LOCK_NAME = ".lock"
WAL_DIRECTORY = "wal"
MAINTAINED_LOGS = 256
"""Logs looked at in one call of `maintain` (a millisecond): the next calls take the others."""
Post = Callable[[Callable[[], None]], None]


class LogManager:
    """See the module. Everything runs on the event loop, apart from threads for syncs, write-behind and compaction."""

    def __init__(
        self, directory: Path, config: StorageConfig, clock: Clock, file_system: FileSystem, post: Post,
        new_worker: Callable[[str], Worker],
    ) -> None:  # fmt: skip
        self._directory = directory
        self._config = config
        self._clock = clock
        self._file_system = file_system
        self._post = post
        self._lock = file_system.lock(directory / LOCK_NAME)
        self._logs: dict[LogKey, PartitionLog] = {}
        self._services = LogServices(SegmentReaders(file_system, config.open_files_max))
        self._sync_worker = new_worker("senselog-sync")
        self._write_worker = new_worker("senselog-write-behind")
        self._cleaner_worker = new_worker("senselog-cleaner")
        self._completions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wal_files = WalFiles(
            file_system, directory / WAL_DIRECTORY, config.wal_file_bytes, durable=config.sync != "os"
        )
        self._wal: Wal
        self._write_behind: WriteBehind
        self._cleaner = Cleaner(
            config,
            file_system=file_system,
            clock=clock,
            worker=self._cleaner_worker,
            services=self._services,
            complete=self._complete,
            on_idle=self.checkpoint,
        )
        self._closed = False
        self._wal_files_paced = max(2, config.wal_bytes_max // 2 // config.wal_file_bytes)
        self._pacing = False
        self._unmaintained: list[PartitionLog] = []
        self.failed: Exception | None = None
        """The disk failed: nothing is acknowledged any more."""
        self.loss: str | None = None
        """What a power failure under `storage.sync=os`, or a repair, has cost; for the broker to say once."""
        self.on_failure: Callable[[Exception], None] = lambda _: None

    @classmethod
    def open(
        cls,
        directory: Path,
        config: StorageConfig,
        *,
        clock: Clock,
        file_system: FileSystem,
        post: Post,
        new_worker: Callable[[str], Worker] = ThreadWorker,
    ) -> "LogManager":
        """Lock the directory and recover its logs.

        `post` runs a callback on the event loop, from any thread. Raises DirectoryLocked, CorruptStorage, OSError.
        """
        file_system.make_directory(directory)
        manager = cls(directory, config, clock, file_system, post, new_worker)
        try:
            manager._recover()
        except BaseException as error:
            manager._lock.close()
            if isinstance(error, CorruptStorage):
                error.directory = directory
            raise
        return manager

    # ------------------------------------------------------------------ logs

    def create_log(self, topic_id: bytes, topic: str, partition: int, config: LogConfig) -> PartitionLog:
        """The log of a partition, recovered if there is one on the disk. KafkaError KAFKA_STORAGE_ERROR if the disk is full."""
        log = self._logs.get((topic_id, partition))
        if log is None:
            log = self._new_log(topic_id, topic, partition)
            self._add_control(log, CREATE, [topic, log.leader_epoch])
            self._logs[log.key] = log
            self._services.changed[log] = None
        log.config = config
        return log

    def reserve_deletions(self, count: int) -> None:
        """`count` logs can be deleted in this turn, all of them; KafkaError KAFKA_STORAGE_ERROR if the WAL has no room."""
        self._wal.reserve(count)

    def delete_log(self, log: PartitionLog) -> None:
        """Delete a log and its files; its listeners are told (`log.deleted`). KafkaError: see `reserve_deletions`."""
        if log.deleted:
            return
        self._wal.reserve(1)
        self._add_control(log, DELETE, None)
        log.deleted = True
        self._logs.pop(log.key, None)
        self._services.changed.pop(log, None)
        self._cleaner.forget(log)
        for segment in log.segments:
            self._services.readers.close(segment)
        self._wal.commit()
        self._write_behind.forget(log)
        self._wal.when_durable(
            self._wal.allocated_sequence, lambda error: self._write_behind.remove_log(log) if error is None else None
        )
        log.notify()

    def get(self, topic_id: bytes, partition: int) -> PartitionLog | None:
        """None if there is no such log."""
        return self._logs.get((topic_id, partition))

    @property
    def cleaner(self) -> Cleaner:
        """Compaction, to be asked how it is getting on."""
        return self._cleaner

    def logs(self) -> Iterable[PartitionLog]:
        """All logs."""
        return self._logs.values()

    # ------------------------------------------------------------------ durability

    def commit(self) -> None:
        """Write what has been appended since the last call; borrowed buffers are free again when it returns."""
        self._wal.commit()
        if len(self._wal.old_files) >= self._wal_files_paced and not self._pacing and self._can_pace():
            self._pacing = True
            self._run_later(self._pace)

    def when_durable(self, sequence: int, callback: DurableCallback) -> None:
        """Call back when an append's sequence is durable under the sync policy (None), or cannot be any more (why)."""
        self._wal.when_durable(sequence, callback)

    def _pace(self) -> None:
        """The disk is slower than the producers: the loop waits for a checkpoint, so that they wait and do not fail."""
        self._pacing = False
        self._write_behind.request(checkpoint=True)
        try:
            while (
                len(self._wal.old_files) >= self._wal_files_paced and not self._write_behind.idle and self._can_pace()
            ):
                self._write_worker.wait()
                # What a checkpoint takes from the WAL must be durable, and its files must not wait for a sync.
                self._sync_worker.wait()
                self._drain()
        except StorageFailure as error:
            self._wal.fail(error)

    def _can_pace(self) -> bool:
        """No checkpoint comes to its end on a full disk: then the WAL's bound and `_check_space` refuse appends."""
        return self.failed is None and self._write_behind.disk_full is None

    def maintain(self) -> None:
        """Every few seconds: retention, rolling by age, compaction, free space, checkpoints."""
        if self.failed is not None or self._closed:
            return
        now_ms = self._clock.time_ms()
        if not self._unmaintained:
            self._unmaintained = list(self._logs.values())
        logs = self._unmaintained[-MAINTAINED_LOGS:]
        del self._unmaintained[-MAINTAINED_LOGS:]
        # Without room in the WAL a new log start waits. What makes room, and notices it, must go on.
        with contextlib.suppress(KafkaError):
            for log in logs:
                if log.segments and not log.flushing and not log.deleted:
                    self._maintain_log(log, now_ms)
        to_compact = any(log.config.compacts and self._cleaner.needs_checkpoint(log) for log in logs)
        self._cleaner.start()
        self._write_behind.tick(to_compact=to_compact)
        self._check_space()

    def checkpoint(self) -> None:
        """Begin a checkpoint in the background."""
        self._write_behind.request(checkpoint=True)

    def close(self) -> None:
        """Clean shutdown: write and sync everything, checkpoint, close. Blocks; callbacks run in the caller.

        What does not fit into `CLOSE_FLUSH_S` stays in the WAL, as durable as it was acknowledged.
        """
        if self._closed:
            return
        self._closed = True
        self._cleaner.close()
        self._write_behind.finish_by(self._clock.monotonic() + CLOSE_FLUSH_S)
        if self.failed is None:
            self._wal.sync_now()
        self._sync_worker.close()
        self._write_worker.close()
        self._drain()
        if self.failed is None:
            self._write_behind.request(checkpoint=True, clean=True)
            # The workers now run in this thread: the whole checkpoint happens inside.
            self._drain()
        self._write_behind.close()
        self._services.readers.close_all()
        self._wal.close()
        self._lock.close()

    # ------------------------------------------------------------------ inside

    def _recover(self) -> None:
        checkpoint = read_checkpoint(self._file_system, self._directory)
        trusted_wal = checkpoint is None or checkpoint.boot_id in ("", self._file_system.boot_id())
        trusted = trusted_wal or (checkpoint is not None and checkpoint.clean)
        wal_files = self._wal_files.open_existing(trusted=trusted_wal)
        # An earlier life may have been killed before it came to this.
        self._file_system.sync_directory(self._directory.parent)
        self._file_system.sync_directory(self._directory)
        if checkpoint is None:
            if wal_files:
                raise CorruptStorage(self._directory / "checkpoint", 0, "there is a WAL but no checkpoint")
            checkpoint = Checkpoint(0, 1, 0, clean=True, boot_id="")
            write_checkpoint(self._file_system, self._directory, checkpoint, sync=True)
        restore_logs(checkpoint, self._logs, self._new_log)
        check = DirectoryCheck(self._file_system, self._directory, self._services, trusted=trusted)
        if not trusted:
            check.drop_removed(self._logs)
            for log in self._logs.values():
                check.check(log)
        replay = Replay(self._logs, self._new_log, self._clock, trusted=trusted_wal, check=check)
        replayed = replay_wal(wal_files, checkpoint, replay.apply, trusted=trusted_wal)
        for log in self._logs.values():
            log.settle_start()
        check.remove_orphans(self._logs)
        if trusted:
            for log in self._logs.values():
                check.check(log)
        if replayed.frames or not trusted:
            # Readers may have seen what a crash took back (interval, os): a new epoch lets them notice (KIP-320).
            for log in self._logs.values():
                log.leader_epoch += 1
        self._start(checkpoint, replayed, replay)
        self._settle(replayed)
        if not trusted:
            # What recovery cut or left out must not be found again behind new batches that took its offsets.
            self._file_system.sync_all(self._directory)
            self._write_behind.checkpoint_now(self._drain)
            self.loss = _describe_loss(checkpoint, check, replay)

    def _settle(self, replayed: ReplayedWal) -> None:
        """Make durable what readers are about to see, and remove what must not come back; before the first append."""
        for file in replayed.stale:
            self._wal_files.discard(file)
        if self._config.sync != "os":
            for file in replayed.files:
                file.file.sync()
            self._wal_files.sync_directory()

    def _start(self, checkpoint: Checkpoint, replayed: ReplayedWal, replay: Replay) -> None:
        self._write_behind = WriteBehind(
            self._config,
            self._directory,
            file_system=self._file_system,
            clock=self._clock,
            worker=self._write_worker,
            services=self._services,
            wal_files=self._wal_files,
            logs=self._logs,
            number=checkpoint.number,
            complete=self._complete,
            run_later=self._run_later,
        )
        if self._config.sync == "os" and (checkpoint.clean or not checkpoint.boot_id):
            # From now on the WAL may be trusted only in this boot of the machine.
            if checkpoint.clean:
                # Its WAL held nothing, and may have been lost.
                checkpoint.wal_generation = 0
            checkpoint.boot_id, checkpoint.clean = self._file_system.boot_id(), False
            write_checkpoint(self._file_system, self._directory, checkpoint, sync=True)
        if not checkpoint.synced:
            self._write_behind.distrust([log.directory for log in self._logs.values() if log.segments])
        self._wal = self._services.wal = Wal(
            self._config,
            self._wal_files,
            self._sync_worker,
            next_sequence=replayed.next_sequence,
            old_files=replayed.files,
            run_later=self._run_later,
            complete=self._complete,
            on_published=self._write_behind.on_published,
            on_failure=self._fail,
        )
        for log in replay.touched:
            self._write_behind.mark_dirty(log)
            self._services.changed[log] = None
        if replayed.frames:
            self._write_behind.request(checkpoint=True)
        self._check_space()

    def _new_log(self, topic_id: bytes, topic: str, partition: int) -> PartitionLog:
        directory = self._directory / f"{topic}-{partition}"
        return PartitionLog(self._services, directory, topic_id, topic, partition, LogConfig())

    def _add_control(self, log: PartitionLog, kind: int, message: object) -> None:
        payload: bytes = msgpack.packb(message)
        self._wal.add(log.topic_id, log.partition, kind, len(payload), crc32c(payload), 0, payload)

    def _maintain_log(self, log: PartitionLog, now_ms: int) -> None:
        tail_bytes = log.tail.end_position - log.tail.start_position
        count = plan_retention(
            log.segments,
            log.config,
            log_start_offset=log.log_start_offset,
            tail_bytes=tail_bytes,
            now_ms=now_ms,
        )
        if count:
            log.remove_segments(count)
        elif rolls_by_age(log.segments[-1], log.config, now_ms):
            log.seal_last_segment()
        if log.config.compacts:
            self._cleaner.consider(log)

    def _check_space(self) -> None:
        """Below the limit appends are refused; reads and deletions go on, and it recovers by itself."""
        free = self._file_system.free_bytes(self._directory)
        refusal = None
        if self.failed is not None:
            refusal = f"storage failed: {self.failed}"
        elif free < self._config.min_free_bytes:
            refusal = (
                f"{free >> 20} MiB free in {self._directory}, storage.min.free is {self._config.min_free_bytes >> 20}"
            )
        elif self._write_behind.disk_full is not None:
            refusal = f"the disk is full: {self._write_behind.disk_full}"
        self._services.refusal = None if refusal is None else KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, refusal)

    def _fail(self, error: StorageFailure) -> None:
        self.failed = error
        self._services.refusal = KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(error))
        self.on_failure(error)

    def _run_later(self, callback: Callable[[], None]) -> None:
        """After this turn of the loop."""
        self._complete(callback)

    def _complete(self, callback: Callable[[], None]) -> None:
        """From any thread: run on the loop."""
        self._completions.put(callback)
        self._post(self._drain)

    def _drain(self) -> None:
        """Run what the threads have handed over."""
        while True:
            try:
                callback = self._completions.get_nowait()
            except queue.Empty:
                return
            callback()


def _describe_loss(checkpoint: Checkpoint, check: DirectoryCheck, replay: Replay) -> str:
    cause = "the machine stopped under storage.sync=os and what it had not written back is lost"
    if checkpoint.boot_id == REPAIRED_BOOT:
        cause = "damage was set aside"
    return (
        f"{cause}: {check.cut_bytes} bytes of segments cut, {replay.dropped} batches behind lost ones left out, "
        f"{len(check.orphans)} directories of lost logs set aside as *.orphan"
    )
