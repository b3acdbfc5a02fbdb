"""Produce (0): checks batches, appends them, answers when they are as durable as configured."""

import struct
from collections.abc import Callable
from typing import TypeAlias

from broker.context import CloseConnection, RequestContext
from broker.deferred import Deferred
from broker.registry import api
from broker.topics import Topic
from protocol.api_keys import ApiKey
from protocol.crc import crc32c
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import ProduceRequest, ProduceResponse
from protocol.record_batch import (
    BATCH_OVERHEAD,
    BatchHeader,
    Compression,
    Record,
    UnreadableBatch,
    iterate_records,
    parse_produced,
    walk_batches,
)
from storage.log import PartitionLog

FIRST_VERSION_WITH_TOPIC_IDS = 13
ACKS = (-1, 0, 1)
# The one client that may write to internal topics, as in Kafka.
ADMIN_CLIENT_ID = "__admin_client"
NO_TIMESTAMP = -1
# In batches of more records, and in compressed ones, the broker trusts the header: walking costs 0.1 microseconds for
# each record, which for 100-byte records would double the price of a megabyte.
WALKED_RECORDS_MAX = 32
SMALLEST_RECORD_BYTES = 6  # attributes, two deltas, two null lengths, a header count
# The low byte of a batch's attributes; its checksum.
ATTRIBUTES_POSITION, CRC_POSITION = 22, 17
TRANSACTIONAL, LOG_APPEND_TIME = 0x10, 0x08

# Refused before the log looked at the batch; with them the answer's log_start_offset stays unknown, as in Kafka.
_BEFORE_LOG = frozenset(
    (
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.CORRUPT_MESSAGE,
        ErrorCode.MESSAGE_TOO_LARGE,
        ErrorCode.RECORD_LIST_TOO_LARGE,
        ErrorCode.INVALID_REQUIRED_ACKS,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
        ErrorCode.INVALID_PRODUCER_ID_MAPPING,
        ErrorCode.KAFKA_STORAGE_ERROR,
    )
)

PartitionData: TypeAlias = ProduceRequest.PartitionProduceData
PartitionAnswer: TypeAlias = ProduceResponse.PartitionProduceResponse


class InvalidRecords(KafkaError):
    """Single records of a batch are refused; `indexes` names them (KIP-467)."""

    def __init__(self, code: ErrorCode, message: str, indexes: list[int]) -> None:
        super().__init__(code, message)
        self.indexes = indexes


class RequestRefused(KafkaError):
    """No partition of the request is written, whatever the others hold."""


@api(ApiKey.PRODUCE, versions=(3, 13), advertised_from=0)
def handle(context: RequestContext, request: ProduceRequest) -> ProduceResponse | Deferred[ProduceResponse | None]:
    """Every partition succeeds or fails by itself; raises CloseConnection for a failure that acks=0 cannot report."""
    produce = _Produce(context, request)
    try:
        response = produce.run()
    except (RequestRefused, UnreadableBatch) as error:
        response = produce.refuse_all(error)
    if not request.acks and produce.failed:
        raise CloseConnection("a Produce with acks=0 failed")
    if produce.sequence < 0:
        return response
    deferred: Deferred[ProduceResponse | None] = Deferred()

    def durable(error: Exception | None) -> None:
        if error is not None:
            _fail_all(response)
        deferred.resolve(response if request.acks else None)

    context.services.logs.when_durable(produce.sequence, durable)
    return deferred


def _fail_all(response: ProduceResponse) -> None:
    for topic in response.responses:
        for partition in topic.partition_responses:
            if not partition.error_code:
                partition.error_code = ErrorCode.KAFKA_STORAGE_ERROR
                partition.base_offset = -1


class _Produce:
    """One request while it is worked on: first everything is checked, then everything sound is appended."""

    __slots__ = ("_by_id", "_context", "_now_ms", "_request", "_topics", "failed", "sequence")

    def __init__(self, context: RequestContext, request: ProduceRequest) -> None:
        self._context = context
        self._request = request
        self._topics = _merged(request, context.api_version)
        self._by_id = context.api_version >= FIRST_VERSION_WITH_TOPIC_IDS
        self._now_ms = context.services.clock.time_ms()
        self.failed = False
        self.sequence = -1

    def run(self) -> ProduceResponse:
        """The response; `sequence` is then the last WAL entry to wait for, or -1. Raises RequestRefused."""
        topics = self._context.services.topics
        checked = []
        for data in self._topics:
            topic = topics.get_by_id(data.topic_id) if self._by_id else topics.get(data.name)
            checked.append([self._checked(topic, partition) for partition in data.partition_data])
        return self._response(lambda topic, partition: self._append(*checked[topic][partition]))

    def refuse_all(self, error: KafkaError) -> ProduceResponse:
        message = error.message if isinstance(error, UnreadableBatch) else None
        return self._response(
            lambda topic, partition: self._refused(self._topics[topic].partition_data[partition], None, error, message)
        )

    def _response(self, answer: Callable[[int, int], PartitionAnswer]) -> ProduceResponse:
        return ProduceResponse(
            responses=[
                ProduceResponse.TopicProduceResponse(
                    name=data.name,
                    topic_id=data.topic_id,
                    partition_responses=[answer(i, j) for j in range(len(data.partition_data))],
                )
                for i, data in enumerate(self._topics)
            ]
        )

    def _checked(
        self, topic: Topic | None, data: PartitionData
    ) -> tuple[PartitionData, PartitionLog | None, BatchHeader | KafkaError]:
        if topic is None:
            code = ErrorCode.UNKNOWN_TOPIC_ID if self._by_id else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            return data, None, KafkaError(code)
        log = None
        try:
            log = topic.partition(data.index)
            return data, log, self._check(topic, log, data.records)
        except RequestRefused:
            raise
        except UnreadableBatch as error:
            # What follows a sound batch spoils its own partition only, as in Kafka.
            if _starts_with_batch(data.records):
                return data, log, KafkaError(error.code)
            raise
        except KafkaError as error:
            return data, log, error

    def _append(
        self, data: PartitionData, log: PartitionLog | None, batch: BatchHeader | KafkaError
    ) -> PartitionAnswer:
        if isinstance(batch, KafkaError):
            return self._refused(data, log, batch)
        assert log is not None
        assert data.records is not None
        try:
            result = log.append(data.records[: batch.size], [batch], now_ms=self._now_ms)
        except KafkaError as error:
            return self._refused(data, log, error)
        if result.sequence > self.sequence:
            self.sequence = result.sequence
        return PartitionAnswer(
            index=data.index,
            base_offset=result.base_offset,
            log_append_time_ms=result.log_append_time_ms,
            log_start_offset=result.log_start_offset,
        )

    def _refused(
        self, data: PartitionData, log: PartitionLog | None, error: KafkaError, message: str | None = None
    ) -> PartitionAnswer:
        self.failed = True
        self._context.services.metrics.errors[ApiKey.PRODUCE, error.code] += 1
        answer = PartitionAnswer(index=data.index, error_code=error.code, base_offset=-1, error_message=message)
        if log is not None and error.code not in _BEFORE_LOG and _is_one_batch(data.records):
            answer.log_start_offset = log.log_start_offset
        if isinstance(error, InvalidRecords):
            answer.error_message = error.message
            answer.record_errors = [
                ProduceResponse.BatchIndexAndErrorMessage(batch_index=index, batch_index_error_message=error.message)
                for index in error.indexes
            ]
        return answer

    def _check(self, topic: Topic, log: PartitionLog, records: memoryview | None) -> BatchHeader:
        """The one batch of `records`, sound and fit for this log; raises KafkaError in Kafka's order of checks."""
        config = log.config
        if self._request.acks not in ACKS or topic.internal:
            self._check_target(topic, records)
        transactional = (
            records is not None and len(records) > ATTRIBUTES_POSITION and records[ATTRIBUTES_POSITION] & TRANSACTIONAL
        )
        if transactional and self._request.transactional_id is None:
            raise RequestRefused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
        batch = parse_produced(records, version=self._context.api_version, max_message_bytes=config.max_message_bytes)
        assert records is not None
        if transactional and batch.producer_id >= 0:
            # Without a transaction that the coordinator knows; transactions are not supported yet.
            raise KafkaError(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        if batch.size > config.segment_bytes:
            raise KafkaError(ErrorCode.RECORD_LIST_TOO_LARGE)
        if config.message_timestamp_type == "LogAppendTime":
            if batch.log_append_time:
                raise InvalidRecords(
                    ErrorCode.INVALID_TIMESTAMP, "LogAppendTime is for the broker to set", [*range(batch.record_count)]
                )
        elif (
            batch.max_timestamp > self._now_ms + config.message_timestamp_after_max_ms
            or batch.base_timestamp < self._now_ms - config.message_timestamp_before_max_ms
        ):
            self._check_timestamps(log, records)
        elif batch.log_append_time:
            _clear_log_append_time(records, batch)
        if batch.compression > Compression.ZSTD:
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)  # Kafka's own answer to a codec that does not exist
        if batch.record_count <= WALKED_RECORDS_MAX and not batch.compression:
            _check_lengths(records, batch)
        if "compact" in config.cleanup_policy:
            _refuse_where(
                records, lambda record: record.key is None, ErrorCode.INVALID_RECORD, "a record without a key"
            )
        return batch

    def _check_target(self, topic: Topic, records: memoryview | None) -> None:
        """Kafka looks for the batch first, then at acks and at whether the topic may be written to."""
        if records is None or len(walk_batches(records)) != 1:
            raise KafkaError(ErrorCode.INVALID_RECORD)
        if self._request.acks not in ACKS:
            raise KafkaError(ErrorCode.INVALID_REQUIRED_ACKS)
        if topic.internal and self._context.client_id != ADMIN_CLIENT_ID:
            raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION)

    def _check_timestamps(self, log: PartitionLog, records: memoryview) -> None:
        """The header says that some time may be out of range; names the records whose time is."""
        earliest = self._now_ms - log.config.message_timestamp_before_max_ms
        latest = self._now_ms + log.config.message_timestamp_after_max_ms
        _refuse_where(
            records,
            lambda record: record.timestamp_ms != NO_TIMESTAMP and not earliest <= record.timestamp_ms <= latest,
            ErrorCode.INVALID_TIMESTAMP,
            f"a timestamp outside {earliest} to {latest}",
        )


def _refuse_where(records: memoryview, is_wrong: Callable[[Record], bool], code: ErrorCode, message: str) -> None:
    """Raises InvalidRecords naming the records that are wrong. Decompresses, so not for every batch."""
    indexes = [index for index, record in enumerate(iterate_records(records)) if is_wrong(record)]
    if indexes:
        raise InvalidRecords(code, message, indexes)


def _clear_log_append_time(records: memoryview, batch: BatchHeader) -> None:
    """The topic keeps the producer's times, so the batch must not say that they are the broker's."""
    batch.attributes &= ~LOG_APPEND_TIME
    struct.pack_into(">h", records, ATTRIBUTES_POSITION - 1, batch.attributes)
    batch.crc = crc32c(records[ATTRIBUTES_POSITION - 1 : batch.size])
    struct.pack_into(">I", records, CRC_POSITION, batch.crc)


def _check_lengths(records: memoryview, batch: BatchHeader) -> None:
    """Follows the records' length fields: as many records as the header says, and nothing behind them."""
    position, end = BATCH_OVERHEAD, batch.size
    for _ in range(batch.record_count):
        if position >= end:
            break
        # A zigzag varint; lengths below 64 take one byte.
        length = records[position]
        position += 1
        shift = 7
        if length > 127:
            length &= 127
            while position < end and shift < 35:
                byte = records[position]
                position += 1
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
        if length & 1 or length < 2 * SMALLEST_RECORD_BYTES:
            break
        position += length >> 1
    else:
        if position == end:
            return
    raise KafkaError(ErrorCode.INVALID_RECORD)


def _starts_with_batch(records: memoryview | None) -> bool:
    if records is None or len(records) < BATCH_OVERHEAD:
        return False
    return _is_one_batch(records[: BatchHeader(records).size])


def _is_one_batch(records: memoryview | None) -> bool:
    try:
        return records is not None and len(walk_batches(records)) == 1
    except KafkaError:
        return False


def _merged(request: ProduceRequest, version: int) -> list[ProduceRequest.TopicProduceData]:
    """The topics of the request, each once; of a partition named twice the last data counts, as in Kafka."""
    topics = request.topic_data
    if len(topics) == 1 and len(topics[0].partition_data) == 1:
        return topics
    by_id = version >= FIRST_VERSION_WITH_TOPIC_IDS
    merged: dict[str | bytes, dict[int, PartitionData]] = {}
    first: dict[str | bytes, ProduceRequest.TopicProduceData] = {}
    for topic in topics:
        if topic.partition_data:
            key: str | bytes = topic.topic_id if by_id else topic.name
            first.setdefault(key, topic)
            partitions = merged.setdefault(key, {})
            for data in topic.partition_data:
                partitions[data.index] = data
    for key, partitions in merged.items():
        first[key].partition_data = list(partitions.values())
    return list(first.values())
