"""What the coordinator knows of one transactional id, and how it changes: pure, without clock, log or clients.

A `Transaction` is a value; each operation returns the next one or raises what to answer. There are two protocols side by
side: in the older one (`client_version` below 2) clients add partitions themselves and keep their epoch; with KIP-890 every
end of a transaction gives the producer its next epoch, so that a late request of an earlier one is recognised.

Source: TransactionMetadata and TransactionCoordinator of Apache Kafka 4.3.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Self

from broker.producer_ids import ProducerIdAndEpoch
from protocol.errors import ErrorCode, KafkaError

NO_PRODUCER_ID = -1
NO_EPOCH = -1
NO_TIMESTAMP = -1
LAST_EPOCH = 32766
"""The last one that a producer gets; 32767 is left for the marker that fences it."""
CLASSIC, EPOCH_BUMPING = 0, 2
"""Levels of the feature transaction.version, as far as clients differ by them."""

Partition = tuple[str, int]
"""Topic and partition."""
NewProducerId = Callable[[], int]


class TransactionState(IntEnum):
    """Numbers as Kafka writes them. A prepared transaction is decided: its markers are being written."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5
    DEAD = 6
    PREPARE_EPOCH_FENCE = 7

    @property
    def label(self) -> str:
        """As Kafka prints it: `CompleteCommit`."""
        return "".join(word.capitalize() for word in self.name.split("_"))


PREPARED = frozenset((TransactionState.PREPARE_COMMIT, TransactionState.PREPARE_ABORT))
ENDED = frozenset((TransactionState.EMPTY, TransactionState.COMPLETE_COMMIT, TransactionState.COMPLETE_ABORT))


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transactional id."""

    transactional_id: str
    producer_id: int
    producer_epoch: int = NO_EPOCH
    last_producer_epoch: int = NO_EPOCH
    """The epoch before, if its producer may ask again for what it has missed; -1 once another has taken over."""
    previous_producer_id: int = NO_PRODUCER_ID
    next_producer_id: int = NO_PRODUCER_ID
    """For when the transaction has ended: the epochs of this producer id are used up."""
    timeout_ms: int = 0
    state: TransactionState = TransactionState.EMPTY
    partitions: frozenset[Partition] = frozenset()
    start_ms: int = NO_TIMESTAMP
    updated_ms: int = NO_TIMESTAMP
    client_version: int = CLASSIC

    @property
    def producer(self) -> ProducerIdAndEpoch:
        return ProducerIdAndEpoch(self.producer_id, self.producer_epoch)

    @property
    def commits(self) -> bool:
        """Of a prepared transaction: which markers it gets."""
        return self.state is TransactionState.PREPARE_COMMIT

    def timed_out(self, now_ms: int) -> bool:
        """Whether an open transaction is to be aborted."""
        return self.state is TransactionState.ONGOING and now_ms >= self.start_ms + self.timeout_ms

    def expired(self, now_ms: int, expiration_ms: int) -> bool:
        """Whether the transactional id may be forgotten."""
        return self.state in ENDED and now_ms >= self.updated_ms + expiration_ms

    # ---- producers -----------------------------------------------------------------------------------------------

    def init(
        self, expected: ProducerIdAndEpoch | None, timeout_ms: int, *, now_ms: int, new_producer_id: NewProducerId
    ) -> Self:
        """InitProducerId: the producer that gets the next epoch, and with it fences all before it.

        `expected`: who the caller has been; a retry is answered with the epoch that it has missed (KIP-360). Raises
        KafkaError PRODUCER_FENCED, CONCURRENT_TRANSACTIONS. An open transaction must have been aborted before.
        """
        self.check_expected(expected)
        if self.state not in ENDED:
            raise KafkaError(ErrorCode.CONCURRENT_TRANSACTIONS)
        fresh = replace(
            self,
            state=TransactionState.EMPTY,
            partitions=frozenset(),
            start_ms=NO_TIMESTAMP,
            updated_ms=now_ms,
            timeout_ms=timeout_ms,
        )
        last_epoch = NO_EPOCH if expected is None else self.producer_epoch
        if self.producer_epoch >= LAST_EPOCH:
            return replace(
                fresh,
                producer_id=new_producer_id(),
                producer_epoch=0,
                previous_producer_id=self.producer_id,
                last_producer_epoch=last_epoch,
            )
        if expected is not None and self.producer_epoch not in (NO_EPOCH, expected.producer_epoch):
            return fresh  # it has missed the answer
        return replace(fresh, producer_epoch=self.producer_epoch + 1, last_producer_epoch=last_epoch)

    def check_expected(self, expected: ProducerIdAndEpoch | None) -> None:
        """KafkaError PRODUCER_FENCED if the caller of InitProducerId has been another producer than the last one.

        A zombie must not abort the transaction of the one that has taken over.
        """
        if expected is None or self.producer_epoch == NO_EPOCH or expected == self.producer:
            return
        missed_epoch = expected.producer_epoch == self.last_producer_epoch != NO_EPOCH
        last_id = self.previous_producer_id if expected.producer_epoch >= LAST_EPOCH else self.producer_id
        zombie = self.state is TransactionState.ONGOING or not missed_epoch
        if zombie or expected.producer_id not in (self.producer_id, last_id):
            raise KafkaError(ErrorCode.PRODUCER_FENCED)

    def _check(self, producer: ProducerIdAndEpoch) -> None:
        if producer.producer_id != self.producer_id:
            raise KafkaError(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        if producer.producer_epoch != self.producer_epoch:
            raise KafkaError(ErrorCode.PRODUCER_FENCED)
        if self.state in PREPARED:
            raise KafkaError(ErrorCode.CONCURRENT_TRANSACTIONS)

    # ---- partitions ----------------------------------------------------------------------------------------------

    def add(
        self, producer: ProducerIdAndEpoch, partitions: Iterable[Partition], *, client_version: int, now_ms: int
    ) -> Self:
        """The producer is about to write to partitions; the first ones begin a transaction. The same value if it knows them.

        Raises KafkaError INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS.
        """
        self._check(producer)
        added = self.partitions.union(partitions) if self.state is TransactionState.ONGOING else frozenset(partitions)
        if self.state is TransactionState.ONGOING and added == self.partitions:
            return self
        return replace(
            self,
            state=TransactionState.ONGOING,
            partitions=added,
            start_ms=self.start_ms if self.state is TransactionState.ONGOING else now_ms,
            updated_ms=now_ms,
            client_version=client_version,
        )

    def verify(self, producer: ProducerIdAndEpoch, partitions: Iterable[Partition]) -> dict[Partition, ErrorCode]:
        """For each partition whether the producer's open transaction has it: TRANSACTION_ABORTABLE if not. Raises as `add`."""
        self._check(producer)
        return {
            partition: ErrorCode.NONE if partition in self.partitions else ErrorCode.TRANSACTION_ABORTABLE
            for partition in partitions
        }

    # ---- the end -------------------------------------------------------------------------------------------------

    def end(
        self,
        producer: ProducerIdAndEpoch,
        *,
        commit: bool,
        client_version: int,
        now_ms: int,
        new_producer_id: NewProducerId,
    ) -> Self:
        """EndTxn: the prepared transaction; the same value if it has ended in this way and the producer asks again.

        Raises KafkaError INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, INVALID_TXN_STATE, CONCURRENT_TRANSACTIONS.
        """
        if client_version >= EPOCH_BUMPING:
            retry = self._is_retry(producer)
            if not retry and self.state not in PREPARED:
                self._check(producer)
            elif not retry:
                mapped = producer.producer_id == self.producer_id
                raise KafkaError(ErrorCode.PRODUCER_FENCED if mapped else ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        else:
            retry = self.state is not TransactionState.EMPTY
            if self.state not in PREPARED:
                self._check(producer)
            elif producer != self.producer:
                mapped = producer.producer_id == self.producer_id
                raise KafkaError(ErrorCode.PRODUCER_FENCED if mapped else ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        if self.state is TransactionState.ONGOING:
            return self._prepare(self.start_ms, commit, client_version, now_ms, new_producer_id)
        if self.state in PREPARED:
            raise KafkaError(
                ErrorCode.CONCURRENT_TRANSACTIONS if commit == self.commits else ErrorCode.INVALID_TXN_STATE
            )
        done = TransactionState.COMPLETE_COMMIT if commit else TransactionState.COMPLETE_ABORT
        if retry and self.state is done:
            return self
        if retry or commit or client_version < EPOCH_BUMPING:
            raise KafkaError(ErrorCode.INVALID_TXN_STATE)
        # With KIP-890 a producer may abort without knowing whether its transaction has begun.
        return self._prepare(now_ms, commit, client_version, now_ms, new_producer_id)

    def _prepare(
        self, start_ms: int, commit: bool, client_version: int, now_ms: int, new_producer_id: NewProducerId
    ) -> Self:
        """The decision, without a question who asks for it."""
        state = TransactionState.PREPARE_COMMIT if commit else TransactionState.PREPARE_ABORT
        prepared = replace(self, state=state, start_ms=start_ms, updated_ms=now_ms, client_version=client_version)
        if client_version < EPOCH_BUMPING:
            return prepared
        return replace(
            prepared,
            producer_epoch=self.producer_epoch + 1,
            last_producer_epoch=self.producer_epoch,
            next_producer_id=new_producer_id() if self.producer_epoch >= LAST_EPOCH else NO_PRODUCER_ID,
        )

    def _is_retry(self, producer: ProducerIdAndEpoch) -> bool:
        """Whether the producer has missed the answer to its EndTxn, and with it its next epoch."""
        producer_id, epoch = producer
        if self.state in (TransactionState.EMPTY, TransactionState.ONGOING):
            return False
        if producer_id == self.producer_id:
            return epoch + 1 == self.producer_epoch
        return producer_id == self.previous_producer_id and epoch == LAST_EPOCH and self.producer_epoch == 0

    def abort(self, *, now_ms: int) -> Self:
        """The coordinator aborts an open transaction: it timed out, or another producer takes over. Its producer is fenced."""
        return replace(
            self,
            state=TransactionState.PREPARE_ABORT,
            producer_epoch=self.producer_epoch + 1,
            last_producer_epoch=self.producer_epoch,
            updated_ms=now_ms,
            client_version=EPOCH_BUMPING,
        )

    def complete(self, *, now_ms: int) -> Self:
        """All markers of the prepared transaction are written."""
        done = TransactionState.COMPLETE_COMMIT if self.commits else TransactionState.COMPLETE_ABORT
        completed = replace(self, state=done, partitions=frozenset(), updated_ms=now_ms)
        if self.next_producer_id == NO_PRODUCER_ID:
            return completed
        return replace(
            completed,
            producer_id=self.next_producer_id,
            producer_epoch=0,
            previous_producer_id=self.producer_id,
            next_producer_id=NO_PRODUCER_ID,
        )
