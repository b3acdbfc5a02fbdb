"""Compaction under way: one log at a time, in a thread of its own, in small steps with pauses.

The thread reads segments and writes staged ones; the loop swaps them in, and with the next checkpoint their files take
the place of the old ones (`PartitionLog.replace_segments`). Until that checkpoint is on the disk a crash brings the old
segments back, and what was staged is removed; readers keep the mappings that they have.
"""

import errno
import logging
from bisect import bisect_left
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import BatchHeader, crc_matches
from protocol.record_keys import read_keys
from storage.aborted_transactions import AbortedTransaction, AbortedTransactions
from storage.clock import Clock
from storage.compacted_segment import CompactedSegment, remove_staged
from storage.compaction import CompactionPlan, group_segments, plan_compaction
from storage.compaction_filter import CompactedTransactions, CompactionFilter, ProducerEnds
from storage.config import LogConfig, StorageConfig
from storage.errors import StorageFailure
from storage.file_system import FileSystem
from storage.flush_plan import tail_closes_segment
from storage.log import PartitionLog
from storage.log_services import LogServices
from storage.offset_map import OffsetMap
from storage.segment import BATCH_HEADER_BYTES, Segment, open_log
from storage.worker import Worker

STEP_S = 0.001
"""How long the thread may hold the GIL: the loop waits for it at most this long."""
PAUSE_RATIO = 3
"""Pauses for each time of work: producers and consumers keep three quarters of the core that the GIL is worth."""
BACKOFF_S = 15.0
"""After a full disk; Kafka's log.cleaner.backoff.ms."""
READ_BYTES = 1 << 20
_PREFIX_BYTES = 12

Replaced = Callable[[tuple[Segment, ...], Segment, bytes], None]
logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Run:
    """One plan in progress."""

    log: PartitionLog
    steps: Iterator[int]
    newest: OffsetMap
    whole: bool = True
    """Whatever was replaced so far is in the log."""


@dataclass(slots=True)
class CompactionCounters:
    """Since the start."""

    runs: int = 0
    moved_bytes: int = 0
    """Read and written."""
    busy_s: float = 0.0
    """Without the pauses."""


class Cleaner:
    """All methods run on the loop, except those named `_run_…`."""

    def __init__(
        self,
        config: StorageConfig,
        *,
        file_system: FileSystem,
        clock: Clock,
        worker: Worker,
        services: LogServices,
        complete: Callable[[Callable[[], None]], None],
        on_idle: Callable[[], None],
    ) -> None:
        self._config = config
        self._file_system = file_system
        self._clock = clock
        self._worker = worker
        self._services = services
        self._complete = complete
        self._on_idle = on_idle
        """Called when something was compacted and nothing else waits for it."""
        self._waiting: dict[PartitionLog, float] = {}
        """Logs worth compacting, with their dirty ratio when they were last looked at."""
        self._uncleanable: set[PartitionLog] = set()
        """Damaged; nobody tries again before the next start, as in Kafka."""
        self.counters = CompactionCounters()
        self._run: _Run | None = None
        self._not_before = 0.0
        self._closing = False

    @property
    def waiting(self) -> int:
        """Logs that are worth compacting, or are being compacted."""
        return len(self._waiting) + (self._run is not None)

    @property
    def damaged(self) -> int:
        """Logs that are not compacted because they are damaged."""
        return len(self._uncleanable)

    def consider(self, log: PartitionLog) -> None:
        """Put the log on the list if it is worth compacting."""
        plan = self._plan(log, log.dirty_segments)
        if plan is None or log in self._uncleanable:
            self._waiting.pop(log, None)
        else:
            self._waiting[log] = plan.dirty_ratio

    def needs_checkpoint(self, log: PartitionLog) -> bool:
        """Whether nothing but a checkpoint keeps the log from being compacted. Not while others are: there is time then."""
        if self.waiting or log.deleted or log in self._uncleanable:
            return False
        return tail_closes_segment(log.segments, log.tail, log.config) or self._plan(log, busy=()) is not None

    def forget(self, log: PartitionLog) -> None:
        """A log has been deleted."""
        self._waiting.pop(log, None)
        self._uncleanable.discard(log)

    def start(self) -> None:
        """Begin with the dirtiest log, unless one is being compacted."""
        if self._run is not None or self._closing or self._clock.monotonic() < self._not_before:
            return
        while self._waiting and self._services.wal.failed is None:
            log = max(self._waiting, key=self._waiting.__getitem__)
            del self._waiting[log]
            plan = None if log.deleted else self._plan(log, log.dirty_segments)
            if plan is not None:
                self._begin(log, plan)
                return

    def close(self) -> None:
        """Stop after the step that is running; what is not finished is lost."""
        self._closing = True
        self._worker.close()

    def _plan(self, log: PartitionLog, busy: Container[Segment]) -> CompactionPlan | None:
        return plan_compaction(
            log.segments,
            log.config,
            cleaned_offset=log.cleaned_offset,
            last_stable_offset=log.last_stable_offset,
            busy=busy,
            now_ms=self._clock.time_ms(),
        )

    def _begin(self, log: PartitionLog, plan: CompactionPlan) -> None:
        newest = OffsetMap(self._config.cleaner_buffer_bytes)
        aborted = log.aborted_transactions(plan.segments[0].base_offset, plan.segments[-1].end_offset)
        remaining = CompactionFilter(
            newest,
            CompactedTransactions(aborted),
            # Not what a crash may still take back: then the batch before is the last again.
            ProducerEnds(log.producers.last_offsets(log.high_watermark), log.producers.marker_epochs()),
            now_ms=self._clock.time_ms(),
            delete_retention_ms=log.config.delete_retention_ms,
        )

        def replaced(sources: tuple[Segment, ...], segment: Segment, still_aborted: bytes) -> None:
            self._complete(lambda: self._replace(run, sources, segment, still_aborted))

        compaction = _Compaction(self._file_system, plan, log.config, newest, aborted, remaining, replaced)
        run = _Run(log, compaction.steps(), newest)
        self._run = run
        self._worker.submit(lambda: self._run_step(run))

    # ------------------------------------------------------------------ in the thread

    def _run_step(self, run: _Run) -> None:
        started = self._clock.monotonic()
        moved_bytes = 0
        try:
            if self._closing or run.log.deleted:
                run.steps.close()  # type: ignore[attr-defined]  # a generator
            for size in run.steps:
                moved_bytes += size
                self.counters.moved_bytes += size
                elapsed = self._clock.monotonic() - started
                if elapsed >= STEP_S or moved_bytes >= READ_BYTES:
                    self.counters.busy_s += elapsed
                    pause = max(elapsed * PAUSE_RATIO, moved_bytes / self._config.cleaner_bytes_per_second - elapsed)
                    self._worker.submit(lambda: self._run_step(run), pause)
                    return
        except Exception as error:
            failure = error
            self._complete(lambda: self._fail(run, failure))
        else:
            self._complete(lambda: self._finish(run))

    def _run_remove(self, segment: Segment) -> None:
        try:
            remove_staged(self._file_system, segment)
        except OSError as error:
            # Recovery removes it.
            logger.warning("%s stays: %s", segment.path(".log"), error)

    # ------------------------------------------------------------------ back on the loop

    def _replace(self, run: _Run, sources: tuple[Segment, ...], segment: Segment, still_aborted: bytes) -> None:
        if not run.log.replace_segments(sources, segment, still_aborted):
            # Retention was faster.
            run.whole = False
            self._worker.submit(lambda: self._run_remove(segment))

    def _finish(self, run: _Run) -> None:
        log = run.log
        self.counters.runs += 1
        if run.whole and not log.deleted and not self._closing:
            log.cleaned_offset = max(log.cleaned_offset, run.newest.end_offset)
            log.notify()
            self._services.changed[log] = None
        self._end(run)

    def _fail(self, run: _Run, error: Exception) -> None:
        log = run.log
        if isinstance(error, KafkaError):
            logger.error("%s-%d is not compacted any more: %s", log.topic, log.partition, error)
            self._uncleanable.add(log)
        elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            self._not_before = self._clock.monotonic() + BACKOFF_S
        elif not (isinstance(error, FileNotFoundError) and (log.deleted or log.log_start_offset)):
            self._services.wal.fail(StorageFailure(f"compacting {log.directory} failed: {error!r}"))
        self._end(run)

    def _end(self, run: _Run) -> None:
        self._run = None
        self.start()
        if self._run is None and not run.log.deleted and not self._closing:
            self._on_idle()


@dataclass(slots=True)
class _Compaction:
    """What the thread does with one plan: two passes over the log."""

    file_system: FileSystem
    plan: CompactionPlan
    config: LogConfig
    newest: OffsetMap
    aborted: Sequence[AbortedTransaction]
    remaining: CompactionFilter
    replaced: Replaced

    def steps(self) -> Iterator[int]:
        """Yields how many bytes were read and written since the last time. KafkaError, OSError."""
        yield from self._learn_keys()
        sources = [segment for segment in self.plan.segments if segment.base_offset < self.newest.end_offset]
        for group in group_segments(sources, self.config.segment_bytes):
            yield from self._rewrite(group)

    def _learn_keys(self) -> Iterator[int]:
        first_dirty_offset = self.newest.end_offset = self.plan.first_dirty_offset
        dirty = [segment for segment in self.plan.segments if segment.end_offset > first_dirty_offset]
        transactions = CompactedTransactions(one for one in self.aborted if one.last_offset >= first_dirty_offset)
        for segment in dirty:
            for header, batch in _read_batches(self.file_system, segment):
                if header.last_offset >= first_dirty_offset:
                    self._learn(header, batch, transactions)
                yield len(batch)
                if self.newest.full:
                    return

    def _learn(self, header: BatchHeader, batch: memoryview, transactions: CompactedTransactions) -> None:
        keys, offsets = list[bytes | None](), list[int]()
        if header.control:
            transactions.ended(header, batch)
        elif not transactions.aborted(header):
            records = read_keys(header, batch)
            offsets = [header.base_offset + delta for delta in records.offset_deltas]
            first = bisect_left(offsets, self.newest.end_offset)
            keys, offsets = records.keys[first:], offsets[first:]
        self.newest.add(keys, offsets, header.last_offset + 1)

    def _rewrite(self, group: tuple[Segment, ...]) -> Iterator[int]:
        revision = int.from_bytes(self.file_system.random_bytes(4), "big") or 1
        compacted = CompactedSegment(self.file_system, group[0], revision, self.config.index_interval_bytes)
        transactions = self.remaining.transactions
        finished = False
        try:
            for segment in group:
                for header, batch in _read_batches(self.file_system, segment):
                    last = header.last_offset + 1 == group[-1].end_offset
                    kept = self.remaining.remains(header, batch, last=last)
                    if kept is not None:
                        compacted.add(header if kept is batch else BatchHeader(memoryview(kept)), kept)
                    yield len(batch) + len(kept or b"")
            still_aborted, transactions.still_aborted = transactions.still_aborted.entries, AbortedTransactions()
            self.replaced(group, compacted.finish(still_aborted), still_aborted)
            finished = True
        finally:
            if not finished:
                compacted.discard()


def _read_batches(file_system: FileSystem, segment: Segment) -> Iterator[tuple[BatchHeader, memoryview]]:
    """All batches, checked. Read, not mapped: a page fault would hold the GIL."""
    file = open_log(file_system, segment)
    try:
        position = 0
        while position < segment.size:
            chunk = memoryview(file.read(position, min(READ_BYTES, segment.size - position)))
            size = _batch_size(segment, position, chunk)
            if size > len(chunk):
                chunk = memoryview(file.read(position, size))
            start = 0
            while start + size <= len(chunk):
                header = BatchHeader(chunk, start)
                if not crc_matches(chunk, header):
                    raise _damaged(segment, position + start)
                yield header, chunk[start : start + size]
                start += size
                if start + BATCH_HEADER_BYTES > len(chunk):
                    break
                size = _batch_size(segment, position + start, chunk[start:])
            position += start
    finally:
        file.close()


def _batch_size(segment: Segment, position: int, data: memoryview) -> int:
    """Of the batch at a position of the segment, with which `data` begins."""
    if len(data) >= BATCH_HEADER_BYTES:
        size = int.from_bytes(data[8:12], "big", signed=True) + _PREFIX_BYTES
        if size >= BATCH_HEADER_BYTES and position + size <= segment.size:
            return size
    raise _damaged(segment, position)


def _damaged(segment: Segment, position: int) -> KafkaError:
    return KafkaError(ErrorCode.CORRUPT_MESSAGE, f"{segment.path('.log')}: no whole batch at byte {position}")
