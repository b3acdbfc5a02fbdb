"""The groups of this broker and what they write: groups tied to the journal, to timers and to waiting clients.

Every change is appended to the journal in the turn in which it happens, and no answer that rests on it leaves before it is
durable. At start the journal is replayed: members go on heartbeating with the same generation after a kill -9.
"""

import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice

import structlog

from broker.config import Config
from broker.coordinator.answers import failed_join, failed_sync
from broker.coordinator.broker_view import BrokerTopics, consumer_settings
from broker.coordinator.classic_group import ClassicGroup
from broker.coordinator.consumer_group import ConsumerGroup
from broker.coordinator.effects import Effects, TimerKey
from broker.coordinator.group import Group
from broker.coordinator.group_state import GroupLimits
from broker.coordinator.offsets import OffsetTable
from broker.coordinator.records import (
    OFFSETS_TOPIC,
    OFFSETS_TOPIC_CONFIGS,
    CoordinatorRecord,
    GroupRecord,
    OffsetRecord,
    decode_record,
    encode_record,
)
from broker.journal import Journal, JournalFormat, TransactionalRecord, TransactionEnd
from broker.producer_ids import ProducerIdAndEpoch
from broker.scheduler import Scheduler, Timer
from broker.topics import Topics
from protocol.errors import ErrorCode, KafkaError
from storage.clock import Clock
from storage.log_manager import LogManager

logger = structlog.get_logger(__name__)

# Each takes some 20 microseconds, to encode and to send: 10 ms altogether.
ANSWERS_PER_TURN = 500
# Each takes up to 100 microseconds: the group's records.
EXPIRIES_PER_TURN = 100

GROUP_JOURNAL: JournalFormat[CoordinatorRecord] = JournalFormat(
    OFFSETS_TOPIC, OFFSETS_TOPIC_CONFIGS, encode_record, decode_record, name_of=lambda record: record.group_id
)


@dataclass(slots=True)
class GroupEntry:
    """A group and what belongs to it."""

    group: Group
    offsets: OffsetTable = field(default_factory=OffsetTable)
    timers: dict[TimerKey, Timer] = field(default_factory=dict)
    sequence: int = 0
    """Storage sequence of the last record written for the group."""


class GroupStore:
    """Groups by id. Used from the event loop alone."""

    def __init__(self, config: Config, clock: Clock, topics: Topics, logs: LogManager, scheduler: Scheduler) -> None:
        self._config = config
        self._clock = clock
        self._topics = topics
        self._catalog = BrokerTopics(topics)
        self._logs = logs
        self._scheduler = scheduler
        self._journal = Journal(GROUP_JOURNAL, topics, clock, config.offsets_topic_num_partitions)
        self._limits = GroupLimits(config.group_max_size, config.group_initial_rebalance_delay_ms)
        self.entries: dict[str, GroupEntry] = {}
        self._due: deque[tuple[GroupEntry, TimerKey, Timer]] = deque()
        """Timers that have gone off and have not been acted on; bounded by the timers there are."""
        self._in_transaction: dict[tuple[int, int], set[str]] = {}
        """(producer id, partition of the journal) -> the groups to which its open transaction commits offsets."""

    def load(self) -> None:
        """Replays the journal, then starts the sessions of the members found in it."""
        for item in self._journal.replay():
            if isinstance(item, TransactionEnd):
                self.end_transaction(item, sequence=0)
            elif isinstance(item, TransactionalRecord):
                self._replay(item.record, item.producer_id)
            else:
                self._replay(item)
        for entry in list(self.entries.values()):
            self.write(entry, list(self._orphaned(entry)))
            self.apply(entry, entry.group.resume())
        self._logs.commit()

    def stop(self) -> None:
        """Cancels every timer; parked requests end with their connections."""
        for entry in self.entries.values():
            _cancel_timers(entry)

    def ensure_ready(self) -> None:
        """Creates the internal topic if need be, as Kafka does when a coordinator is first asked for."""
        self._journal.ensure()

    def create(self, group: Group) -> GroupEntry:
        """Takes in a new group; it is in memory alone until something is written for it."""
        entry = self.entries[group.group_id] = GroupEntry(group)
        return entry

    def new_classic_group(self, group_id: str) -> ClassicGroup:
        return ClassicGroup(group_id, self._limits, time_ms=self._clock.time_ms, new_id=_new_id)

    def new_consumer_group(self, group_id: str) -> ConsumerGroup:
        return ConsumerGroup(
            group_id,
            self._catalog,
            partial(consumer_settings, self._config, self._topics, group_id),
            partial(self.new_classic_group, group_id),
            time_ms=self._clock.time_ms,
            new_id=_new_id,
        )

    def delete(self, entry: GroupEntry) -> ErrorCode | None:
        """Deletes a group and its offsets; an error code when the log refuses it."""
        group_id = entry.group.group_id
        records: list[CoordinatorRecord] = [OffsetRecord(group_id, t, p, None) for t, p in entry.offsets.partitions()]
        failure = self.write(entry, [*records, *entry.group.deletion_records()])
        if failure is None:
            _cancel_timers(entry)
            del self.entries[group_id]
        return failure

    def apply(self, entry: GroupEntry, effects: Effects) -> ErrorCode | None:
        """Does what a group's operation asks for: records first, then timers; answers once the records are durable.

        Returns an error code when the log refuses the records: the answers say so, and the group undoes what it can.
        """
        failure = self.write(entry, effects.records)
        if failure is not None:
            entry.group.undo(effects)
        elif effects.replacement is not None:
            _cancel_timers(entry)
            entry.group = effects.replacement
        for key, delay_ms in effects.timers.items():
            self._set_timer(entry, key, delay_ms)
        if failure is not None:
            self._answer(effects, failure)
        elif effects.joins or effects.syncs:
            self.when_durable(entry, partial(self._answer, effects))
        return failure

    def write(
        self,
        entry: GroupEntry,
        records: Sequence[CoordinatorRecord],
        producer: ProducerIdAndEpoch | None = None,
    ) -> ErrorCode | None:
        """Appends records and takes up the offsets in them; an error code when the log refuses them.

        Offsets written as part of a producer's transaction are pending until its end.
        """
        if not records:
            return None
        try:
            entry.sequence = self._journal.append(entry.group.group_id, records, producer)
        except KafkaError as error:
            logger.warning("group record refused", group=entry.group.group_id, error=str(error))
            return _refused(error.code)
        for record in records:
            if not isinstance(record, OffsetRecord):
                continue
            if producer is None:
                _take_up(entry, record)
            else:
                self._take_up_pending(entry, record, producer.producer_id)
        return None

    def partition_of(self, group_id: str) -> int:
        """The partition of the internal topic that holds a group."""
        return self._journal.partition_of(group_id)

    def end_transaction(self, end: TransactionEnd, *, sequence: int) -> None:
        """A marker was written to the internal topic: what was pending is committed, or forgotten."""
        for group_id in self._in_transaction.pop((end.producer_id, end.partition), ()):
            entry = self.entries.get(group_id)
            if entry is not None:
                entry.offsets.end_transaction(end.producer_id, commit=end.commit)
                entry.sequence = max(entry.sequence, sequence)
                if _holds_nothing(entry) and entry.group.is_disposable:
                    del self.entries[group_id]

    def when_durable(self, entry: GroupEntry, callback: Callable[[ErrorCode], None]) -> None:
        """Runs the callback once everything written so far for the group would survive a crash, or cannot."""
        self.when_sequence_durable(entry.sequence, callback)

    def when_sequence_durable(self, sequence: int, callback: Callable[[ErrorCode], None]) -> None:
        """The same for a storage sequence."""
        self._logs.when_durable(sequence, lambda failure: callback(_storage_error(failure)))

    def roll(self) -> None:
        """Bounds the journal: what has grown long is closed, for compaction to take."""
        self._journal.roll()

    def _answer(self, effects: Effects, error: ErrorCode) -> None:
        """Releases the answers of an operation, or errors in their place when its records did not become durable."""
        joins = (partial(join.resolve, failed_join(error, r.member_id) if error else r) for join, r in effects.joins)
        syncs = (partial(sync.resolve, failed_sync(error) if error else r) for sync, r in effects.syncs)
        self._release(chain(joins, syncs))

    def _release(self, answers: Iterator[Callable[[], None]]) -> None:
        """Some answers now, the others in later turns: a generation of thousands must not hold up everybody else."""
        some = list(islice(answers, ANSWERS_PER_TURN))
        for release in some:
            release()
        if len(some) == ANSWERS_PER_TURN:
            self._scheduler.call_soon(self._release, answers)

    def _set_timer(self, entry: GroupEntry, key: TimerKey, delay_ms: int | None) -> None:
        old = entry.timers.pop(key, None)
        if old is not None:
            old.cancel()
        if delay_ms is not None:
            entry.timers[key] = self._scheduler.call_later(delay_ms / 1000, self._timer_due, entry, key)

    def _timer_due(self, entry: GroupEntry, key: TimerKey) -> None:
        self._due.append((entry, key, entry.timers[key]))
        if len(self._due) == 1:
            self._scheduler.call_soon(self._expire)

    def _expire(self) -> None:
        """Some timers now, the others in later turns: thousands of members that vanish at once must not hold up the rest."""
        try:
            for entry, key, timer in [self._due.popleft() for _ in range(min(len(self._due), EXPIRIES_PER_TURN))]:
                if entry.timers.get(key) is timer:  # not cancelled or armed anew since
                    del entry.timers[key]
                    self.apply(entry, entry.group.timer_expired(key))
            self._logs.commit()
        finally:
            if self._due:
                self._scheduler.call_soon(self._expire)

    def _orphaned(self, entry: GroupEntry) -> Iterator[OffsetRecord]:
        """Deletions of offsets whose topic was deleted just before the broker was killed."""
        for name, partition, committed in entry.offsets:
            topic = self._topics.get(name)
            if topic is None or not committed.belongs_to(topic.topic_id):
                yield OffsetRecord(entry.group.group_id, name, partition, None)

    def _take_up_pending(self, entry: GroupEntry, record: CoordinatorRecord, producer_id: int) -> None:
        if isinstance(record, OffsetRecord) and record.value is not None:
            entry.offsets.put_pending(producer_id, record.topic, record.partition, record.value)
            self._in_transaction.setdefault((producer_id, self.partition_of(record.group_id)), set()).add(
                record.group_id
            )

    def _replay(self, record: CoordinatorRecord, producer_id: int | None = None) -> None:
        entry = self.entries.get(record.group_id)
        if entry is None:
            if record.value is None:
                return
            entry = self.create(self._group_for(record))
        if producer_id is not None:
            self._take_up_pending(entry, record, producer_id)
        elif isinstance(record, OffsetRecord):
            _take_up(entry, record)
        elif record.value is not None and not isinstance(entry.group, _group_class(record)):
            entry.group = self._group_for(record)  # it changed its protocol
            entry.group.take_up(record)
        elif isinstance(entry.group, _group_class(record)):
            entry.group.take_up(record)
        if _holds_nothing(entry):
            del self.entries[record.group_id]

    def _group_for(self, record: CoordinatorRecord) -> Group:
        consumer = _group_class(record) is ConsumerGroup
        return self.new_consumer_group(record.group_id) if consumer else self.new_classic_group(record.group_id)


def _group_class(record: CoordinatorRecord) -> type[ClassicGroup | ConsumerGroup]:
    """Which protocol a record speaks of; offsets alone make a classic group, as in Kafka."""
    return ClassicGroup if isinstance(record, (OffsetRecord, GroupRecord)) else ConsumerGroup


def _take_up(entry: GroupEntry, record: OffsetRecord) -> None:
    if record.value is None:
        entry.offsets.remove(record.topic, record.partition)
    else:
        entry.offsets.put(record.topic, record.partition, record.value)


def _holds_nothing(entry: GroupEntry) -> bool:
    """Whether nothing is written for the group that counts."""
    return not entry.offsets and next(iter(entry.group.live_records()), None) is None


def _new_id() -> str:
    return str(uuid.uuid4())


def _storage_error(failure: Exception | None) -> ErrorCode:
    """Kafka answers a failed disk with NOT_COORDINATOR, so that clients look for the coordinator and try again."""
    return ErrorCode.NONE if failure is None else ErrorCode.NOT_COORDINATOR


def _refused(code: ErrorCode) -> ErrorCode:
    """The answer when the log does not take a record, as Kafka translates it."""
    too_large = (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE, ErrorCode.INVALID_FETCH_SIZE)
    return ErrorCode.UNKNOWN_SERVER_ERROR if code in too_large else ErrorCode.NOT_COORDINATOR


def _cancel_timers(entry: GroupEntry) -> None:
    for timer in entry.timers.values():
        timer.cancel()
    entry.timers.clear()
