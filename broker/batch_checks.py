"""What Produce asks of a batch before a log may have it: Kafka's checks, in Kafka's order, with Kafka's codes.

The batch's header and checksum are always checked, its records only where that is cheap or a topic needs it.
"""

import struct
from collections.abc import Callable

from broker.context import RequestContext
from broker.topics import Topic
from protocol.compression import opening_fits
from protocol.crc import crc32c
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import ProduceRequest
from protocol.record_batch import (
    BATCH_OVERHEAD,
    BatchHeader,
    Compression,
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
# In batches of more records, and in compressed ones, the broker trusts the header: walking costs 0.2 microseconds for
# each record, which for 100-byte records would multiply the price of a megabyte.
WALKED_RECORDS_MAX = 8
VARINT_BITS_MAX = 35
# The low byte of a batch's attributes; its checksum.
ATTRIBUTES_POSITION, CRC_POSITION = 22, 17
CODEC_MASK, LOG_APPEND_TIME, TRANSACTIONAL = 0x07, 0x08, 0x10


class InvalidRecords(KafkaError):
    """Single records of a batch are refused; `indexes` names them (KIP-467)."""

    def __init__(self, code: ErrorCode, message: str, indexes: list[int]) -> None:
        super().__init__(code, message)
        self.indexes = indexes


class RequestRefused(KafkaError):
    """No partition of the request is written, whatever the others hold."""


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
    transactional = (
        records is not None and len(records) > ATTRIBUTES_POSITION and records[ATTRIBUTES_POSITION] & TRANSACTIONAL
    )
    if transactional and request.transactional_id is None:
        raise RequestRefused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    batch = parse_produced(records, version=context.api_version, max_message_bytes=config.max_message_bytes)
    assert records is not None
    if transactional and batch.producer_id >= 0:
        # Without a transaction that the coordinator knows; transactions are not supported yet.
        raise KafkaError(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
    if batch.size > config.segment_bytes:
        raise KafkaError(ErrorCode.RECORD_LIST_TOO_LARGE)
    _check_times(config, batch, records, now_ms)
    codec = batch.attributes & CODEC_MASK
    if not codec:
        if batch.record_count <= WALKED_RECORDS_MAX:
            _check_lengths(records, batch)
    elif codec > Compression.ZSTD or not opening_fits(codec, records[BATCH_OVERHEAD : batch.size]):
        # Kafka's own answer to a codec that does not exist, and to a payload that the codec cannot begin to read.
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
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
    if config.message_timestamp_type == "LogAppendTime":
        if batch.log_append_time:
            indexes = [*range(batch.record_count)]
            raise InvalidRecords(ErrorCode.INVALID_TIMESTAMP, "LogAppendTime is for the broker to set", indexes)
        return
    earliest = now_ms - config.message_timestamp_before_max_ms
    latest = now_ms + config.message_timestamp_after_max_ms
    if batch.attributes & LOG_APPEND_TIME:
        _clear_log_append_time(records, batch)
    if batch.max_timestamp > latest or batch.base_timestamp < earliest:
        # The header says that some time may be out of range; the records say which.
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
    """Follows the records' lengths: as many records as the header says, and nothing behind them."""
    position = BATCH_OVERHEAD
    try:
        for _ in range(batch.record_count):
            length, shift = records[position], 7
            position += 1
            while (
                length >> shift and shift < VARINT_BITS_MAX
            ):  # the last byte's highest bit says that the varint goes on
                length = length - (1 << shift) + (records[position] << shift)
                position += 1
                shift += 7
            # Zigzag: odd is negative.
            position += -1 if length & 1 else length >> 1
    except IndexError:
        position = -1
    if position != batch.size:
        raise KafkaError(ErrorCode.INVALID_RECORD)
