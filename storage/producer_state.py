"""What a log knows of its idempotent producers: the rules that refuse duplicates and gaps (KIP-98).

Source: ProducerAppendInfo and ProducerStateEntry of Apache Kafka 4; `research` part 2.3 in the order given there.
"""

from protocol.errors import ErrorCode, KafkaError

BATCHES_REMEMBERED = 5
"""As many as a producer may have in flight (max.in.flight.requests.per.connection of an idempotent producer)."""
_SEQUENCE_MASK = 0x7FFFFFFF
"""The sequence after 2147483647 is 0."""

Batch = tuple[int, int, int, int]
"""First sequence, last sequence, base offset, timestamp in ms."""


class Producer:
    """One producer's last batches."""

    __slots__ = ("batches", "epoch", "last_active_ms", "producer_id")

    def __init__(self, producer_id: int, epoch: int, last_active_ms: int, batches: list[Batch]) -> None:
        self.producer_id = producer_id
        self.epoch = epoch
        self.last_active_ms = last_active_ms
        self.batches = batches
        """Of this epoch only, oldest first, at least one."""

    @property
    def last_sequence(self) -> int:
        """Of the newest record."""
        return self.batches[-1][1]

    @property
    def last_timestamp(self) -> int:
        """Of the newest batch, in ms."""
        return self.batches[-1][3]


class ProducerState:
    """The producers of one log by id."""

    __slots__ = ("producers",)

    def __init__(self) -> None:
        self.producers: dict[int, Producer] = {}

    def duplicate_of(self, producer_id: int, epoch: int, base_sequence: int, last_offset_delta: int) -> Batch | None:
        """The batch written before that this one repeats, or None if it is the next in order.

        KafkaError: INVALID_PRODUCER_EPOCH if a newer epoch has written, OUT_OF_ORDER_SEQUENCE_NUMBER after a gap.
        """
        producer = self.producers.get(producer_id)
        if producer is None:
            # Unknown, expired or its records were deleted: any sequence will do (KAFKA-5793; 59 is no longer sent).
            return None
        if epoch == producer.epoch:
            if base_sequence == (producer.batches[-1][1] + 1) & _SEQUENCE_MASK:
                return None
            last_sequence = (base_sequence + last_offset_delta) & _SEQUENCE_MASK
            for batch in producer.batches:
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
        if base_sequence != 0:
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
        if producer is None or producer.epoch != epoch:
            self.producers[producer_id] = Producer(producer_id, epoch, now_ms, [batch])
            return
        producer.last_active_ms = now_ms
        batches = producer.batches
        batches.append(batch)
        if len(batches) > BATCHES_REMEMBERED:
            del batches[0]

    def expire(self, before_ms: int) -> None:
        """Forget producers that have written nothing since."""
        expired = [key for key, producer in self.producers.items() if producer.last_active_ms < before_ms]
        for key in expired:
            del self.producers[key]

    def drop_from(self, log_end_offset: int) -> None:
        """Forget batches at or beyond a cut end."""
        for key, producer in list(self.producers.items()):
            producer.batches = [batch for batch in producer.batches if batch[2] < log_end_offset]
            if not producer.batches:
                del self.producers[key]

    def snapshot(self) -> list[list[object]]:
        """For the checkpoint; see `restore`. Copied: it is packed only after the batches so far are durable."""
        return [[p.producer_id, p.epoch, p.last_active_ms, list(p.batches)] for p in self.producers.values()]

    def restore(self, snapshot: list[tuple[int, int, int, list[list[int]]]]) -> None:
        """Replace everything by a snapshot."""
        self.producers = {
            producer_id: Producer(
                producer_id, epoch, active_ms, [(first, last, offset, time) for first, last, offset, time in batches]
            )
            for producer_id, epoch, active_ms, batches in snapshot
        }
