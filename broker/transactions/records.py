"""The records of `__transaction_state`, in Kafka's own format: the transactional id as key, version 1 as value, null deletes."""

import struct
from dataclasses import dataclass

from broker.journal import JournalFormat
from broker.transactions.transaction import NO_PRODUCER_ID, Transaction, TransactionState
from protocol.codec import decode_data, encode_data
from protocol.messages import TransactionLogKey, TransactionLogValue

TRANSACTION_TOPIC = "__transaction_state"
# As Kafka creates it (transaction.state.log.segment.bytes, min.isr).
TRANSACTION_TOPIC_CONFIGS: dict[str, str | None] = {
    "cleanup.policy": "compact",
    "compression.type": "uncompressed",
    "min.insync.replicas": "1",
    "segment.bytes": str(100 * 1024 * 1024),
    "unclean.leader.election.enable": "false",
}
_VERSION = struct.Struct(">h")
_KEY_VERSION = 0
_VALUE_VERSION = 1


@dataclass(frozen=True, slots=True)
class TransactionRecord:
    """What became of a transactional id, or with `value` None that it is forgotten."""

    transactional_id: str
    value: Transaction | None


def encode_record(record: TransactionRecord) -> tuple[bytes, bytes | None]:
    """Key and value as they are written to the log."""
    key = TransactionLogKey(transactional_id=record.transactional_id)
    key_bytes = _VERSION.pack(_KEY_VERSION) + encode_data("TransactionLogKey", _KEY_VERSION, key)
    return key_bytes, None if record.value is None else _encode_value(record.value)


def decode_record(key: bytes, value: bytes | None) -> TransactionRecord | None:
    """The inverse; None for a key of another kind. Raises MalformedMessage."""
    if len(key) < _VERSION.size or _VERSION.unpack_from(key)[0] != _KEY_VERSION:
        return None
    decoded: TransactionLogKey = decode_data("TransactionLogKey", _KEY_VERSION, key, _VERSION.size)
    transactional_id = decoded.transactional_id
    return TransactionRecord(transactional_id, None if value is None else _decode_value(transactional_id, value))


def _encode_value(transaction: Transaction) -> bytes:
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(transaction.partitions):
        by_topic.setdefault(topic, []).append(partition)
    value = TransactionLogValue(
        producer_id=transaction.producer_id,
        previous_producer_id=transaction.producer_id
        if transaction.previous_producer_id == NO_PRODUCER_ID
        else transaction.previous_producer_id,
        next_producer_id=transaction.next_producer_id,
        producer_epoch=transaction.producer_epoch,
        transaction_timeout_ms=transaction.timeout_ms,
        transaction_status=transaction.state,
        transaction_partitions=[
            TransactionLogValue.PartitionsSchema(topic=topic, partition_ids=partitions)
            for topic, partitions in by_topic.items()
        ]
        if transaction.state is not TransactionState.EMPTY
        else None,
        transaction_last_update_timestamp_ms=transaction.updated_ms,
        transaction_start_timestamp_ms=transaction.start_ms,
        client_transaction_version=transaction.client_version,
    )
    return _VERSION.pack(_VALUE_VERSION) + encode_data("TransactionLogValue", _VALUE_VERSION, value)


def _decode_value(transactional_id: str, data: bytes) -> Transaction:
    version = _VERSION.unpack_from(data)[0]
    value: TransactionLogValue = decode_data("TransactionLogValue", version, data, _VERSION.size)
    return Transaction(
        transactional_id=transactional_id,
        producer_id=value.producer_id,
        producer_epoch=value.producer_epoch,
        last_producer_epoch=_last_epoch(value),
        # Kafka writes the same id twice where there was no other.
        previous_producer_id=NO_PRODUCER_ID
        if value.previous_producer_id == value.producer_id
        else value.previous_producer_id,
        next_producer_id=value.next_producer_id,
        timeout_ms=value.transaction_timeout_ms,
        state=TransactionState(value.transaction_status),
        partitions=frozenset(
            (topic.topic, partition)
            for topic in value.transaction_partitions or ()
            for partition in topic.partition_ids
        ),
        start_ms=value.transaction_start_timestamp_ms,
        updated_ms=value.transaction_last_update_timestamp_ms,
        client_version=value.client_transaction_version,
    )


def _last_epoch(value: TransactionLogValue) -> int:
    """Kafka does not write it; where every end brings an epoch it is the one before."""
    ended = value.transaction_status in (TransactionState.COMPLETE_COMMIT, TransactionState.COMPLETE_ABORT)
    return value.producer_epoch - 1 if ended and value.client_transaction_version and value.producer_epoch > 0 else -1


TRANSACTION_JOURNAL: JournalFormat[TransactionRecord] = JournalFormat(
    TRANSACTION_TOPIC,
    TRANSACTION_TOPIC_CONFIGS,
    encode_record,
    decode_record,
    name_of=lambda record: record.transactional_id,
)
