"""What Produce asks of a batch before a log may have it: Kafka's checks, in Kafka's order, with Kafka's codes.

The batch's header and checksum are always checked, its records only where that is cheap or a topic needs it.
"""

import struct
from collections.abc import Callable

from broker.context import RequestContext
from broker.operations import Operation
from broker.record_checks import record_times
from broker.topics import Topic
from protocol.crc import crc32c
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import ProduceRequest
from protocol.record_batch import (
    BatchHeader,
    Record,
    iterate_records,
    parse_produced,
    walk_batches,
)
from storage.config import LogConfig

ACKS = (-1, 0, 1)
# The one client that may write to internal topics, as in Kafka.
ADMIN_CLIENT_ID = "__admin_client"
NO_TIMESTAMP = -1
INT64_MAX = 2**63 - 1
# The low byte of a batch's attributes; its checksum; its largest timestamp.
ATTRIBUTES_POSITION, CRC_POSITION, MAX_TIMESTAMP_POSITION = 22, 17, 35
CODEC_MASK, LOG_APPEND_TIME, TRANSACTIONAL = 0x07, 0x08, 0x10


class InvalidRecords(KafkaError):
    """Single records of a batch are refused; `indexes` names them (KIP-467)."""

    def __init__(self, code: ErrorCode, message: str, indexes: list[int]) -> None:
        super().__init__(code, message)
        self.indexes = indexes


class RequestRefused(KafkaError):
    """No partition of the request is written, whatever the others hold."""


def is_transactional(records: memoryview | None) -> bool:
    return (
        records is not None
        and len(records) > ATTRIBUTES_POSITION
        and bool(records[ATTRIBUTES_POSITION] & TRANSACTIONAL)
    )


def check_transactional_id(context: RequestContext, request: ProduceRequest) -> None:
    """Raises RequestRefused for transactional batches of who may not write with the transactional id."""
    name = request.transactional_id
    if name is None or context.access.transactional_id(Operation.WRITE, name):
        return
    if any(is_transactional(data.records) for topic in request.topic_data for data in topic.partition_data):
        raise RequestRefused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)


def check_batch(
    context: RequestContext,
    request: ProduceRequest,
    topic: Topic,
    config: LogConfig,
    records: memoryview | None,
    now_ms: int,
) -> BatchHeader:
    """The one batch of `records`, sound and fit for a log of `topic`; may patch it.

    Raises KafkaError, UnreadableBatch and RequestRefused.
    """
    if request.acks not in ACKS or topic.internal:
        _check_target(context, request, topic, records)
    transactional = is_transactional(records)
    if transactional and request.transactional_id is None:
        raise RequestRefused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    batch = parse_produced(records, version=context.api_version, max_message_bytes=config.max_message_bytes)
    assert records is not None
    if batch.size > config.segment_bytes:
        raise KafkaError(ErrorCode.RECORD_LIST_TOO_LARGE)
    _check_times(config, batch, records, now_ms)
    if config.cleanup_policy != "delete" and "compact" in config.cleanup_policy:
        _refuse_where(records, lambda record: record.key is None, ErrorCode.INVALID_RECORD, "no key")
    return batch


def _check_target(context: RequestContext, request: ProduceRequest, topic: Topic, records: memoryview | None) -> None:
    """Kafka looks for the batch first, then at acks and at whether the topic may be written to."""
    if records is None or len(walk_batches(records)) != 1:
        raise KafkaError(ErrorCode.INVALID_RECORD)
    if request.acks not in ACKS:
        raise KafkaError(ErrorCode.INVALID_REQUIRED_ACKS)
    if topic.internal and context.client_id != ADMIN_CLIENT_ID:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION)


def _check_times(config: LogConfig, batch: BatchHeader, records: memoryview, now_ms: int) -> None:
    times = record_times(records, batch)
    if config.message_timestamp_type == "LogAppendTime":
        if batch.log_append_time:
            indexes = [*range(batch.record_count)]
            raise InvalidRecords(ErrorCode.INVALID_TIMESTAMP, "LogAppendTime is for the broker to set", indexes)
        return
    earliest = now_ms - config.message_timestamp_before_max_ms
    latest = now_ms + config.message_timestamp_after_max_ms
    first, last = times or (batch.base_timestamp, batch.max_timestamp)
    if max(first, last) > latest or min(first, last) < earliest:
        # Some time may be out of range; the records say which.
        _refuse_where(
            records,
            lambda record: record.timestamp_ms != NO_TIMESTAMP and not earliest <= record.timestamp_ms <= latest,
            ErrorCode.INVALID_TIMESTAMP,
            f"a timestamp outside {earliest} to {latest}",
        )
    if batch.attributes & LOG_APPEND_TIME or last != batch.max_timestamp:
        _correct_header(records, batch, last)


def _refuse_where(records: memoryview, is_wrong: Callable[[Record], bool], code: ErrorCode, message: str) -> None:
    """Raises InvalidRecords naming the records that are wrong. Decompresses, so not for every batch."""
    indexes = [index for index, record in enumerate(iterate_records(records)) if is_wrong(record)]
    if indexes:
        raise InvalidRecords(code, message, indexes)


def _correct_header(records: memoryview, batch: BatchHeader, max_timestamp: int) -> None:
    """The topic keeps the producer's times: the header must not say that they are the broker's, nor another largest one."""
    batch.attributes &= ~LOG_APPEND_TIME
    batch.max_timestamp = min(max(max_timestamp, NO_TIMESTAMP), INT64_MAX)
    struct.pack_into(">h", records, ATTRIBUTES_POSITION - 1, batch.attributes)
    struct.pack_into(">q", records, MAX_TIMESTAMP_POSITION, batch.max_timestamp)
    batch.crc = crc32c(records[ATTRIBUTES_POSITION - 1 : batch.size])
    struct.pack_into(">I", records, CRC_POSITION, batch.crc)
