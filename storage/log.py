"""One partition's log: append, read, offsets, producers. Its newest batches lie in the WAL, the rest in segments."""

import logging
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path

import msgpack

from protocol.crc import crc32c
from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import (
    BATCH_OVERHEAD,
    TRANSACTIONAL,
    BatchFields,
    BatchHeader,
    Record,
    build_marker,
    iterate_records,
    patch_batch,
    patch_log_append_time,
)
from storage.aborted_transactions import ENTRY_BYTES, AbortedTransaction, AbortedTransactions
from storage.config import LogConfig
from storage.errors import OffsetOutOfRange
from storage.leader_epochs import LeaderEpochs
from storage.log_results import Appended, AppendResult, ReadResult
from storage.log_services import FileChange, LogServices
from storage.producer_state import ProducerState
from storage.segment import SEGMENT_ENDINGS, Segment, SegmentWrite
from storage.tail import Tail, TailFile
from storage.wal_frame import LOG_START

LogKey = tuple[bytes, int]
Listener = Callable[["PartitionLog"], None]

_base_offset_of = attrgetter("base_offset")
_max_timestamp_of = attrgetter("max_timestamp")
NO_TIMESTAMP = -1
LOOKUP_BYTES = 1 << 20
"""Read ahead for one look-up by time: an interval of the index and the largest batch of most topics."""
logger = logging.getLogger(__name__)


class PartitionLog:
    """See the module. Only the event loop may call it."""

    __slots__ = (
        "_sequence",
        "_services",
        "aborted",
        "cleaned_offset",
        "config",
        "deleted",
        "directory",
        "dirty_segments",
        "epochs",
        "flushing",
        "high_watermark",
        "leader_epoch",
        "listeners",
        "log_end_offset",
        "log_start_offset",
        "partition",
        "producers",
        "saved_state",
        "segments",
        "tail",
        "topic",
        "topic_id",
    )  # fmt: skip

    def __init__(
        self, services: LogServices, directory: Path, topic_id: bytes, topic: str, partition: int, config: LogConfig
    ) -> None:
        self._services = services
        self.directory = directory
        self.topic_id = topic_id
        self.topic = topic
        self.partition = partition
        self.config = config
        self.leader_epoch = 0
        self.log_start_offset = 0
        self.high_watermark = 0
        """Moves only when durable under the sync policy: readers never see what can be lost."""
        self.log_end_offset = 0
        self.deleted = False
        self.listeners: set[Listener] = set()
        """Called on the loop when the high watermark or the log's start moves, or the log is deleted."""
        self.producers = ProducerState()
        self.aborted = AbortedTransactions()
        self.epochs = LeaderEpochs()
        self.tail = Tail(0)
        self.segments: list[Segment] = []
        self.dirty_segments: dict[Segment, None] = {}
        """Written to since they were last synced."""
        self.flushing = False
        """The write-behind thread has a plan for it."""
        self.saved_state = b""
        """As the last checkpoint describes it."""
        self.cleaned_offset = 0
        """Compaction knows all keys below."""
        self._sequence = 0

    @property
    def key(self) -> LogKey:
        """Topic id and partition."""
        return self.topic_id, self.partition

    @property
    def last_stable_offset(self) -> int:
        """Readers of committed records stop here: at the oldest open transaction, or at the high watermark."""
        producers = self.producers
        if not producers.open_transactions and not producers.ending:
            return self.high_watermark
        first = producers.first_unstable_offset
        assert first is not None
        return max(min(first, self.high_watermark), self.log_start_offset)

    @property
    def size_bytes(self) -> int:
        """Bytes of all batches."""
        return sum(segment.size for segment in self.segments) + self.tail.end_position - self.tail.start_position

    # ------------------------------------------------------------------ writing

    def append(self, records: memoryview, batches: list[BatchHeader], *, now_ms: int) -> AppendResult:
        """Assign offsets to validated batches and hand them to the WAL.

        `records`: writable; patched in place and borrowed until `LogManager.commit` returns. Raises KafkaError with the
        code to answer (research part 2.2 and 2.3); nothing has changed then.
        """
        refusal = self._services.refusal
        if refusal is not None:
            raise refusal
        if self.deleted:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        first = batches[0]
        if len(batches) > 1:
            if any(batch.producer_id >= 0 for batch in batches):
                raise KafkaError(ErrorCode.INVALID_RECORD, "one batch per partition and request")
        elif first.producer_id >= 0:
            duplicate = self._check_producer(
                first.producer_id, first.producer_epoch, first.base_sequence, first.last_offset_delta,
                transactional=first.transactional,
            )  # fmt: skip
            if duplicate is not None:
                _, _, offset, timestamp = duplicate
                # The original may not be durable yet: wait for what this log has appended last.
                return AppendResult(offset, timestamp, self.log_start_offset, self._sequence)
        config = self.config
        append_time_ms = now_ms if config.message_timestamp_type == "LogAppendTime" else NO_TIMESTAMP
        base_offset = self.log_end_offset
        if len(records) > config.segment_bytes and any(batch.size > config.segment_bytes for batch in batches):
            raise KafkaError(ErrorCode.RECORD_LIST_TOO_LARGE)
        for batch in batches:
            self._append_batch(records, batch, append_time_ms)
            if batch.producer_id >= 0:
                self.producers.update(
                    batch.producer_id, batch.producer_epoch, batch.base_sequence, batch.last_offset_delta,
                    batch.base_offset, batch.max_timestamp, now_ms,
                )  # fmt: skip
                if batch.attributes & TRANSACTIONAL:
                    self.producers.begin_transaction(batch.producer_id, batch.base_offset)
        return AppendResult(base_offset, append_time_ms, self.log_start_offset, self._sequence)

    def append_one(self, records: memoryview, header: BatchFields, time_ms: Callable[[], int]) -> Appended:
        """`append` for nearly all requests: one batch, which is all of `records`, in no transaction. Few need the time."""
        config = self.config
        if len(records) > config.segment_bytes or config.message_timestamp_type == "LogAppendTime":
            return self.append(records, [BatchHeader(records)], now_ms=time_ms())
        refusal = self._services.refusal
        if refusal is not None:
            raise refusal
        if self.deleted:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        _, length, _, _, crc, _, last_delta, _, max_timestamp, producer_id, epoch, sequence, _, _ = header
        if producer_id >= 0:
            duplicate = self._check_producer(producer_id, epoch, sequence, last_delta, transactional=False)
            if duplicate is not None:
                return duplicate[2], duplicate[3], self.log_start_offset, self._sequence
        base_offset = self.log_end_offset
        self._place(records, length, crc, last_delta, max_timestamp)
        if producer_id >= 0:
            self.producers.update(producer_id, epoch, sequence, last_delta, base_offset, max_timestamp, time_ms())
        return base_offset, NO_TIMESTAMP, self.log_start_offset, self._sequence

    def append_marker(
        self, producer_id: int, producer_epoch: int, coordinator_epoch: int, *, commit: bool, now_ms: int
    ) -> AppendResult:
        """End a producer's transaction, if it has one here.

        KafkaError: INVALID_PRODUCER_EPOCH or TRANSACTION_COORDINATOR_FENCED if the marker is outdated, KAFKA_STORAGE_ERROR.
        """
        refusal = self._services.refusal
        if refusal is not None:
            raise refusal
        if self.deleted:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        self.producers.check_marker(producer_id, producer_epoch, coordinator_epoch)
        data = memoryview(
            build_marker(
                commit=commit,
                producer_id=producer_id,
                producer_epoch=producer_epoch,
                coordinator_epoch=coordinator_epoch,
                timestamp_ms=now_ms,
            )
        )
        batch = BatchHeader(data)
        append_time_ms = now_ms if self.config.message_timestamp_type == "LogAppendTime" else NO_TIMESTAMP
        self._append_batch(data, batch, append_time_ms)
        aborted = self.producers.end_transaction(
            producer_id, producer_epoch, coordinator_epoch, batch.base_offset, commit=commit, now_ms=now_ms
        )
        if aborted is not None:
            self.aborted.add(aborted)
        return AppendResult(batch.base_offset, append_time_ms, self.log_start_offset, self._sequence)

    def _check_producer(
        self, producer_id: int, epoch: int, base_sequence: int, last_offset_delta: int, *, transactional: bool
    ) -> tuple[int, int, int, int] | None:
        """The batch that this one repeats; KafkaError if the producer must not write it."""
        producers = self.producers
        duplicate = producers.duplicate_of(producer_id, epoch, base_sequence, last_offset_delta)
        if duplicate is None and not transactional and producer_id in producers.open_transactions:
            raise KafkaError(
                ErrorCode.INVALID_TXN_STATE,
                f"producer {producer_id} has an open transaction; the batch does not belong to it",
            )
        return duplicate

    def _append_batch(self, records: memoryview, batch: BatchHeader, append_time_ms: int) -> None:
        position, size = batch.position, batch.size
        as_it_came = None
        if append_time_ms >= 0:
            as_it_came = bytes(records[position : position + BATCH_OVERHEAD])
            patch_log_append_time(records, position, append_time_ms)
            stamped = BatchHeader(records, position)
            batch.crc, batch.attributes, batch.max_timestamp = stamped.crc, stamped.attributes, append_time_ms
        payload = records if size == len(records) else records[position : position + size]
        base_offset = self.log_end_offset
        try:
            self._place(payload, batch.batch_length, batch.crc, batch.last_offset_delta, batch.max_timestamp)
        except KafkaError:
            if as_it_came is not None:
                payload[:BATCH_OVERHEAD] = as_it_came
            raise
        batch.base_offset = base_offset

    def _place(
        self, payload: memoryview, batch_length: int, crc: int, last_offset_delta: int, max_timestamp: int
    ) -> None:
        """One batch goes to the end of the log. KafkaError: as it came, so that the caller may look at it again."""
        base_offset, leader_epoch, size = self.log_end_offset, self.leader_epoch, len(payload)
        patch_batch(payload, 0, base_offset, batch_length, leader_epoch)
        try:
            group = self._services.wal.add(self.topic_id, self.partition, base_offset, size, crc, leader_epoch, payload)
        except KafkaError:
            patch_batch(payload, 0, 0, batch_length, -1)
            raise
        self.log_end_offset = next_offset = base_offset + last_offset_delta + 1
        self.tail.add(base_offset, next_offset, size, max_timestamp, group.file, group.position - size)
        epochs = self.epochs.epochs
        if not epochs or epochs[-1] != leader_epoch:
            self.epochs.assign(leader_epoch, base_offset)
        group.end_offsets[self] = next_offset
        self._sequence = group.sequence

    def replay(self, batch: BatchHeader, file: TailFile, position: int, now_ms: int) -> bool:
        """Recovery: a batch found in the WAL at `position` of `file`. False if the log holds it already; ValueError on a gap."""
        if batch.base_offset < self.log_end_offset:
            return False
        if batch.base_offset > self.log_end_offset:
            raise ValueError(f"offset {batch.base_offset} follows {self.log_end_offset}")
        next_offset = batch.last_offset + 1
        self.tail.add(batch.base_offset, next_offset, batch.size, batch.max_timestamp, file, position)
        self.leader_epoch = max(self.leader_epoch, batch.leader_epoch)
        self.epochs.assign(batch.leader_epoch, batch.base_offset)
        self.take_up(batch, file.mapping.view[position : position + batch.size], now_ms)
        self.high_watermark = self.log_end_offset = next_offset
        self.producers.ending.clear()
        return True

    def take_up(self, batch: BatchHeader, data: memoryview, now_ms: int) -> None:
        """Recovery: what a batch found behind the checkpoint says of producers and transactions."""
        aborted = self.producers.take_up(batch, data, now_ms)
        if aborted is not None:
            self.aborted.add(aborted)

    def advance_high_watermark(self, offset: int) -> None:
        """Everything below `offset` is durable (called by the WAL)."""
        if offset > self.high_watermark and not self.deleted:
            self.high_watermark = offset
            if self.producers.ending:
                self.producers.settle(offset)
            if self.listeners:
                self.notify()

    def notify(self) -> None:
        """Tell the listeners that an offset has moved or the log is gone."""
        for listener in tuple(self.listeners):
            try:
                listener(self)
            except Exception:
                # The others, and the acks that follow in the same turn, have nothing to do with it.
                logger.exception("a listener of %s-%d failed", self.topic, self.partition)

    def delete_records_before(self, offset: int) -> int:
        """Let the log start at `offset`; returns the log start offset. KafkaError OFFSET_OUT_OF_RANGE beyond the high watermark."""
        if not 0 <= offset <= self.high_watermark:
            raise OffsetOutOfRange(offset, self.log_start_offset, self.high_watermark)
        if offset > self.log_start_offset:
            self._services.wal.add(*self._log_start_message(offset))
            self.start_at(offset)
            self._services.wal.commit()
            self.notify()
        return self.log_start_offset

    def remove_segments(self, count: int) -> None:
        """Retention: drop the first `count` segments."""
        end = self.segments[count - 1].end_offset
        if end > self.log_start_offset:
            self._services.wal.add(*self._log_start_message(end))
            self.start_at(end)
            self._services.wal.commit()
            self.notify()
        else:
            self.start_at(self.log_start_offset)

    def _log_start_message(self, offset: int) -> tuple[bytes, int, int, int, int, int, bytes]:
        payload: bytes = msgpack.packb(offset)
        return self.topic_id, self.partition, LOG_START, len(payload), crc32c(payload), 0, payload

    def start_at(self, offset: int) -> None:
        """Apply a new log start: segments entirely below it go."""
        self.log_start_offset = max(self.log_start_offset, offset)
        self.epochs.drop_below(self.log_start_offset)
        kept = []
        for segment in self.segments:
            if segment.end_offset > self.log_start_offset or self.flushing:
                kept.append(segment)
                continue
            self.dirty_segments.pop(segment, None)
            self._drop_files(segment)
        self.segments = kept
        self.aborted.drop_below(kept[0].base_offset if kept else self.tail.start_offset)
        self._services.changed[self] = None

    def replace_segments(self, sources: Sequence[Segment], segment: Segment, aborted: bytes) -> bool:
        """Compaction: `segment`, staged, holds what remains of neighbouring `sources`, `aborted` is its `.txnindex`.

        False if the sources are not all there any more.
        """
        first = self.segments.index(sources[0]) if sources[0] in self.segments else 0
        if self.deleted or self.segments[first : first + len(sources)] != list(sources):
            return False
        self.segments[first : first + len(sources)] = [segment]
        self._services.readers.close(sources[0])  # whose names the new one takes
        for source in sources[1:]:
            self._drop_files(source)
        self.stage(segment)
        self.aborted.replace(segment.base_offset, segment.end_offset, aborted)
        self._services.changed[self] = None
        return True

    def stage(self, segment: Segment) -> None:
        """The segment's files get their final names once a checkpoint is on the disk that names the segment."""
        for ending in SEGMENT_ENDINGS:
            staged, final = segment.directory / segment.staged_name(ending), segment.directory / (segment.name + ending)
            self._services.file_changes.append(FileChange(self, staged, final, segment))

    def _drop_files(self, segment: Segment) -> None:
        self._services.readers.close(segment)
        names = [segment.name + ending for ending in SEGMENT_ENDINGS]
        names += [segment.staged_name(ending) for ending in SEGMENT_ENDINGS if segment.revision]
        self._services.file_changes += [FileChange(self, segment.directory / name) for name in names]

    def seal_last_segment(self) -> None:
        """The next batch begins a new segment."""
        self.segments[-1].sealed = True
        self.dirty_segments[self.segments[-1]] = None
        self._services.changed[self] = None

    def load_indexes(self, segment: Segment) -> None:
        """Of a segment that is about to be extended."""
        self._services.readers.view(segment)

    def settle_start(self) -> None:
        """After a power failure under storage.sync=os the log may end before its start: it is empty then."""
        if self.log_end_offset < self.log_start_offset:
            self.start_at(self.log_start_offset)
            self.tail = Tail(self.log_start_offset)
            self.high_watermark = self.log_end_offset = self.log_start_offset
            self.producers.open_transactions.clear()
            self.aborted = AbortedTransactions()

    def apply_write(self, write: SegmentWrite) -> None:
        """Batches have been written to a segment: read them from there from now on."""
        segment = write.segment
        segment.extend(write)
        if not self.segments or self.segments[-1].base_offset < segment.base_offset:
            self.segments.append(segment)
        if write.index is not None:
            segment.saved_index_count, segment.saved_time_count = segment.index_count, segment.time_count
        if write.transaction_index is not None:
            segment.aborted_count += len(write.transaction_index[1]) // ENTRY_BYTES
        if write.sync:
            self.dirty_segments.pop(segment, None)
        else:
            self.dirty_segments[segment] = None
        if write.size:
            self.tail.drop(self.tail.first_at_or_after(write.end_offset))

    # ------------------------------------------------------------------ reading

    def read(self, offset: int, max_bytes: int, *, up_to: int, at_least_one: bool) -> ReadResult:
        """Batches from `offset` on: whole ones, below `up_to`, together at most `max_bytes` (but one if `at_least_one`).

        OffsetOutOfRange below the log's start or beyond its end; empty at or beyond `up_to` or the high watermark.
        """
        if not self.log_start_offset <= offset <= self.log_end_offset:
            raise OffsetOutOfRange(offset, self.log_start_offset, self.log_end_offset)
        result = ReadResult(offset)
        up_to = min(up_to, self.high_watermark)
        while result.next_offset < up_to and (result.size < max_bytes or (at_least_one and not result.size)):
            wanted = max_bytes - result.size
            at_least_one = at_least_one and not result.size
            if result.next_offset >= self.tail.start_offset:
                self._read_tail(result, wanted, up_to, at_least_one)
                break
            if not self._read_segment(result, wanted, up_to, at_least_one):
                break
        return result

    def _read_tail(self, result: ReadResult, max_bytes: int, up_to: int, at_least_one: bool) -> None:
        tail = self.tail
        first = tail.batch_of(result.next_offset)
        start = tail.position(first)
        last = min(tail.last_within(start + max_bytes), tail.first_at_or_after(up_to))
        if last <= first:
            if not at_least_one:
                return
            last = first + 1
        end = tail.position(last)
        result.buffers += tail.buffers(start, end)
        result.size += end - start
        result.next_offset = tail.base_offset(last)

    def _read_segment(self, result: ReadResult, max_bytes: int, up_to: int, at_least_one: bool) -> bool:
        """False when `max_bytes` stopped the read."""
        index = bisect_right(self.segments, result.next_offset, key=_base_offset_of) - 1
        segment = self.segments[max(index, 0)]
        if result.next_offset >= segment.end_offset and index + 1 < len(self.segments):
            segment = self.segments[index + 1]
        readers = self._services.readers
        view = readers.view(segment)
        start = segment.position_of(view, result.next_offset)
        if start == segment.size:
            result.next_offset = segment.end_offset
            return True
        stop = segment.size if up_to >= segment.end_offset else segment.position_of(view, up_to)
        end = segment.end_within(view, start, min(start + max_bytes, stop))
        if end == start and at_least_one and start < stop:
            end = start + segment.batch_at(view, start)[1]
        if end > start:
            file = readers.opened(segment).file
            if not file.resident(start, end - start):
                result.add_cold(file.duplicate(), start, end - start)
            result.buffers.append(view[start:end])
            result.size += end - start
            result.next_offset = segment.end_offset if end == segment.size else segment.batch_at(view, end)[0]
        return end == segment.size

    # ------------------------------------------------------------------ looking up

    def aborted_transactions(self, start_offset: int, end_offset: int) -> list[AbortedTransaction]:
        """Those with records at offsets [start, end), which a reader of committed records leaves out; `end` at most the LSO."""
        return self.aborted.overlapping(start_offset, end_offset) if self.aborted else []

    def load_indexes_for(self, timestamp_ms: int) -> Callable[[], None] | None:
        """What a thread does before a look-up by time, so that it does not wait for the disk; then `load_pages_for`. None: nothing.

        `timestamp_ms`: for `offset_for_timestamp`, or -1 for `max_timestamp`.
        """
        segment = self._segment_of_time(timestamp_ms)
        if segment is None or segment.offsets is not None:
            return None
        return self._services.readers.load_indexes(segment)

    def load_pages_for(self, timestamp_ms: int) -> Callable[[], None] | None:
        """See `load_indexes_for`."""
        segment, readers = self._segment_of_time(timestamp_ms), self._services.readers
        if segment is None:
            return None
        view = readers.view(segment)
        latest = timestamp_ms < 0
        position = segment.position_before_time(view, segment.max_timestamp if latest else timestamp_ms)
        return readers.load(segment, position, min(LOOKUP_BYTES, segment.size - position))

    def _segment_of_time(self, timestamp_ms: int) -> Segment | None:
        if timestamp_ms < 0:
            return max(self.segments, key=_max_timestamp_of, default=None)
        return next((segment for segment in self.segments if segment.max_timestamp >= timestamp_ms), None)

    def offset_for_timestamp(self, timestamp_ms: int) -> tuple[int, int, int] | None:
        """(offset, timestamp, leader epoch) of the first record at or after a time, None if there is none."""
        for segment in self.segments:
            if segment.max_timestamp < timestamp_ms:
                continue
            view = self._services.readers.view(segment)
            position = segment.position_before_time(view, timestamp_ms)
            while position < segment.size:
                size = segment.batch_at(view, position)[1]
                found = self._first_record(view[position : position + size], timestamp_ms)
                if found is not None:
                    return found
                position += size
        tail = self.tail
        for index, largest in enumerate(tail.max_timestamps):
            if largest >= timestamp_ms and tail.base_offsets[index] < self.high_watermark:
                found = self._first_record(self._tail_batch(index), timestamp_ms)
                if found is not None:
                    return found
        return None

    def max_timestamp(self) -> tuple[int, int, int] | None:
        """(offset, timestamp, leader epoch) of the first record with the largest timestamp; None if the log is empty.

        The record may lie below the log start while its batch is still stored, as in Kafka.
        """
        best: memoryview | None = None
        largest = -1
        for segment in self.segments:
            if segment.max_timestamp > largest:
                view = self._services.readers.view(segment)
                start = segment.position_of(view, segment.max_timestamp_offset)
                best = view[start : start + segment.batch_at(view, start)[1]]
                largest = segment.max_timestamp
        visible = self.tail.first_at_or_after(self.high_watermark)
        timestamps: array[int] = self.tail.max_timestamps[:visible]
        if timestamps and max(timestamps) > largest:
            best = self._tail_batch(timestamps.index(max(timestamps)))
        if best is None:
            return None
        records = list(iterate_records(best))
        if not records:
            # Compaction left the batch without them: Kafka knows no answer then either.
            return None
        # The header may promise a time that none of its records has.
        time = max(record.timestamp_ms for record in records)
        # The largest LogAppendTime is every record's: Kafka answers with the batch's last one.
        header = BatchHeader(best)
        candidates = records[-1:] if header.log_append_time else records
        offset = next(record.offset for record in candidates if record.timestamp_ms == time)
        return offset, time, header.leader_epoch

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        """(epoch, end offset) for OffsetForLeaderEpoch; (-1, -1) if unknown."""
        return self.epochs.end_offset(epoch, self.leader_epoch, self.log_end_offset)

    def _tail_batch(self, index: int) -> memoryview:
        return self.tail.buffers(self.tail.position(index), self.tail.position(index + 1))[0]

    def _first_record(self, batch: memoryview, timestamp_ms: int) -> tuple[int, int, int] | None:
        if BatchHeader(batch).max_timestamp < timestamp_ms:
            return None
        for record in self._records(batch):
            if record.timestamp_ms >= timestamp_ms:
                return record.offset, record.timestamp_ms, self.epochs.epoch_of(record.offset)
        return None

    def _records(self, batch: memoryview) -> Iterator[Record]:
        return (record for record in iterate_records(batch) if record.offset >= self.log_start_offset)
