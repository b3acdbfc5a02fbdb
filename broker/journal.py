"""The logs of the coordinators: internal topics of records, a partition for each hash of a name, replayed at start."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from broker.producer_ids import ProducerIdAndEpoch
from broker.topics import Topic, Topics
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

# Deleting a group writes one record per offset: batches are cut well below max.message.bytes (1 MiB).
BATCH_BYTES_MAX = 256 * 1024
REPLAY_CHUNK_BYTES = 1024 * 1024
# Read again in a fraction of a second at the next start; the topics' segment.bytes, as large as Kafka's, takes several.
ROLL_RECORDS = 10_000

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
        clock: Clock,
        partition_count: int,
    ) -> None:
        self._format = record_format
        self._topics = topics
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

    def roll(self) -> None:
        """Closes the newest segment of each partition that has taken many records: compaction leaves the newest one alone.

        It bounds the log and the time of a replay: the live state of a partition is small beside its history.
        """
        topic = self._topics.get(self._format.topic)
        for log in topic.partitions if topic is not None else ():
            if log.segments and log.log_end_offset - log.segments[-1].base_offset > ROLL_RECORDS:
                log.seal_last_segment()

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
