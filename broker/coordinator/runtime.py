"""The group coordinator: what clients ask of groups, given to their state machines, and the upkeep of all of them."""

from collections.abc import Iterator, Sequence

import structlog

from broker.config import Config
from broker.coordinator.answers import failed_join, failed_sync
from broker.coordinator.classic_group import ClassicGroup
from broker.coordinator.effects import JoinAnswer, SyncAnswer
from broker.coordinator.group_metadata import GroupMetadata
from broker.coordinator.group_state import JoiningClient
from broker.coordinator.group_store import GroupEntry, GroupStore
from broker.coordinator.names import is_too_long
from broker.coordinator.offset_coordinator import OffsetCoordinator
from broker.coordinator.records import GroupRecord
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
        entry = self._store.entries.get(request.group_id)
        created = entry is None
        if entry is None:
            entry = self._store.create(request.group_id)
        client = JoiningClient(client.client_id[:CLIENT_ID_IN_MEMBER_ID_MAX], client.client_host, client.api_version)
        effects = entry.group.join(request, client, answer)
        if created and not effects.records:
            empty = GroupMetadata(state_timestamp_ms=entry.group.state_timestamp_ms)
            effects.records.append(GroupRecord(request.group_id, empty))
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

    # ---- administration ------------------------------------------------------------------------------------------

    def groups(self) -> Iterator[ClassicGroup]:
        """Every group, for listing."""
        return (entry.group for entry in self._store.entries.values())

    def group(self, group_id: str) -> ClassicGroup | None:
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
        """Nothing to do: offsets come with commits."""

    def topic_changed(self, topic: Topic) -> None:
        """Nothing to do: members find new partitions themselves."""

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
        if request.group_id in self._store.entries:
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
        self._store.rewrite()
        self._logs.commit()

    def _schedule_maintenance(self) -> None:
        interval_s = self._config.offsets_retention_check_interval_ms / 1000
        self._maintenance = self._scheduler.call_later(interval_s, self._maintain)


def _left(identity: LeaveGroupRequest.MemberIdentity, error: ErrorCode) -> LeaveGroupResponse.MemberResponse:
    return LeaveGroupResponse.MemberResponse(
        member_id=identity.member_id, group_instance_id=identity.group_instance_id, error_code=error
    )
