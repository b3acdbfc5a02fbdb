"""The logs of the coordinators: internal topics of records, a partition for each hash of a name, replayed at start."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from broker.producer_ids import ProducerIdAndEpoch
from broker.topics import Topic, Topics
from protocol.errors import KafkaError
from protocol.record_batch import (
    BATCH_OVERHEAD,
    TRANSACTIONAL,
    Record,
    build_batch,
    iterate_records,
    parse_batches,
    read_marker,
)
from storage.clock import Clock
from storage.log import PartitionLog
from storage.log_manager import LogManager

# Deleting a group writes one record per offset: batches are cut well below max.message.bytes (1 MiB).
BATCH_BYTES_MAX = 256 * 1024
REPLAY_CHUNK_BYTES = 1024 * 1024
# A partition is rewritten when its log holds this many records per live one; the least amount keeps small logs alone.
REWRITE_RATIO = 8
REWRITE_RECORDS_MIN = 10_000

JournalRecord = TypeVar("JournalRecord")


@dataclass(frozen=True, slots=True)
class JournalFormat(Generic[JournalRecord]):
    """An internal topic and what is written to it."""

    topic: str
    configs: Mapping[str, str | None]
    encode: Callable[[JournalRecord], tuple[bytes, bytes | None]]
    decode: Callable[[bytes, bytes | None], JournalRecord | None]
    """None for a record of another kind."""
    name_of: Callable[[JournalRecord], str]
    """The group or transactional id whose hash decides the partition."""


class TransactionalRecord(NamedTuple, Generic[JournalRecord]):
    """A record that counts once its producer's transaction is committed."""

    record: JournalRecord
    producer_id: int


class TransactionEnd(NamedTuple):
    """A marker in one partition of the journal."""

    partition: int
    producer_id: int
    commit: bool


def string_hash(text: str) -> int:
    """Java's String.hashCode, as a signed 32-bit number: it decides the partition of a group or transactional id."""
    value = 0
    units = text.encode("utf-16-be", "surrogatepass")
    for position in range(0, len(units), 2):
        value = (value * 31 + (units[position] << 8 | units[position + 1])) & 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


class Journal(Generic[JournalRecord]):
    """Appends and replays one coordinator's records. The topic is created on first use, as in Kafka."""

    def __init__(
        self,
        record_format: JournalFormat[JournalRecord],
        topics: Topics,
        logs: LogManager,
        clock: Clock,
        partition_count: int,
    ) -> None:
        self._format = record_format
        self._topics = topics
        self._logs = logs
        self._clock = clock
        self._partition_count = partition_count

    def ensure(self) -> Topic:
        """The internal topic, created if need be. Raises KafkaError."""
        kind = self._format
        return self._topics.get(kind.topic) or self._topics.ensure_internal(
            kind.topic, self._partition_count, kind.configs
        )

    def partition_of(self, name: str) -> int:
        """The partition that holds a group or transactional id: Kafka's `abs(hashCode) % partitions`."""
        return (string_hash(name) & 0x7FFFFFFF) % len(self.ensure().partitions)

    def append(self, name: str, records: Iterable[JournalRecord], producer: ProducerIdAndEpoch | None = None) -> int:
        """Appends one name's records, as part of the producer's transaction if one is given.

        Returns the storage sequence to wait for. Raises KafkaError.
        """
        return self._append(self.ensure().partitions[self.partition_of(name)], records, producer)

    def replay(self) -> Iterator[JournalRecord | TransactionalRecord[JournalRecord] | TransactionEnd]:
        """Everything, partition by partition, oldest first; nothing if the topic was never created."""
        topic = self._topics.get(self._format.topic)
        for log in topic.partitions if topic is not None else ():
            yield from self._read(log)

    def rewrite(self, live: Iterable[JournalRecord]) -> None:
        """Appends the live records anew to each partition that mostly holds outdated ones; these then go. Raises KafkaError.

        It bounds the log and the time of a replay: the live state of a partition is small beside its history.
        """
        topic = self._topics.get(self._format.topic)
        if topic is None:
            return
        by_partition: list[list[JournalRecord]] = [[] for _ in topic.partitions]
        for record in live:
            by_partition[self.partition_of(self._format.name_of(record))].append(record)
        for log, records in zip(topic.partitions, by_partition, strict=True):
            held = log.log_end_offset - log.log_start_offset
            # What an open transaction has written is not among the live records yet.
            if held > max(REWRITE_RECORDS_MIN, REWRITE_RATIO * len(records)) and not log.producers.open_transactions:
                first = log.log_end_offset
                sequence = self._append(log, records)
                self._logs.when_durable(sequence, partial(_forget_before, log, first))

    def _append(
        self, log: PartitionLog, records: Iterable[JournalRecord], producer: ProducerIdAndEpoch | None = None
    ) -> int:
        now_ms = self._clock.time_ms()
        sequence, size, pending = 0, 0, list[Record]()
        for record in records:
            key, value = self._format.encode(record)
            size += len(key) + len(value or b"") + BATCH_OVERHEAD
            if size > BATCH_BYTES_MAX and pending:
                sequence = _append_batch(log, pending, now_ms, producer)
                size, pending = len(key) + len(value or b""), []
            pending.append(Record(offset=len(pending), timestamp_ms=now_ms, key=key, value=value, headers=[]))
        return _append_batch(log, pending, now_ms, producer) if pending else sequence

    def _read(self, log: PartitionLog) -> Iterator[JournalRecord | TransactionalRecord[JournalRecord] | TransactionEnd]:
        offset = log.log_start_offset
        while offset < log.log_end_offset:
            result = log.read(offset, REPLAY_CHUNK_BYTES, up_to=log.log_end_offset, at_least_one=True)
            if not result.buffers:
                return
            for buffer in result.buffers:
                for header in parse_batches(buffer):
                    batch = buffer[header.position : header.position + header.size]
                    if header.control:
                        marker = read_marker(batch)
                        if marker is not None:
                            yield TransactionEnd(log.partition, header.producer_id, marker.commit)
                        continue
                    for record in iterate_records(batch):
                        decoded = self._format.decode(record.key or b"", record.value)
                        if decoded is not None and record.offset >= offset:
                            yield TransactionalRecord(decoded, header.producer_id) if header.transactional else decoded
            offset = result.next_offset


def _append_batch(log: PartitionLog, records: list[Record], now_ms: int, producer: ProducerIdAndEpoch | None) -> int:
    if producer is None:
        batch = build_batch(records)
    else:
        producer_id, producer_epoch = producer
        batch = build_batch(records, producer_id=producer_id, producer_epoch=producer_epoch, attributes=TRANSACTIONAL)
    view = memoryview(batch)
    return log.append(view, parse_batches(view), now_ms=now_ms).sequence


def _forget_before(log: PartitionLog, offset: int, failure: Exception | None) -> None:
    if failure is None and offset <= log.high_watermark:
        # Refused by a full disk, it waits for the next rewrite; the WAL, which calls this, must not hear of it.
        with contextlib.suppress(KafkaError):
            log.delete_records_before(offset)
