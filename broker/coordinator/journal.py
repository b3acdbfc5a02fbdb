"""The log of the group coordinator: the internal topic `__consumer_offsets`, each group in the partition of its name's hash."""

from collections.abc import Iterable, Iterator

from broker.coordinator.records import CoordinatorRecord, decode_record, encode_record
from broker.topics import Topic, Topics
from protocol.record_batch import BATCH_OVERHEAD, Record, build_batch, iterate_records, parse_batches
from storage.clock import Clock
from storage.log import PartitionLog

OFFSETS_TOPIC = "__consumer_offsets"
# As Kafka creates it (offsets.topic.segment.bytes, compression none, compacted).
OFFSETS_TOPIC_CONFIGS: dict[str, str | None] = {
    "cleanup.policy": "compact",
    "compression.type": "producer",
    "segment.bytes": str(100 * 1024 * 1024),
}
# Deleting a group writes one record per offset: batches are cut well below max.message.bytes (1 MiB).
BATCH_BYTES_MAX = 256 * 1024
REPLAY_CHUNK_BYTES = 1024 * 1024
# A partition is rewritten when its log holds this many records per live one; the least amount keeps small logs alone.
REWRITE_RATIO = 8
REWRITE_RECORDS_MIN = 10_000


def string_hash(text: str) -> int:
    """Java's String.hashCode, as a signed 32-bit number: it decides the partition of a group."""
    value = 0
    units = text.encode("utf-16-be", "surrogatepass")
    for position in range(0, len(units), 2):
        value = (value * 31 + (units[position] << 8 | units[position + 1])) & 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


class Journal:
    """Appends and replays coordinator records. The topic is created on first use, as in Kafka."""

    def __init__(self, topics: Topics, clock: Clock, partition_count: int) -> None:
        self._topics = topics
        self._clock = clock
        self._partition_count = partition_count

    def ensure(self) -> Topic:
        """The internal topic, created if need be."""
        topic = self._topics.get(OFFSETS_TOPIC)
        if topic is None:
            topic = self._topics.ensure_internal(OFFSETS_TOPIC, self._partition_count, OFFSETS_TOPIC_CONFIGS)
        return topic

    def partition_of(self, group_id: str) -> int:
        """The partition that holds a group: Kafka's `abs(hashCode) % partitions`."""
        return (string_hash(group_id) & 0x7FFFFFFF) % len(self.ensure().partitions)

    def append(self, group_id: str, records: Iterable[CoordinatorRecord]) -> int:
        """Appends one group's records; returns the storage sequence to wait for. Raises KafkaError."""
        return self._append(self.ensure().partitions[self.partition_of(group_id)], records)

    def replay(self) -> Iterator[CoordinatorRecord]:
        """All records, partition by partition, oldest first; nothing if the topic was never created."""
        topic = self._topics.get(OFFSETS_TOPIC)
        for log in topic.partitions if topic is not None else ():
            yield from _read(log)

    def rewrite(self, live: Iterable[CoordinatorRecord]) -> Iterator[tuple[PartitionLog, int, int]]:
        """Appends the live records anew to each partition that mostly holds outdated ones.

        Yields (log, offset, sequence): once `sequence` is durable, records before `offset` may go. This bounds the log and
        the time of a replay: the live state of a partition is small beside its history of commits.
        """
        topic = self._topics.get(OFFSETS_TOPIC)
        if topic is None:
            return
        by_partition: list[list[CoordinatorRecord]] = [[] for _ in topic.partitions]
        for record in live:
            by_partition[self.partition_of(record.group_id)].append(record)
        for log, records in zip(topic.partitions, by_partition, strict=True):
            held = log.log_end_offset - log.log_start_offset
            if held > max(REWRITE_RECORDS_MIN, REWRITE_RATIO * len(records)):
                first = log.log_end_offset
                yield log, first, self._append(log, records) if records else 0

    def _append(self, log: PartitionLog, records: Iterable[CoordinatorRecord]) -> int:
        now_ms = self._clock.time_ms()
        sequence, size, pending = 0, 0, list[Record]()
        for record in records:
            key, value = encode_record(record)
            size += len(key) + len(value or b"") + BATCH_OVERHEAD
            if size > BATCH_BYTES_MAX and pending:
                sequence = self._append_batch(log, pending, now_ms)
                size, pending = len(key) + len(value or b""), []
            pending.append(Record(offset=len(pending), timestamp_ms=now_ms, key=key, value=value, headers=[]))
        return self._append_batch(log, pending, now_ms) if pending else sequence

    def _append_batch(self, log: PartitionLog, records: list[Record], now_ms: int) -> int:
        batch = memoryview(build_batch(records))
        return log.append(batch, parse_batches(batch), now_ms=now_ms).sequence


def _read(log: PartitionLog) -> Iterator[CoordinatorRecord]:
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        result = log.read(offset, REPLAY_CHUNK_BYTES, up_to=log.log_end_offset, at_least_one=True)
        if not result.buffers:
            return
        for buffer in result.buffers:
            for header in parse_batches(buffer):
                batch = buffer[header.position : header.position + header.size]
                for record in iterate_records(batch) if not header.control else ():
                    decoded = decode_record(record.key or b"", record.value)
                    if decoded is not None and record.offset >= offset:
                        yield decoded
        offset = result.next_offset
