"""Fetch (1): whole batches, zero-copy; a long poll is a plain record that the logs wake, never a task."""

from collections.abc import Callable

from broker.context import RequestContext
from broker.deferred import Deferred
from broker.fetch_sessions import FetchPartition, FetchWork
from broker.leadership import check_leader_epoch
from broker.operations import Operation
from broker.registry import api
from broker.scheduler import Timer
from broker.security.quotas import CONSUMER_BYTE_RATE
from broker.services import Services
from broker.throttle import user_of
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import FetchRequest, FetchResponse
from storage.log import PartitionLog

FIRST_VERSION_WITH_TOPIC_IDS = 13
READ_UNCOMMITTED, READ_COMMITTED = 0, 1
UNKNOWN_SERVER_ERROR = ErrorCode.UNKNOWN_SERVER_ERROR


@api(ApiKey.FETCH, versions=(4, 18))
def handle(context: RequestContext, request: FetchRequest) -> FetchResponse | Deferred[FetchResponse]:
    """Answers at once when there is enough to read, an error, or no time to wait; otherwise later."""
    by_id = context.api_version >= FIRST_VERSION_WITH_TOPIC_IDS
    try:
        work = context.services.fetch_sessions.open(request, by_id=by_id, principal=context.access.principal)
    except KafkaError as error:
        return FetchResponse(error_code=error.code)
    if request.isolation_level not in (READ_UNCOMMITTED, READ_COMMITTED):
        return _all_failed(work)
    return _Fetch(context, request, work, by_id).start()


def _all_failed(work: FetchWork) -> FetchResponse:
    rows = [(partition, _absent(partition, UNKNOWN_SERVER_ERROR), 0) for partition in work.partitions]
    response = _respond(work, rows)
    response.error_code = UNKNOWN_SERVER_ERROR
    return response


def _failed(partition: FetchPartition, code: ErrorCode) -> FetchResponse.PartitionData:
    """The answer for a partition that exists but cannot be read as asked."""
    return FetchResponse.PartitionData(
        partition_index=partition.index, error_code=code, high_watermark=-1, aborted_transactions=None, records=b""
    )


def _absent(partition: FetchPartition, code: ErrorCode) -> FetchResponse.PartitionData:
    """The answer for a partition that was not looked at; Kafka's has an empty list in place of null."""
    data = _failed(partition, code)
    data.aborted_transactions = []
    return data


def _respond(work: FetchWork, rows: list[tuple[FetchPartition, FetchResponse.PartitionData, int]]) -> FetchResponse:
    """The response in the rows' order; consecutive rows of a topic share an entry."""
    session = work.session
    responses: list[FetchResponse.FetchableTopicResponse] = []
    last_topic: tuple[str | None, bytes] | None = None
    for partition, data, size in rows:
        if session is not None:
            news = partition.is_news(data, size)
            if work.incremental:
                if size:
                    session.serve_last(partition)
                if not news:
                    continue
        topic = (partition.topic, partition.topic_id)
        if topic != last_topic:
            last_topic = topic
            entry = FetchResponse.FetchableTopicResponse(
                topic=partition.topic or "", topic_id=partition.topic_id, partitions=[]
            )
            responses.append(entry)
        entry.partitions.append(data)
    return FetchResponse(session_id=work.session_id, responses=responses)


class _Fetch:
    """One Fetch in progress. It reads at the start and again whenever a log it waits for has moved."""

    __slots__ = (
        "_by_id", "_by_replica", "_cold", "_context", "_deferred", "_logs", "_max_bytes", "_min_bytes", "_missing",
        "_read_committed", "_scheduled",
        "_services", "_size", "_timer", "_urgent", "_wait_ms", "_work",
    )  # fmt: skip

    def __init__(self, context: RequestContext, request: FetchRequest, work: FetchWork, by_id: bool) -> None:
        services: Services = context.services
        self._context = context
        self._services = services
        self._work = work
        self._by_id = by_id
        self._by_replica = max(request.replica_id, request.replica_state.replica_id) >= 0
        self._read_committed = request.isolation_level == READ_COMMITTED
        self._max_bytes = min(request.max_bytes, services.config.fetch_max_bytes)
        quotas = services.security.quotas
        if quotas.active:  # a larger response would have to wait for ever
            window = quotas.window_units(CONSUMER_BYTE_RATE, user_of(context), context.client_id or "")
            self._max_bytes = int(min(self._max_bytes, window))
        self._min_bytes = min(request.min_bytes, self._max_bytes)
        self._wait_ms = request.max_wait_ms
        self._deferred: Deferred[FetchResponse] | None = None
        self._logs: list[PartitionLog] = []
        self._timer: Timer | None = None
        self._scheduled = False
        self._size = 0
        self._urgent = False
        self._cold: list[Callable[[], None]] = []
        self._missing: tuple[FetchPartition, ...] = ()

    def start(self) -> FetchResponse | Deferred[FetchResponse]:
        rows = self._read_all()
        if self._wait_ms <= 0 or self._size >= self._min_bytes or self._urgent or not self._logs:
            if not self._cold:
                return _respond(self._work, rows)
            self._deferred = Deferred()
            self._load(rows)
            return self._deferred
        self._deferred = Deferred()
        for log in self._logs:
            log.listeners.add(self._notify)
        self._timer = self._services.scheduler.call_later(self._wait_ms / 1000, self._expire)
        self._context.connection.close_callbacks.add(self._forget)
        return self._deferred

    # Waiting

    def _notify(self, _log: PartitionLog) -> None:
        """A log moved; look again once the appends of this turn are all done."""
        if not self._scheduled:
            self._scheduled = True
            self._services.scheduler.call_soon(self._retry)

    def _retry(self) -> None:
        self._scheduled = False
        if self._timer is None:
            return
        watched = self._logs
        rows = self._read_all()
        if self._size >= self._min_bytes or self._urgent or len(self._logs) != len(watched):
            self._finish(rows, watched)
        else:
            self._logs = watched

    def _expire(self) -> None:
        if self._timer is not None:
            watched = self._logs
            self._finish(self._read_all(), watched)

    def _finish(
        self, rows: list[tuple[FetchPartition, FetchResponse.PartitionData, int]], watched: list[PartitionLog]
    ) -> None:
        self._logs = watched
        self._forget()
        self._context.connection.close_callbacks.discard(self._forget)
        if self._cold:
            self._load(rows)
        elif self._deferred is not None:
            self._deferred.resolve(_respond(self._work, rows))

    def _forget(self) -> None:
        """Stops waiting; also when the client is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for log in self._logs:
            log.listeners.discard(self._notify)

    def _load(self, rows: list[tuple[FetchPartition, FetchResponse.PartitionData, int]]) -> None:
        """Answers once the pages that are not in memory have been read, by another thread."""
        deferred = self._deferred
        assert deferred is not None
        self._services.read_ahead.load(self._cold, lambda: deferred.resolve(_respond(self._work, rows)))

    # Reading

    def _read_all(self) -> list[tuple[FetchPartition, FetchResponse.PartitionData, int]]:
        """Reads every partition within the limits; sets what decides whether to answer now."""
        self._size, self._urgent, self._cold, self._logs = 0, False, [], []
        rows, unknown = [], []
        room = self._max_bytes
        for partition in self._work.partitions:
            log = self._log(partition)
            if not isinstance(log, PartitionLog):
                # As in Kafka, a partition that does not exist ends no wait, and comes last in the answer.
                if self._timer is None:
                    self._missing += (partition,)
                first = partition in self._missing and log is not ErrorCode.NOT_LEADER_OR_FOLLOWER
                absent = _absent if first else _failed
                unknown.append((partition, absent(partition, log), 0))
                continue
            self._logs.append(log)
            try:
                data, size = self._read(partition, log, room)
            except KafkaError as error:
                self._urgent = True
                self._services.metrics.errors[ApiKey.FETCH, error.code] += 1
                data, size = _failed(partition, error.code), 0
            rows.append((partition, data, size))
            self._size += size
            room = max(0, room - size)
        return rows + unknown

    def _log(self, partition: FetchPartition) -> PartitionLog | ErrorCode:
        topics = self._services.topics
        topic = topics.get_by_id(partition.topic_id) if self._by_id else topics.get(partition.topic or "")
        if topic is None:
            # A session knows the topic's name from the time when the id was known.
            if partition.topic is None:
                return ErrorCode.UNKNOWN_TOPIC_ID
            known = self._permitted(partition.topic)
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if known else ErrorCode.TOPIC_AUTHORIZATION_FAILED
        partition.topic = topic.name
        if not self._permitted(topic.name):
            return ErrorCode.TOPIC_AUTHORIZATION_FAILED
        if self._by_replica:  # on one node nobody else is one
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        if 0 <= partition.index < len(topic.partitions):
            return topic.partitions[partition.index]
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def _permitted(self, name: str) -> bool:
        access = self._context.access
        return access.cluster(Operation.CLUSTER_ACTION) if self._by_replica else access.topic(Operation.READ, name)

    def _read(self, partition: FetchPartition, log: PartitionLog, room: int) -> tuple[FetchResponse.PartitionData, int]:
        """Reads one partition; raises KafkaError."""
        if partition.leader_epoch >= 0:  # any negative one means none, here alone (FetchRequest.optionalEpoch of Kafka)
            check_leader_epoch(log, partition.leader_epoch)
        data = FetchResponse.PartitionData(
            partition_index=partition.index,
            high_watermark=log.high_watermark,
            last_stable_offset=log.last_stable_offset,
            log_start_offset=log.log_start_offset,
            aborted_transactions=[] if self._read_committed else None,
            records=b"",
        )
        if self._diverges(partition, log, data):
            self._urgent = True
            return data, 0
        limit = min(partition.max_bytes, room)
        if limit < 0:
            raise KafkaError(UNKNOWN_SERVER_ERROR, f"negative fetch size {limit}")
        up_to = log.last_stable_offset if self._read_committed else log.high_watermark
        offset = partition.offset
        if offset < log.log_start_offset or offset > log.log_end_offset:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
        if offset >= up_to:
            return data, 0
        # The first partition with data gives at least one batch, however large, or a client could be stuck (KIP-74).
        try:
            result = log.read(offset, limit, up_to=up_to, at_least_one=not self._size)
        except OSError as error:
            # Out of descriptors, a file that is gone: as in Kafka the partition's error, and not a poll without an end.
            place = {"topic": partition.topic, "partition": partition.index}
            self._services.refusals.warning("fetch failed", **place, error=str(error))
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR) from error
        data.records = result.buffers
        if self._read_committed:
            data.aborted_transactions = [
                FetchResponse.AbortedTransaction(producer_id=aborted.producer_id, first_offset=aborted.first_offset)
                for aborted in log.aborted_transactions(offset, result.next_offset)
            ]
        if result.cold:
            self._cold.append(result.load)
        return data, result.size

    def _diverges(self, partition: FetchPartition, log: PartitionLog, data: FetchResponse.PartitionData) -> bool:
        """Whether the client's log has records that ours has not (KIP-595); then `data` says where they part."""
        if partition.fetched_epoch < 0:
            return False
        epoch, end_offset = log.end_offset_for_epoch(partition.fetched_epoch)
        if end_offset < 0:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
        if epoch >= partition.fetched_epoch and end_offset >= partition.offset:
            return False
        data.diverging_epoch = FetchResponse.EpochEndOffset(epoch=epoch, end_offset=end_offset)
        return True
