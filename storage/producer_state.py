"""What a log knows of its idempotent and transactional producers: the rules that refuse duplicates and gaps (KIP-98), and
which transactions are open.

Source: ProducerAppendInfo, ProducerStateEntry and ProducerStateManager of Apache Kafka 4; `research` part 2.3 in the order
given there.
"""

from typing import Any

from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import BatchHeader, read_marker
from storage.aborted_transactions import AbortedTransaction

BATCHES_REMEMBERED = 5
"""As many as a producer may have in flight (max.in.flight.requests.per.connection of an idempotent producer)."""
NO_COORDINATOR_EPOCH = -1
_SEQUENCE_MASK = 0x7FFFFFFF
"""The sequence after 2147483647 is 0."""

Batch = tuple[int, int, int, int]
"""First sequence, last sequence, base offset, timestamp in ms."""


class Producer:
    """One producer's last batches."""

    __slots__ = ("batches", "coordinator_epoch", "epoch", "last_active_ms", "producer_id")

    def __init__(
        self,
        producer_id: int,
        epoch: int,
        last_active_ms: int,
        batches: list[Batch],
        coordinator_epoch: int = NO_COORDINATOR_EPOCH,
    ) -> None:
        self.producer_id = producer_id
        self.epoch = epoch
        self.last_active_ms = last_active_ms
        self.batches = batches
        """Of this epoch only, oldest first; none if all that this epoch has written are transaction markers."""
        self.coordinator_epoch = coordinator_epoch
        """Of its last transaction marker here."""

    @property
    def last_sequence(self) -> int:
        """Of the newest record; -1 if this epoch has written none."""
        return self.batches[-1][1] if self.batches else -1

    @property
    def last_timestamp(self) -> int:
        """Of the newest batch, in ms."""
        return self.batches[-1][3] if self.batches else self.last_active_ms


class ProducerState:
    """The producers of one log by id, and the transactions that keep its last stable offset back."""

    __slots__ = ("ending", "open_transactions", "producers")

    def __init__(self) -> None:
        self.producers: dict[int, Producer] = {}
        self.open_transactions: dict[int, int] = {}
        """Producer id -> first offset, in the order of these offsets."""
        self.ending: list[tuple[int, int]] = []
        """(first offset, marker's offset) of transactions whose marker is not durable yet: a crash may open them again."""

    # ------------------------------------------------------------------ batches

    def duplicate_of(self, producer_id: int, epoch: int, base_sequence: int, last_offset_delta: int) -> Batch | None:
        """The batch written before that this one repeats, or None if it is the next in order.

        KafkaError: INVALID_PRODUCER_EPOCH if a newer epoch has written, OUT_OF_ORDER_SEQUENCE_NUMBER after a gap.
        """
        producer = self.producers.get(producer_id)
        if producer is None:
            # Unknown, expired or its records were deleted: any sequence will do (KAFKA-5793; 59 is no longer sent).
            return None
        if epoch == producer.epoch:
            batches = producer.batches
            if base_sequence == ((batches[-1][1] + 1) & _SEQUENCE_MASK if batches else 0):
                return None
            last_sequence = (base_sequence + last_offset_delta) & _SEQUENCE_MASK
            if base_sequence < 0:
                # A coordinator's own write in the name of a producer: it does not count.
                return None
            for batch in batches:
                if batch[0] == base_sequence and batch[1] == last_sequence:
                    return batch
            raise KafkaError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"producer {producer_id} sent sequence {base_sequence} after {producer.last_sequence}",
            )
        if epoch < producer.epoch:
            raise KafkaError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"producer {producer_id} has epoch {producer.epoch}; a batch of epoch {epoch} came too late",
            )
        if base_sequence > 0:
            raise KafkaError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"producer {producer_id} began epoch {epoch} with sequence {base_sequence}, not 0",
            )
        return None

    def update(
        self,
        producer_id: int,
        epoch: int,
        base_sequence: int,
        last_offset_delta: int,
        base_offset: int,
        timestamp: int,
        now_ms: int,
    ) -> None:
        """Remember a batch that was accepted."""
        batch = (base_sequence, (base_sequence + last_offset_delta) & _SEQUENCE_MASK, base_offset, timestamp)
        producer = self.producers.get(producer_id)
        if producer is None:
            producer = self.producers[producer_id] = Producer(producer_id, epoch, now_ms, [])
        producer.last_active_ms = now_ms
        batches = producer.batches
        if producer.epoch != epoch:
            producer.epoch = epoch
            batches.clear()
        if base_sequence < 0:
            return
        batches.append(batch)
        if len(batches) > BATCHES_REMEMBERED:
            del batches[0]

    # ------------------------------------------------------------------ transactions

    @property
    def first_unstable_offset(self) -> int | None:
        """Of the oldest transaction that is open, or not durably ended; None without any."""
        first = next(iter(self.open_transactions.values()), None)
        if self.ending:
            ended = min(self.ending)[0]
            return ended if first is None else min(first, ended)
        return first

    def begin_transaction(self, producer_id: int, base_offset: int) -> None:
        """A transactional batch was written: the first one opens the transaction."""
        self.open_transactions.setdefault(producer_id, base_offset)

    def check_marker(self, producer_id: int, epoch: int, coordinator_epoch: int) -> None:
        """KafkaError: INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED for a marker that comes too late."""
        producer = self.producers.get(producer_id)
        if producer is None:
            return
        if epoch < producer.epoch:
            raise KafkaError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"producer {producer_id} has epoch {producer.epoch}; a marker of epoch {epoch} came too late",
            )
        if coordinator_epoch < producer.coordinator_epoch:
            raise KafkaError(
                ErrorCode.TRANSACTION_COORDINATOR_FENCED,
                f"a marker of coordinator epoch {coordinator_epoch} came after one of {producer.coordinator_epoch}",
            )

    def end_transaction(
        self, producer_id: int, epoch: int, coordinator_epoch: int, marker_offset: int, *, commit: bool, now_ms: int
    ) -> AbortedTransaction | None:
        """A marker was written; the transaction if it was open and is aborted now."""
        producer = self.producers.get(producer_id)
        if producer is None:
            producer = self.producers[producer_id] = Producer(producer_id, epoch, now_ms, [])
        elif producer.epoch != epoch:
            # The marker of a producer that was fenced, or of a transaction of KIP-890, brings the next epoch.
            producer.epoch = epoch
            producer.batches.clear()
        producer.coordinator_epoch = coordinator_epoch
        producer.last_active_ms = now_ms
        first_offset = self.open_transactions.pop(producer_id, None)
        if first_offset is None:
            return None
        self.ending.append((first_offset, marker_offset))
        if commit:
            return None
        last_stable_offset = next(iter(self.open_transactions.values()), marker_offset + 1)
        return AbortedTransaction(producer_id, first_offset, marker_offset, last_stable_offset)

    def settle(self, high_watermark: int) -> None:
        """Markers below are durable."""
        self.ending = [ended for ended in self.ending if ended[1] >= high_watermark]

    # ------------------------------------------------------------------ life

    def take_up(self, batch: BatchHeader, data: memoryview, now_ms: int) -> AbortedTransaction | None:
        """A batch that is in the log, `data` its bytes; the transaction that it aborts, if it does."""
        if batch.producer_id < 0:
            return None
        if batch.control:
            marker = read_marker(data)
            if marker is None:
                return None
            return self.end_transaction(
                batch.producer_id, batch.producer_epoch, marker.coordinator_epoch, batch.base_offset,
                commit=marker.commit, now_ms=now_ms,
            )  # fmt: skip
        self.update(
            batch.producer_id, batch.producer_epoch, batch.base_sequence, batch.last_offset_delta,
            batch.base_offset, batch.max_timestamp, now_ms,
        )  # fmt: skip
        if batch.transactional:
            self.begin_transaction(batch.producer_id, batch.base_offset)
        return None

    def expire(self, before_ms: int) -> None:
        """Forget producers that have written nothing since and have no open transaction."""
        expired = [
            key
            for key, producer in self.producers.items()
            if producer.last_active_ms < before_ms and key not in self.open_transactions
        ]
        for key in expired:
            del self.producers[key]

    def drop_from(self, log_end_offset: int) -> None:
        """Forget batches at or beyond a cut end; the transactions are then to be found anew."""
        for key, producer in list(self.producers.items()):
            producer.batches = [batch for batch in producer.batches if batch[2] < log_end_offset]
            if not producer.batches:
                del self.producers[key]

    def last_offsets(self, end_offset: int) -> dict[int, int]:
        """By producer id the offset of its last record below `end_offset`, as far as it is remembered."""
        return {
            producer_id: offset + ((last - first) & _SEQUENCE_MASK)
            for producer_id, producer in self.producers.items()
            for first, last, offset, _ in producer.batches
            if offset < end_offset
        }

    def marker_epochs(self) -> dict[int, int]:
        """By producer id the epoch of those that have written transaction markers alone."""
        return {key: producer.epoch for key, producer in self.producers.items() if not producer.batches}

    def snapshot(self) -> list[list[object]]:
        """For the checkpoint; see `restore`. Copied: it is packed only after the batches so far are durable."""
        return [
            [
                p.producer_id, p.epoch, p.last_active_ms, list(p.batches), p.coordinator_epoch,
                self.open_transactions.get(p.producer_id, -1),
            ]
            for p in self.producers.values()
        ]  # fmt: skip

    def restore(self, snapshot: list[list[Any]]) -> None:
        """Replace everything by a snapshot; one of before transactions ends with the batches."""
        self.producers, first_offsets = {}, []
        for producer_id, epoch, active_ms, batches, *transactions in snapshot:
            coordinator_epoch, first_offset = transactions or (NO_COORDINATOR_EPOCH, -1)
            self.producers[producer_id] = Producer(
                producer_id, epoch, active_ms, [tuple(batch) for batch in batches], coordinator_epoch
            )
            if first_offset >= 0:
                first_offsets.append((first_offset, producer_id))
        self.open_transactions = {producer_id: first_offset for first_offset, producer_id in sorted(first_offsets)}
        self.ending = []
