"""The group coordinator: what clients ask of groups, given to their state machines, and the upkeep of all of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import structlog

from broker.config import Config
from broker.coordinator.answers import failed_join, failed_sync
from broker.coordinator.classic_group import ClassicGroup
from broker.coordinator.consumer_group import ConsumerGroup
from broker.coordinator.consumer_member import JOINS_EPOCH
from broker.coordinator.effects import Effects, JoinAnswer, SyncAnswer
from broker.coordinator.group import Group
from broker.coordinator.group_state import GroupType, JoiningClient
from broker.coordinator.group_store import GroupEntry, GroupStore
from broker.coordinator.migration import upgraded
from broker.coordinator.names import is_too_long
from broker.coordinator.offset_coordinator import OffsetCoordinator
from broker.deferred import Deferred
from broker.scheduler import Scheduler, Timer
from broker.topics import Topic, Topics
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    LeaveGroupResponse,
    SyncGroupRequest,
)
from storage.clock import Clock
from storage.log_manager import LogManager

logger = structlog.get_logger(__name__)

# A member id is the client id and a UUID; this much of the client id is enough to recognise it.
CLIENT_ID_IN_MEMBER_ID_MAX = 255


class GroupCoordinator:
    """All groups of this broker. Used from the event loop alone."""

    def __init__(self, config: Config, clock: Clock, topics: Topics, logs: LogManager, scheduler: Scheduler) -> None:
        self._config = config
        self._topics = topics
        self._logs = logs
        self._scheduler = scheduler
        self._store = GroupStore(config, clock, topics, logs, scheduler)
        self.offsets = OffsetCoordinator(self._store, clock, retention_ms=config.offsets_retention_minutes * 60_000)
        self._maintenance: Timer | None = None

    # ---- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Replays the journal, then starts sessions and the retention of offsets."""
        self._store.load()
        self._topics.observers.append(self)
        self._schedule_maintenance()
        logger.info("groups loaded", count=len(self._store.entries))

    def stop(self) -> None:
        """Cancels every timer; parked requests end with their connections."""
        if self._maintenance is not None:
            self._maintenance.cancel()
        self._store.stop()

    def ensure_ready(self) -> None:
        """Creates the internal topic if need be, as Kafka does when a coordinator is first asked for."""
        self._store.ensure_ready()

    # ---- classic protocol ----------------------------------------------------------------------------------------

    def join(self, request: JoinGroupRequest, client: JoiningClient) -> JoinAnswer:
        """JoinGroup; the answer comes with the generation."""
        answer: JoinAnswer = Deferred()
        error = self._check_join(request)
        if error is not ErrorCode.NONE:
            answer.resolve(failed_join(error, request.member_id if error is ErrorCode.UNKNOWN_MEMBER_ID else ""))
            return answer
        client = replace(client, client_id=client.client_id[:CLIENT_ID_IN_MEMBER_ID_MAX])
        entry = self._store.entries.get(request.group_id)
        if entry is not None and not _is_empty_consumer_group(entry.group):
            self._store.apply(entry, entry.group.join(request, client, answer))
            return answer
        group = self._store.new_classic_group(request.group_id)
        effects = Effects()
        if entry is None:
            entry = self._store.create(group)
        else:
            effects.records += entry.group.deletion_records()
            effects.replacement = group
        joined = group.join(request, client, answer)
        if not joined.records:
            group.persist_empty(joined)
        effects.follow(joined)
        self._store.apply(entry, effects)
        return answer

    def sync(self, request: SyncGroupRequest) -> SyncAnswer:
        """SyncGroup; the answer comes with the leader's assignment."""
        answer: SyncAnswer = Deferred()
        error, entry = self._find_for_member(request.group_id)
        if entry is None:
            answer.resolve(failed_sync(error))
        else:
            self._store.apply(entry, entry.group.sync(request, answer))
        return answer

    def heartbeat(self, request: HeartbeatRequest) -> ErrorCode:
        """Heartbeat; the code to answer with."""
        error, entry = self._find_for_member(request.group_id)
        if entry is None:
            return error
        error, effects = entry.group.heartbeat(request.member_id, request.group_instance_id, request.generation_id)
        self._store.apply(entry, effects)
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
        self._store.apply(entry, effects)
        self._store.when_durable(
            entry,
            lambda error: answer.resolve([_left(identity, error) for identity in identities] if error else responses),
        )
        return answer

    # ---- consumer protocol (KIP-848) -----------------------------------------------------------------------------

    def consumer_heartbeat(
        self, request: ConsumerGroupHeartbeatRequest, client: JoiningClient
    ) -> Deferred[ConsumerGroupHeartbeatResponse]:
        """ConsumerGroupHeartbeat; the answer comes once what it says would survive a crash."""
        answer: Deferred[ConsumerGroupHeartbeatResponse] = Deferred()
        entry = self._store.entries.get(request.group_id)
        effects = Effects()
        try:
            group = self._consumer_group(entry, request, effects)
            response, beat = group.consumer_heartbeat(request, client)
        except KafkaError as error:
            answer.resolve(_failed_heartbeat(error))
            return answer
        effects.follow(beat)
        if entry is None:
            entry = self._store.create(group)
        failure = self._store.apply(entry, effects)
        if failure is not None:
            answer.resolve(_failed_heartbeat(KafkaError(failure)))
            return answer
        self._store.when_durable(
            entry, lambda error: answer.resolve(_failed_heartbeat(KafkaError(error)) if error else response)
        )
        return answer

    def _consumer_group(
        self, entry: GroupEntry | None, request: ConsumerGroupHeartbeatRequest, effects: Effects
    ) -> ConsumerGroup:
        """The group that a heartbeat is for; a joining member may create it, or convert a classic one. Raises KafkaError."""
        group_id, joins = request.group_id, request.member_epoch == JOINS_EPOCH
        if entry is not None and isinstance(entry.group, ConsumerGroup):
            return entry.group
        if not joins:
            reason = (
                f"Consumer group {group_id} not found."
                if entry is None
                else f"Group {group_id} is not a consumer group."
            )
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, reason)
        group = self._store.new_consumer_group(group_id)
        if entry is None:
            return group
        if entry.group.is_empty:
            effects.records += entry.group.deletion_records()
            effects.replacement = group
        elif self._config.group_consumer_migration_policy not in ("bidirectional", "upgrade"):
            reason = f"Cannot upgrade classic group {group_id} to consumer group because online upgrade is disabled."
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, reason)
        elif isinstance(entry.group, ClassicGroup):
            upgraded(entry.group, group, effects)
        return group

    # ---- administration ------------------------------------------------------------------------------------------

    def groups(self) -> Iterator[Group]:
        """Every group, for listing."""
        return (entry.group for entry in self._store.entries.values())

    def group(self, group_id: str) -> Group | None:
        """One group, for describing."""
        entry = self._store.entries.get(group_id)
        return entry.group if entry is not None else None

    def delete_group(self, group_id: str) -> Deferred[ErrorCode]:
        """Deletes a group without members, and its offsets, for good."""
        answer: Deferred[ErrorCode] = Deferred()
        entry = self._store.entries.get(group_id)
        error = ErrorCode.GROUP_ID_NOT_FOUND if entry is None else entry.group.check_delete()
        if entry is None or error is not ErrorCode.NONE:
            answer.resolve(error)
            return answer
        failure = self._store.delete(entry)
        if failure is not None:
            answer.resolve(failure)
        else:
            self._store.when_durable(entry, answer.resolve)
        return answer

    # ---- topics (broker.topics.TopicObserver) --------------------------------------------------------------------

    def topic_created(self, topic: Topic) -> None:
        """Nothing to do: consumer groups compare the topics' revision with the one they have seen."""

    def topic_changed(self, topic: Topic) -> None:
        """Nothing to do, as above; members of classic groups find new partitions themselves."""

    def topic_deleted(self, topic: Topic) -> None:
        """Offsets go with their topic: one of the same name starts without any."""
        self.offsets.drop_topic(topic.name)

    # ---- inside --------------------------------------------------------------------------------------------------

    def _check_join(self, request: JoinGroupRequest) -> ErrorCode:
        names = [request.group_instance_id or "", request.protocol_type]
        names += [protocol.name for protocol in request.protocols]
        low, high = self._config.group_min_session_timeout_ms, self._config.group_max_session_timeout_ms
        if not request.group_id or is_too_long(request.group_id):
            return ErrorCode.INVALID_GROUP_ID
        if not low <= request.session_timeout_ms <= high:
            return ErrorCode.INVALID_SESSION_TIMEOUT
        if any(map(is_too_long, names)):
            return ErrorCode.INVALID_REQUEST
        entry = self._store.entries.get(request.group_id)
        if entry is not None and not _is_empty_consumer_group(entry.group):
            return ErrorCode.NONE
        if request.member_id:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if not request.protocol_type or not request.protocols:
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        return ErrorCode.NONE

    def _find_for_member(self, group_id: str) -> tuple[ErrorCode, GroupEntry | None]:
        if not group_id:
            return ErrorCode.INVALID_GROUP_ID, None
        return ErrorCode.UNKNOWN_MEMBER_ID, self._store.entries.get(group_id)

    def _maintain(self) -> None:
        """Every `offsets.retention.check.interval.ms`: expires offsets, drops groups that hold nothing, bounds the log."""
        self._schedule_maintenance()
        for entry in list(self._store.entries.values()):
            self.offsets.expire(entry)
            if not entry.offsets and entry.group.is_disposable:
                self._store.delete(entry)
        self._store.roll()
        self._logs.commit()

    def _schedule_maintenance(self) -> None:
        interval_s = self._config.offsets_retention_check_interval_ms / 1000
        self._maintenance = self._scheduler.call_later(interval_s, self._maintain)


def _left(identity: LeaveGroupRequest.MemberIdentity, error: ErrorCode) -> LeaveGroupResponse.MemberResponse:
    return LeaveGroupResponse.MemberResponse(
        member_id=identity.member_id, group_instance_id=identity.group_instance_id, error_code=error
    )


def _is_empty_consumer_group(group: Group) -> bool:
    """One that becomes a classic group as soon as a classic member joins."""
    return group.type is GroupType.CONSUMER and group.is_empty


def _failed_heartbeat(error: KafkaError) -> ConsumerGroupHeartbeatResponse:
    return ConsumerGroupHeartbeatResponse(error_code=error.code, error_message=error.message or error.code.text)
