"""The transaction coordinator: transactional ids tied to the journal, to the logs that get markers, and to timers.

Everything happens in the turn of the loop in which it is asked for, in one order in the WAL: what a transaction is about to
write to, its records, the decision, the markers, the end. So whatever a crash leaves behind can be finished at the start, and
no client ever has to wait for markers. No answer leaves before the records that it rests on are durable.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import structlog

from broker.config import Config
from broker.coordinator.names import is_too_long
from broker.coordinator.offset_coordinator import OffsetCoordinator
from broker.coordinator.records import OFFSETS_TOPIC
from broker.journal import Journal, TransactionalRecord, TransactionEnd
from broker.producer_ids import ProducerIdAndEpoch, ProducerIds
from broker.scheduler import Scheduler, Timer
from broker.topics import Topics
from broker.transactions.records import TRANSACTION_JOURNAL, TransactionRecord
from broker.transactions.transaction import PREPARED, Partition, Transaction, TransactionState
from protocol.errors import ErrorCode, KafkaError
from storage.clock import Clock
from storage.log_manager import LogManager

logger = structlog.get_logger(__name__)

# One broker has one coordinator, which nobody succeeds.
COORDINATOR_EPOCH = 0
# A full disk refuses markers; it is asked again until they are written.
MARKER_RETRY_S = 1.0
# transaction.remove.expired.transaction.cleanup.interval.ms of Kafka.
EXPIRATION_CHECK_S = 3600.0


@dataclass(slots=True)
class _Entry:
    """A transactional id and what belongs to it."""

    transaction: Transaction
    sequence: int = 0
    """Storage sequence of the last record written for it, markers included."""
    unmarked: frozenset[Partition] = frozenset()
    """Of a prepared transaction: where markers are missing."""
    timer: Timer | None = None
    """Of an open transaction its timeout, of a prepared one the next attempt to end it."""


class TransactionCoordinator:
    """All transactional ids of this broker. Used from the event loop alone."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        topics: Topics,
        logs: LogManager,
        scheduler: Scheduler,
        producer_ids: ProducerIds,
        offsets: OffsetCoordinator,
    ) -> None:
        self._config = config
        self._clock = clock
        self._topics = topics
        self._logs = logs
        self._scheduler = scheduler
        self._producer_ids = producer_ids
        self._offsets = offsets
        partitions = config.transaction_state_log_num_partitions
        self._journal = Journal(TRANSACTION_JOURNAL, topics, clock, partitions)
        self._entries: dict[str, _Entry] = {}
        self._maintenance: Timer | None = None

    # ---- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Replays the journal, ends what was decided when the broker stopped, and goes on counting timeouts."""
        for item in self._journal.replay():
            assert not isinstance(item, TransactionalRecord | TransactionEnd)  # nothing here is part of a transaction
            if item.value is None:
                self._entries.pop(item.transactional_id, None)
            else:
                self._entries[item.transactional_id] = _Entry(item.value)
        for entry in self._entries.values():
            if entry.transaction.state in PREPARED:
                entry.unmarked = entry.transaction.partitions
                self._finish(entry)
            elif entry.transaction.state is TransactionState.ONGOING:
                self._await_timeout(entry)
        self._logs.commit()
        self._schedule_maintenance()
        logger.info("transactions loaded", count=len(self._entries))

    def stop(self) -> None:
        """Cancels every timer."""
        for timer in (self._maintenance, *(entry.timer for entry in self._entries.values())):
            if timer is not None:
                timer.cancel()

    def ensure_ready(self) -> None:
        """Creates the internal topic if need be, as Kafka does when a coordinator is first asked for. Raises KafkaError."""
        self._journal.ensure()

    # ---- producers -----------------------------------------------------------------------------------------------

    def init_producer_id(
        self, transactional_id: str, timeout_ms: int, expected: ProducerIdAndEpoch | None
    ) -> ProducerIdAndEpoch:
        """InitProducerId: the id and epoch of the producer that takes over; an open transaction is aborted before.

        Raises KafkaError INVALID_REQUEST, INVALID_TRANSACTION_TIMEOUT, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS, and
        COORDINATOR_NOT_AVAILABLE or NOT_COORDINATOR when it cannot be written.
        """
        if not transactional_id or is_too_long(transactional_id):
            raise KafkaError(ErrorCode.INVALID_REQUEST)
        if not 0 < timeout_ms <= self._config.transaction_max_timeout_ms:
            raise KafkaError(ErrorCode.INVALID_TRANSACTION_TIMEOUT)
        entry = self._entries.get(transactional_id)
        if entry is None:
            entry = _Entry(Transaction(transactional_id, self._new_producer_id()))
        elif entry.transaction.state is TransactionState.ONGOING:
            entry.transaction.check_expected(expected)
            self._abort(entry, "another producer takes over")
        changed = entry.transaction.init(
            expected, timeout_ms, now_ms=self._clock.time_ms(), new_producer_id=self._new_producer_id
        )
        self._write(entry, changed)
        self._entries[transactional_id] = entry
        return changed.producer

    def add_partitions(
        self, transactional_id: str, producer: ProducerIdAndEpoch, partitions: Iterable[Partition], client_version: int
    ) -> None:
        """The producer is about to write to these partitions. Raises KafkaError, see `Transaction.add` and `init_producer_id`."""
        entry = self._find(transactional_id)
        changed = entry.transaction.add(
            producer, partitions, client_version=client_version, now_ms=self._clock.time_ms()
        )
        if changed is entry.transaction:
            return
        begins = entry.transaction.state is not TransactionState.ONGOING
        self._write(entry, changed)
        if begins:
            self._await_timeout(entry)

    def add_group(
        self, transactional_id: str, producer: ProducerIdAndEpoch, group_id: str, client_version: int
    ) -> None:
        """The producer is about to commit offsets of the group. Raises KafkaError as `add_partitions`."""
        self.add_partitions(transactional_id, producer, [self._partition_of(group_id)], client_version)

    def verify(
        self, transactional_id: str, producer: ProducerIdAndEpoch, partitions: Iterable[Partition]
    ) -> dict[Partition, ErrorCode]:
        """Whether the producer has added the partitions, a code for each. Raises KafkaError, see `Transaction.verify`."""
        return self._find(transactional_id).transaction.verify(producer, partitions)

    def verify_group(self, transactional_id: str, producer: ProducerIdAndEpoch, group_id: str) -> ErrorCode:
        """Whether the producer has added the group. Raises KafkaError as `verify`."""
        partition = self._partition_of(group_id)
        return self.verify(transactional_id, producer, [partition])[partition]

    def end(
        self, transactional_id: str, producer: ProducerIdAndEpoch, *, commit: bool, client_version: int
    ) -> ProducerIdAndEpoch:
        """EndTxn: every marker is written when this returns; who the producer is from now on. Raises KafkaError."""
        entry = self._find(transactional_id)
        changed = entry.transaction.end(
            producer,
            commit=commit,
            client_version=client_version,
            now_ms=self._clock.time_ms(),
            new_producer_id=self._new_producer_id,
        )
        if changed is not entry.transaction:
            self._decide(entry, changed)
            if entry.transaction.state in PREPARED:
                raise KafkaError(ErrorCode.CONCURRENT_TRANSACTIONS)
        return entry.transaction.producer

    def when_durable(self, transactional_ids: Iterable[str], callback: Callable[[ErrorCode], None]) -> None:
        """Runs the callback once all that was written for these ids would survive a crash, or cannot."""
        sequence = max((self._entries[one].sequence for one in transactional_ids if one in self._entries), default=0)
        self._logs.when_durable(
            sequence, lambda failure: callback(ErrorCode.NONE if failure is None else ErrorCode.NOT_COORDINATOR)
        )

    # ---- administration ------------------------------------------------------------------------------------------

    def transaction(self, transactional_id: str) -> Transaction | None:
        """For describing."""
        entry = self._entries.get(transactional_id)
        return entry.transaction if entry is not None else None

    def transactions(self) -> Iterator[Transaction]:
        """All, for listing."""
        return (entry.transaction for entry in self._entries.values())

    def write_marker(
        self, partition: Partition, producer: ProducerIdAndEpoch, coordinator_epoch: int, *, commit: bool
    ) -> int:
        """Writes a marker whatever is known of the transaction (WriteTxnMarkers); its storage sequence.

        Raises KafkaError UNKNOWN_TOPIC_OR_PARTITION, INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED, KAFKA_STORAGE_ERROR.
        """
        topic, number = partition
        producer_id, producer_epoch = producer
        result = self._topics.log(topic, number).append_marker(
            producer_id, producer_epoch, coordinator_epoch, commit=commit, now_ms=self._clock.time_ms()
        )
        if topic == OFFSETS_TOPIC:
            self._offsets.end_transaction(number, producer_id, commit=commit, sequence=result.sequence)
        return result.sequence

    # ---- inside --------------------------------------------------------------------------------------------------

    def _find(self, transactional_id: str) -> _Entry:
        if not transactional_id:
            raise KafkaError(ErrorCode.INVALID_REQUEST)
        entry = self._entries.get(transactional_id)
        if entry is None:
            raise KafkaError(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        return entry

    def _partition_of(self, group_id: str) -> Partition:
        return OFFSETS_TOPIC, self._offsets.partition_of(group_id)

    def _new_producer_id(self) -> int:
        try:
            return self._producer_ids.next()
        except OSError as error:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE) from error  # retriable: space may come back

    def _write(self, entry: _Entry, changed: Transaction) -> None:
        """Appends the record, and only then is it so."""
        record = TransactionRecord(changed.transactional_id, changed)
        try:
            entry.sequence = self._journal.append(changed.transactional_id, [record])
        except KafkaError as error:
            logger.warning("transaction record refused", id=changed.transactional_id, error=str(error))
            raise KafkaError(ErrorCode.NOT_COORDINATOR) from error
        entry.transaction = changed

    def _abort(self, entry: _Entry, reason: str) -> None:
        transaction = entry.transaction
        logger.info("transaction aborted", id=transaction.transactional_id, reason=reason)
        self._decide(entry, transaction.abort(now_ms=self._clock.time_ms()))

    def _decide(self, entry: _Entry, prepared: Transaction) -> None:
        self._write(entry, prepared)
        self._set_timer(entry, None)
        entry.unmarked = prepared.partitions
        self._finish(entry)

    def _finish(self, entry: _Entry) -> None:
        """Writes the markers of a prepared transaction and ends it; if a full disk does not take them, later."""
        transaction = entry.transaction
        try:
            for partition in sorted(entry.unmarked):
                self._mark(entry, partition)
            self._write(entry, transaction.complete(now_ms=self._clock.time_ms()))
        except KafkaError as error:
            logger.warning("transaction not ended yet", id=transaction.transactional_id, error=str(error))
            self._set_timer(entry, self._scheduler.call_later(MARKER_RETRY_S, self._finish_later, entry))

    def _finish_later(self, entry: _Entry) -> None:
        entry.timer = None
        self._finish(entry)
        self._logs.commit()

    def _mark(self, entry: _Entry, partition: Partition) -> None:
        transaction = entry.transaction
        try:
            sequence = self.write_marker(partition, transaction.producer, COORDINATOR_EPOCH, commit=transaction.commits)
            entry.sequence = max(entry.sequence, sequence)
        except KafkaError as error:
            if error.code is ErrorCode.KAFKA_STORAGE_ERROR:
                raise
            # The topic was deleted, or an administrator has ended the transaction there.
            logger.info("no marker", id=transaction.transactional_id, partition=partition, reason=str(error))
        entry.unmarked -= {partition}

    def _await_timeout(self, entry: _Entry) -> None:
        transaction = entry.transaction
        due_ms = transaction.start_ms + transaction.timeout_ms - self._clock.time_ms()
        self._set_timer(entry, self._scheduler.call_later(max(due_ms, 0) / 1000, self._timed_out, entry))

    def _timed_out(self, entry: _Entry) -> None:
        entry.timer = None
        if entry.transaction.timed_out(self._clock.time_ms()):
            try:
                self._abort(entry, f"open for longer than {entry.transaction.timeout_ms} ms")
            except KafkaError:
                self._set_timer(entry, self._scheduler.call_later(MARKER_RETRY_S, self._timed_out, entry))
            self._logs.commit()
        elif entry.transaction.state is TransactionState.ONGOING:
            self._await_timeout(entry)  # the wall clock was set back

    def _set_timer(self, entry: _Entry, timer: Timer | None) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer = timer

    def _maintain(self) -> None:
        """Every hour: forgets transactional ids that nobody uses any more, and bounds the journal."""
        self._schedule_maintenance()
        now_ms, expiration_ms = self._clock.time_ms(), self._config.transactional_id_expiration_ms
        expired = [one for one, entry in self._entries.items() if entry.transaction.expired(now_ms, expiration_ms)]
        try:
            for transactional_id in expired:
                self._journal.append(transactional_id, [TransactionRecord(transactional_id, None)])
                del self._entries[transactional_id]
        except KafkaError as error:
            # What was not written waits for the next time.
            logger.warning("transaction records not maintained", error=str(error))
        self._journal.roll()
        self._logs.commit()

    def _schedule_maintenance(self) -> None:
        self._maintenance = self._scheduler.call_later(EXPIRATION_CHECK_S, self._maintain)
