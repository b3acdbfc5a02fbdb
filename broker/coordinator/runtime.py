"""The group coordinator: group state machines and their offsets, tied to the log, to timers and to waiting clients.

Every change is appended to the journal in the turn in which it happens, and no answer that rests on it leaves before it is
durable. At start the journal is replayed: members go on heartbeating with the same generation after a kill -9.
"""

import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from broker.config import Config
from broker.coordinator.answers import failed_join, failed_sync
from broker.coordinator.classic_group import ClassicGroup
from broker.coordinator.effects import Effects, JoinAnswer, SyncAnswer, TimerKey
from broker.coordinator.group_metadata import GroupMetadata
from broker.coordinator.group_state import GroupLimits, GroupState, JoiningClient
from broker.coordinator.journal import CoordinatorRecord, Journal
from broker.coordinator.offsets import OffsetTable, expired_offsets
from broker.coordinator.records import CommittedOffset, GroupRecord, OffsetRecord
from broker.deferred import Deferred
from broker.scheduler import Scheduler, Timer
from broker.topics import Topic, Topics
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import (
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    LeaveGroupResponse,
    SyncGroupRequest,
)
from storage.clock import Clock
from storage.log import PartitionLog
from storage.log_manager import LogManager

logger = structlog.get_logger(__name__)

# Names are written as strings with a 16-bit length; what is longer could be accepted but never stored.
NAME_BYTES_MAX = 32_000
# A member id is the client id and a UUID; this much of the client id is enough to recognise it.
CLIENT_ID_IN_MEMBER_ID_MAX = 255
GROUP_ID_NOT_FOUND_FROM = 9  # OffsetCommit version, KIP-848


@dataclass(slots=True)
class GroupEntry:
    """A group and what belongs to it."""

    group: ClassicGroup
    offsets: OffsetTable = field(default_factory=OffsetTable)
    metadata: GroupMetadata | None = None
    """The generation written last; None for a group that only holds offsets."""
    timers: dict[TimerKey, Timer] = field(default_factory=dict)
    sequence: int = 0
    """Storage sequence of the last record written for the group."""


@dataclass(frozen=True, slots=True)
class Committer:
    """Who commits offsets; generation -1 and an empty member id: nobody's member."""

    group_id: str
    member_id: str
    group_instance_id: str | None
    generation_id: int
    api_version: int


class GroupCoordinator:
    """All groups of this broker. Used from the event loop alone."""

    def __init__(self, config: Config, clock: Clock, topics: Topics, logs: LogManager, scheduler: Scheduler) -> None:
        self._config = config
        self._clock = clock
        self._topics = topics
        self._logs = logs
        self._scheduler = scheduler
        self._journal = Journal(topics, clock, config.offsets_topic_num_partitions)
        self._limits = GroupLimits(config.group_max_size, config.group_initial_rebalance_delay_ms)
        self._entries: dict[str, GroupEntry] = {}
        self._maintenance: Timer | None = None

    # ---- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Replays the journal, then starts sessions and the retention of offsets."""
        for record in self._journal.replay():
            self._replay(record)
        for entry in list(self._entries.values()):
            self._write(entry, list(self._orphaned(entry)))
            self._apply(entry, entry.group.resume())
        self._topics.observers.append(self)
        self._logs.commit()
        self._schedule_maintenance()
        logger.info("groups loaded", count=len(self._entries))

    def stop(self) -> None:
        """Cancels every timer; parked requests end with their connections."""
        if self._maintenance is not None:
            self._maintenance.cancel()
        for entry in self._entries.values():
            _cancel_timers(entry)

    def ensure_ready(self) -> None:
        """Creates the internal topic if need be, as Kafka does when a coordinator is first asked for."""
        self._journal.ensure()

    # ---- classic protocol ----------------------------------------------------------------------------------------

    def join(self, request: JoinGroupRequest, client: JoiningClient) -> JoinAnswer:
        """JoinGroup; the answer comes with the generation."""
        answer: JoinAnswer = Deferred()
        error = self._check_join(request)
        if error is not ErrorCode.NONE:
            answer.resolve(failed_join(error, request.member_id if error is ErrorCode.UNKNOWN_MEMBER_ID else ""))
            return answer
        entry = self._entries.get(request.group_id)
        created = entry is None
        if entry is None:
            entry = self._create(request.group_id)
        client = JoiningClient(client.client_id[:CLIENT_ID_IN_MEMBER_ID_MAX], client.client_host, client.api_version)
        effects = entry.group.join(request, client, answer)
        if created and effects.metadata is None:
            effects.metadata = GroupMetadata(state_timestamp_ms=entry.group.state_timestamp_ms)
        self._apply(entry, effects)
        return answer

    def sync(self, request: SyncGroupRequest) -> SyncAnswer:
        """SyncGroup; the answer comes with the leader's assignment."""
        answer: SyncAnswer = Deferred()
        error, entry = self._find_for_member(request.group_id)
        if entry is None:
            answer.resolve(failed_sync(error))
        else:
            self._apply(entry, entry.group.sync(request, answer))
        return answer

    def heartbeat(self, request: HeartbeatRequest) -> ErrorCode:
        """Heartbeat; the code to answer with."""
        error, entry = self._find_for_member(request.group_id)
        if entry is None:
            return error
        error, effects = entry.group.heartbeat(request.member_id, request.group_instance_id, request.generation_id)
        self._apply(entry, effects)
        return error

    def leave(
        self, group_id: str, identities: Sequence[LeaveGroupRequest.MemberIdentity]
    ) -> Deferred[list[LeaveGroupResponse.MemberResponse]]:
        """LeaveGroup; a response per identity. Raises KafkaError for an invalid group id."""
        answer: Deferred[list[LeaveGroupResponse.MemberResponse]] = Deferred()
        error, entry = self._find_for_member(group_id)
        if error is ErrorCode.INVALID_GROUP_ID:
            raise KafkaError(error)
        if entry is None:
            answer.resolve([_left(identity, error) for identity in identities])
            return answer
        responses, effects = entry.group.leave(identities)
        self._apply(entry, effects)
        self._when_durable(
            entry,
            lambda failure: answer.resolve(
                responses if failure is None else [_left(identity, _storage_error(failure)) for identity in identities]
            ),
        )
        return answer

    # ---- offsets -------------------------------------------------------------------------------------------------

    def commit_offsets(
        self, committer: Committer, offsets: Sequence[tuple[str, int, CommittedOffset]]
    ) -> Deferred[ErrorCode]:
        """Commits all or nothing; the code is the same for all. Topics and sizes are the caller's to check."""
        answer: Deferred[ErrorCode] = Deferred()
        error, entry = self._find_for_commit(committer)
        if entry is None:
            answer.resolve(error)
            return answer
        records = [OffsetRecord(committer.group_id, topic, partition, value) for topic, partition, value in offsets]
        self._apply(entry, entry.group.offsets_committed(committer.member_id))
        failure = self._write(entry, records)
        if failure is not None:
            answer.resolve(failure)
            return answer
        self._when_durable(entry, lambda failed: answer.resolve(_storage_error(failed)))
        return answer

    def when_offsets_durable(self, group_ids: Iterable[str], callback: Callable[[ErrorCode], None]) -> None:
        """Runs the callback once everything committed so far by these groups would survive a crash."""
        sequence = max((self._entries[g].sequence for g in group_ids if g in self._entries), default=0)
        self._logs.when_durable(sequence, lambda failure: callback(_storage_error(failure)))

    def offsets(self, group_id: str) -> OffsetTable:
        """The offsets of a group; empty for an unknown one. To be read in this turn, not kept or changed."""
        entry = self._entries.get(group_id)
        return entry.offsets if entry is not None else OffsetTable()

    def delete_offsets(self, group_id: str, wanted: Sequence[tuple[str, int]]) -> Deferred[list[ErrorCode]]:
        """Deletes offsets, a code for each: GROUP_SUBSCRIBED_TO_TOPIC protects those in use. Raises KafkaError."""
        if not group_id:
            raise KafkaError(ErrorCode.INVALID_GROUP_ID)
        entry = self._entries.get(group_id)
        if entry is None:
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND)
        error = entry.group.check_offset_delete()
        if error is not ErrorCode.NONE:
            raise KafkaError(error)
        codes, records = [], []
        for topic, partition in wanted:
            subscribed = entry.group.is_subscribed(topic)
            codes.append(ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if subscribed else ErrorCode.NONE)
            if not subscribed and entry.offsets.get(topic, partition) is not None:
                records.append(OffsetRecord(group_id, topic, partition, None))
        failed = self._write(entry, records)
        if failed is not None:
            raise KafkaError(failed)
        answer: Deferred[list[ErrorCode]] = Deferred()
        self._when_durable(
            entry,
            lambda failure: answer.resolve(codes if failure is None else [_storage_error(failure)] * len(codes)),
        )
        return answer

    # ---- administration ------------------------------------------------------------------------------------------

    def groups(self) -> Iterator[ClassicGroup]:
        """Every group, for listing."""
        return (entry.group for entry in self._entries.values())

    def group(self, group_id: str) -> ClassicGroup | None:
        """One group, for describing."""
        entry = self._entries.get(group_id)
        return entry.group if entry is not None else None

    def delete_group(self, group_id: str) -> Deferred[ErrorCode]:
        """Deletes a group without members, and its offsets, for good."""
        answer: Deferred[ErrorCode] = Deferred()
        entry = self._entries.get(group_id)
        error = ErrorCode.GROUP_ID_NOT_FOUND if entry is None else entry.group.check_delete()
        if entry is None or error is not ErrorCode.NONE:
            answer.resolve(error)
            return answer
        failure = self._delete(entry)
        if failure is not None:
            answer.resolve(failure)
        else:
            self._when_durable(entry, lambda failed: answer.resolve(_storage_error(failed)))
        return answer

    # ---- topics (broker.topics.TopicObserver) --------------------------------------------------------------------

    def topic_created(self, topic: Topic) -> None:
        """Nothing to do: offsets come with commits."""

    def topic_changed(self, topic: Topic) -> None:
        """Nothing to do: members find new partitions themselves."""

    def topic_deleted(self, topic: Topic) -> None:
        """Offsets go with their topic: one of the same name starts without any."""
        for entry in self._entries.values():
            self._drop_topic(entry, topic.name)

    # ---- inside --------------------------------------------------------------------------------------------------

    def _create(self, group_id: str) -> GroupEntry:
        group = ClassicGroup(group_id, self._limits, time_ms=self._clock.time_ms, new_id=lambda: str(uuid.uuid4()))
        entry = self._entries[group_id] = GroupEntry(group)
        return entry

    def _check_join(self, request: JoinGroupRequest) -> ErrorCode:
        names = [request.group_instance_id or "", request.protocol_type]
        names += [protocol.name for protocol in request.protocols]
        low, high = self._config.group_min_session_timeout_ms, self._config.group_max_session_timeout_ms
        if not request.group_id or _too_long(request.group_id):
            return ErrorCode.INVALID_GROUP_ID
        if not low <= request.session_timeout_ms <= high:
            return ErrorCode.INVALID_SESSION_TIMEOUT
        if any(map(_too_long, names)):
            return ErrorCode.INVALID_REQUEST
        if request.group_id in self._entries:
            return ErrorCode.NONE
        if request.member_id:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if not request.protocol_type or not request.protocols:
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        return ErrorCode.NONE

    def _find_for_member(self, group_id: str) -> tuple[ErrorCode, GroupEntry | None]:
        if not group_id:
            return ErrorCode.INVALID_GROUP_ID, None
        return ErrorCode.UNKNOWN_MEMBER_ID, self._entries.get(group_id)

    def _find_for_commit(self, committer: Committer) -> tuple[ErrorCode, GroupEntry | None]:
        entry = self._entries.get(committer.group_id)
        if entry is not None:
            error = entry.group.check_offset_commit(
                committer.member_id, committer.group_instance_id, committer.generation_id
            )
            return error, entry if error is ErrorCode.NONE else None
        if committer.generation_id >= 0:
            old = committer.api_version < GROUP_ID_NOT_FOUND_FROM
            return ErrorCode.ILLEGAL_GENERATION if old else ErrorCode.GROUP_ID_NOT_FOUND, None
        if _too_long(committer.group_id):
            return ErrorCode.INVALID_GROUP_ID, None
        return ErrorCode.NONE, self._create(committer.group_id)

    def _apply(self, entry: GroupEntry, effects: Effects) -> None:
        """Does what a group's operation asks for: records first, then timers; answers once the records are durable."""
        failure = None
        if effects.metadata is not None:
            failure = self._write(entry, [GroupRecord(entry.group.group_id, effects.metadata)])
        for key, delay_ms in effects.timers.items():
            self._set_timer(entry, key, delay_ms)
        if failure is not None:
            _answer(effects, failure)
        elif effects.joins or effects.syncs:
            self._when_durable(entry, lambda error: _answer(effects, _storage_error(error)))

    def _set_timer(self, entry: GroupEntry, key: TimerKey, delay_ms: int | None) -> None:
        old = entry.timers.pop(key, None)
        if old is not None:
            old.cancel()
        if delay_ms is not None:
            entry.timers[key] = self._scheduler.call_later(delay_ms / 1000, lambda: self._timer_expired(entry, key))

    def _timer_expired(self, entry: GroupEntry, key: TimerKey) -> None:
        entry.timers.pop(key, None)
        self._apply(entry, entry.group.timer_expired(key))
        self._logs.commit()

    def _write(self, entry: GroupEntry, records: Sequence[CoordinatorRecord]) -> ErrorCode | None:
        """Appends records and takes up the offsets in them; an error code when the log refuses them."""
        if not records:
            return None
        try:
            entry.sequence = self._journal.append(entry.group.group_id, records)
        except KafkaError as error:
            logger.warning("group record refused", group=entry.group.group_id, error=str(error))
            return _refused(error.code)
        for record in records:
            _take_up(entry, record)
        return None

    def _when_durable(self, entry: GroupEntry, callback: Callable[[Exception | None], None]) -> None:
        self._logs.when_durable(entry.sequence, callback)

    def _delete(self, entry: GroupEntry) -> ErrorCode | None:
        group_id = entry.group.group_id
        records: list[CoordinatorRecord] = [OffsetRecord(group_id, t, p, None) for t, p, _ in entry.offsets]
        failure = self._write(entry, [*records, GroupRecord(group_id, None)])
        if failure is None:
            _cancel_timers(entry)
            del self._entries[group_id]
        return failure

    def _drop_topic(self, entry: GroupEntry, topic: str) -> None:
        partitions = entry.offsets.of_topic(topic)
        self._write(entry, [OffsetRecord(entry.group.group_id, topic, partition, None) for partition in partitions])

    def _orphaned(self, entry: GroupEntry) -> Iterator[OffsetRecord]:
        """Deletions of offsets whose topic was deleted just before the broker was killed."""
        for name, partition, committed in entry.offsets:
            topic = self._topics.get(name)
            if topic is None or not committed.belongs_to(topic.topic_id):
                yield OffsetRecord(entry.group.group_id, name, partition, None)

    def _replay(self, record: CoordinatorRecord) -> None:
        entry = self._entries.get(record.group_id)
        if entry is None:
            if record.value is None:
                return
            entry = self._create(record.group_id)
        _take_up(entry, record)
        if isinstance(record, GroupRecord) and record.value is not None:
            entry.group.restore(record.value)
        if entry.metadata is None and not entry.offsets:
            del self._entries[record.group_id]

    def _maintain(self) -> None:
        """Every `offsets.retention.check.interval.ms`: expires offsets, drops groups that hold nothing, bounds the log."""
        self._schedule_maintenance()
        now_ms, retention_ms = self._clock.time_ms(), self._config.offsets_retention_minutes * 60_000
        for entry in list(self._entries.values()):
            group = entry.group
            expired = expired_offsets(group, entry.offsets, now_ms=now_ms, retention_ms=retention_ms)
            self._write(entry, [OffsetRecord(group.group_id, topic, partition, None) for topic, partition in expired])
            if not entry.offsets and group.state is GroupState.EMPTY and not group.roster.pending_join:
                self._delete(entry)
        try:
            for partition_log, offset, sequence in self._journal.rewrite(self._live_records()):
                self._logs.when_durable(sequence, partial(_forget_before, partition_log, offset))
        except KafkaError as error:
            # What has been rewritten stands beside the old records until the next time: only space is lost.
            logger.warning("group records not rewritten", error=str(error))
        self._logs.commit()

    def _schedule_maintenance(self) -> None:
        interval_s = self._config.offsets_retention_check_interval_ms / 1000
        self._maintenance = self._scheduler.call_later(interval_s, self._maintain)

    def _live_records(self) -> Iterator[CoordinatorRecord]:
        for group_id, entry in self._entries.items():
            if entry.metadata is not None:
                yield GroupRecord(group_id, entry.metadata)
            for topic, partition, committed in entry.offsets:
                yield OffsetRecord(group_id, topic, partition, committed)


def _forget_before(partition_log: PartitionLog, offset: int, failure: Exception | None) -> None:
    if failure is None and offset <= partition_log.high_watermark:
        # Refused by a full disk, it waits for the next rewrite; the WAL, which calls this, must not hear of it.
        with contextlib.suppress(KafkaError):
            partition_log.delete_records_before(offset)


def _take_up(entry: GroupEntry, record: CoordinatorRecord) -> None:
    if isinstance(record, GroupRecord):
        entry.metadata = record.value
    elif record.value is None:
        entry.offsets.remove(record.topic, record.partition)
    else:
        entry.offsets.put(record.topic, record.partition, record.value)


def _answer(effects: Effects, error: ErrorCode) -> None:
    """Releases the answers of an operation, or errors in their place when its records did not become durable."""
    for join, joined in effects.joins:
        join.resolve(joined if not error else failed_join(error, joined.member_id))
    for sync, synced in effects.syncs:
        sync.resolve(synced if not error else failed_sync(error))


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


def _left(identity: LeaveGroupRequest.MemberIdentity, error: ErrorCode) -> LeaveGroupResponse.MemberResponse:
    return LeaveGroupResponse.MemberResponse(
        member_id=identity.member_id, group_instance_id=identity.group_instance_id, error_code=error
    )


def _too_long(name: str) -> bool:
    return len(name.encode("utf-8", "surrogatepass")) > NAME_BYTES_MAX
