"""Fetch sessions (KIP-227): a client names its partitions once, later requests and answers carry only what changed."""

import secrets
from collections import OrderedDict
from typing import TypeAlias

from protocol.errors import ErrorCode, KafkaError
from protocol.messages import FetchRequest, FetchResponse
from storage.clock import Clock

FINAL_EPOCH = -1
INITIAL_EPOCH = 0
EPOCH_MAX = 2**31 - 1
NO_SESSION = 0
# Kafka's max.incremental.fetch.session.cache.slots and the idle time after which a session may make room for another.
SESSIONS_MAX = 1000
EVICT_AFTER_S = 120.0

Key: TypeAlias = tuple[str | bytes, int]


class FetchPartition:
    """One partition that a client wants to read, and what a session last told it about."""

    __slots__ = (
        "fetched_epoch", "high_watermark", "index", "leader_epoch", "log_start_offset", "max_bytes", "offset", "topic",
        "topic_id",
    )  # fmt: skip

    def __init__(self, topic: str | None, topic_id: bytes, wanted: FetchRequest.FetchPartition) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.index = wanted.partition
        self.high_watermark = -1
        self.log_start_offset = -1
        self.update(wanted)

    def update(self, wanted: FetchRequest.FetchPartition) -> None:
        self.offset = wanted.fetch_offset
        self.max_bytes = wanted.partition_max_bytes
        self.leader_epoch = wanted.current_leader_epoch
        self.fetched_epoch = wanted.last_fetched_epoch

    def is_news(self, data: FetchResponse.PartitionData, size: int) -> bool:
        """Whether an incremental answer has to name the partition; remembers what it says."""
        news = (
            size > 0
            or data.error_code != 0
            or data.high_watermark != self.high_watermark
            or data.log_start_offset != self.log_start_offset
            or data.diverging_epoch.epoch >= 0
        )
        # After an error the next answer names the partition, so that the client sees that it is well again.
        self.high_watermark = -1 if data.error_code else data.high_watermark
        self.log_start_offset = data.log_start_offset
        return news


class FetchSession:
    """The partitions of one session, in the order in which they are to be served."""

    __slots__ = ("by_id", "epoch", "partitions", "principal", "session_id", "used_s")

    def __init__(
        self, session_id: int, partitions: dict[Key, FetchPartition], *, by_id: bool, principal: str, now_s: float
    ) -> None:
        self.session_id = session_id
        self.principal = principal
        self.partitions = partitions
        self.by_id = by_id
        self.epoch = 1
        self.used_s = now_s

    def serve_last(self, partition: FetchPartition) -> None:
        """Moves a partition that was just served to the end, so that others get their turn when room is short."""
        key: Key = (partition.topic_id if self.by_id else partition.topic or "", partition.index)
        if self.partitions.pop(key, None) is not None:
            self.partitions[key] = partition


class FetchWork:
    """What one Fetch request asks for once its session is applied."""

    __slots__ = ("incremental", "partitions", "session")

    def __init__(self, partitions: list[FetchPartition], session: FetchSession | None, *, incremental: bool) -> None:
        self.partitions = partitions
        self.session = session
        self.incremental = incremental

    @property
    def session_id(self) -> int:
        return self.session.session_id if self.session is not None else NO_SESSION


class FetchSessions:
    """All sessions of this broker, bounded; without room a client gets no session and sends full requests."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: OrderedDict[int, FetchSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, request: FetchRequest, *, by_id: bool, principal: str) -> FetchWork:
        """Applies a request to its session; raises KafkaError 70, 71 or 106.

        A session is its principal's alone: to others it does not exist. (Kafka lets whoever knows the id go on with it.)
        """
        session_id, epoch = request.session_id, request.session_epoch
        if epoch in (INITIAL_EPOCH, FINAL_EPOCH):
            if self._of(session_id, principal) is not None:
                del self._sessions[session_id]
            partitions = _requested(request, by_id)
            session = self._create(partitions, by_id, principal) if epoch == INITIAL_EPOCH else None
            return FetchWork(list(partitions.values()), session, incremental=False)
        session = self._of(session_id, principal)
        if session is None:
            raise KafkaError(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        if session.epoch != epoch:
            raise KafkaError(ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        if session.by_id != by_id:
            raise KafkaError(ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR)
        _apply(session, request)
        if not session.partitions:
            del self._sessions[session_id]
            return FetchWork(list(_requested(request, by_id).values()), None, incremental=False)
        session.epoch = 1 if epoch == EPOCH_MAX else epoch + 1
        session.used_s = self._clock.monotonic()
        self._sessions.move_to_end(session_id)
        return FetchWork(list(session.partitions.values()), session, incremental=True)

    def _of(self, session_id: int, principal: str) -> FetchSession | None:
        session = self._sessions.get(session_id)
        return session if session is not None and session.principal == principal else None

    def _create(self, partitions: dict[Key, FetchPartition], by_id: bool, principal: str) -> FetchSession | None:
        now_s = self._clock.monotonic()
        if len(self._sessions) >= SESSIONS_MAX:
            oldest = next(iter(self._sessions.values()))
            if now_s - oldest.used_s < EVICT_AFTER_S:
                return None
            del self._sessions[oldest.session_id]
        session_id = 0
        while not session_id or session_id in self._sessions:
            session_id = secrets.randbelow(2**31)
        session = FetchSession(session_id, partitions, by_id=by_id, principal=principal, now_s=now_s)
        self._sessions[session_id] = session
        return session


def _requested(request: FetchRequest, by_id: bool) -> dict[Key, FetchPartition]:
    """The partitions in the request's order; of one named twice the last counts."""
    partitions: dict[Key, FetchPartition] = {}
    for topic in request.topics:
        name: str | bytes = topic.topic_id if by_id else topic.topic
        text = None if by_id else topic.topic
        for wanted in topic.partitions:
            partitions[name, wanted.partition] = FetchPartition(text, topic.topic_id, wanted)
    return partitions


def _apply(session: FetchSession, request: FetchRequest) -> None:
    partitions = session.partitions
    for topic in request.topics:
        name: str | bytes = topic.topic_id if session.by_id else topic.topic
        text = None if session.by_id else topic.topic
        for wanted in topic.partitions:
            known = partitions.get((name, wanted.partition))
            if known is None:
                partitions[name, wanted.partition] = FetchPartition(text, topic.topic_id, wanted)
            else:
                known.update(wanted)
    for forgotten in request.forgotten_topics_data:
        name = forgotten.topic_id if session.by_id else forgotten.topic
        for index in forgotten.partitions:
            partitions.pop((name, index), None)
