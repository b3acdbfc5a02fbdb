"""Whether a transactional batch may be written: its partition must be part of its producer's open transaction (KIP-890)."""

from broker.context import RequestContext
from broker.producer_ids import ProducerIdAndEpoch
from broker.transactions.transaction import EPOCH_BUMPING
from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import BatchHeader
from storage.log import PartitionLog

# Versions of Produce: from the first on TRANSACTION_ABORTABLE is known, from the second on a batch adds its partition itself.
ABORTABLE_FROM = 11
ADDS_PARTITION_FROM = 12


class NotInTransaction(KafkaError):
    """The coordinator does not let the batch in; the log has not looked at it."""


def enter_transaction(context: RequestContext, transactional_id: str, log: PartitionLog, batch: BatchHeader) -> None:
    """Adds the partition to the producer's transaction, or in older versions checks that it has been added.

    Raises NotInTransaction, and KafkaError OUT_OF_ORDER_SEQUENCE_NUMBER.
    """
    state, producer_id = log.producers, batch.producer_id
    if producer_id in state.open_transactions and state.producers[producer_id].epoch == batch.producer_epoch:
        return
    code = _ask(context, transactional_id, log, batch)
    if code:
        raise NotInTransaction(_translated(code, context.api_version), "The transaction does not have the partition.")
    if context.api_version >= ADDS_PARTITION_FROM and batch.base_sequence and producer_id not in state.producers:
        raise KafkaError(
            ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
            f"producer {producer_id} began with sequence {batch.base_sequence}, not 0",
        )


def _ask(context: RequestContext, transactional_id: str, log: PartitionLog, batch: BatchHeader) -> ErrorCode:
    transactions, partition = context.services.transactions, (log.topic, log.partition)
    producer = ProducerIdAndEpoch(batch.producer_id, batch.producer_epoch)
    try:
        if context.api_version < ADDS_PARTITION_FROM:
            return transactions.verify(transactional_id, producer, [partition])[partition]
        transactions.add_partitions(transactional_id, producer, [partition], EPOCH_BUMPING)
    except KafkaError as error:
        return error.code
    return ErrorCode.NONE


def _translated(code: ErrorCode, version: int) -> ErrorCode:
    """What producers of this version know how to handle; nothing retriable may end a transaction."""
    if code is ErrorCode.PRODUCER_FENCED:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    if code is ErrorCode.TRANSACTION_ABORTABLE and version < ABORTABLE_FROM:
        return ErrorCode.INVALID_TXN_STATE
    if code is ErrorCode.CONCURRENT_TRANSACTIONS and version >= ADDS_PARTITION_FROM:
        return code
    return ErrorCode.NOT_ENOUGH_REPLICAS if code.retriable else code
