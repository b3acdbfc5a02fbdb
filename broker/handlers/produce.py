"""Produce (0): checks batches, appends them, answers when they are as durable as configured."""

from typing import TypeAlias

from broker.batch_checks import CODEC_MASK, InvalidRecords, RequestRefused, check_batch, check_transactional_id
from broker.context import CloseConnection, RequestContext
from broker.deferred import Deferred
from broker.operations import Operation
from broker.recompression import recompressed
from broker.registry import api
from broker.topics import Topic
from broker.transactions.entry import NotInTransaction, enter_transaction
from protocol.api_keys import ApiKey
from protocol.compression import Compression
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import ProduceRequest, ProduceResponse
from protocol.record_batch import BATCH_OVERHEAD, BatchHeader, UnreadableBatch, walk_batches
from storage.log import PartitionLog

FIRST_VERSION_WITH_TOPIC_IDS = 13

# Refused before the log looked at the batch; with them the answer's log_start_offset stays unknown, as in Kafka.
_BEFORE_LOG = frozenset(
    (
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.TOPIC_AUTHORIZATION_FAILED,
        ErrorCode.CORRUPT_MESSAGE,
        ErrorCode.MESSAGE_TOO_LARGE,
        ErrorCode.RECORD_LIST_TOO_LARGE,
        ErrorCode.INVALID_REQUIRED_ACKS,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
        ErrorCode.INVALID_PRODUCER_ID_MAPPING,
        ErrorCode.KAFKA_STORAGE_ERROR,
    )
)

# What the batch itself is to blame for: the log says so.
_BAD_BATCH = frozenset(
    (
        ErrorCode.CORRUPT_MESSAGE,
        ErrorCode.INVALID_RECORD,
        ErrorCode.INVALID_TIMESTAMP,
        ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
        ErrorCode.UNKNOWN_SERVER_ERROR,
    )
)

PartitionData: TypeAlias = ProduceRequest.PartitionProduceData
PartitionAnswer: TypeAlias = ProduceResponse.PartitionProduceResponse
Checked: TypeAlias = tuple[PartitionData, PartitionLog | None, BatchHeader | KafkaError]


@api(ApiKey.PRODUCE, versions=(3, 13), advertised_from=0)
def handle(context: RequestContext, request: ProduceRequest) -> ProduceResponse | Deferred[ProduceResponse | None]:
    """Every partition succeeds or fails by itself; raises CloseConnection for a failure that acks=0 cannot report."""
    produce = _Produce(context, request)
    try:
        produce.run()
    except (RequestRefused, UnreadableBatch) as error:
        produce.refuse_all(error)
    if produce.failed and not request.acks:
        raise CloseConnection("a Produce with acks=0 failed")
    if produce.sequence < 0:
        return produce.response
    context.services.logs.when_durable(produce.sequence, produce.durable)
    return produce


class _Produce(Deferred[ProduceResponse | None]):
    """One request: first everything is checked, then everything sound is appended; resolved once that is durable."""

    __slots__ = ("_by_id", "_context", "_now_ms", "_request", "_topics", "failed", "response", "sequence")

    def __init__(self, context: RequestContext, request: ProduceRequest) -> None:
        super().__init__()
        self._context = context
        self._request = request
        self._by_id = context.api_version >= FIRST_VERSION_WITH_TOPIC_IDS
        self._topics = _merged(request, self._by_id)
        self._now_ms = context.services.clock.time_ms()
        self.failed = False
        self.response = ProduceResponse()
        self.sequence = -1

    def run(self) -> None:
        """Sets the response, and `sequence` to the last WAL entry to wait for.

        Raises RequestRefused and UnreadableBatch, and then nothing has been appended.
        """
        check_transactional_id(self._context, self._request)
        topics = self._context.services.topics
        checked: list[Checked] = []
        for data in self._topics:
            topic = topics.get_by_id(data.topic_id) if self._by_id else topics.get(data.name)
            if self._permitted(topic, data.name):
                checked += [self._check(topic, row) for row in data.partition_data]
            else:
                forbidden = KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
                checked += [(row, None, forbidden) for row in data.partition_data]
        rows = iter(checked)
        for data in self._topics:
            answers = [self._append(*next(rows)) for _ in data.partition_data]
            self.response.responses.append(
                ProduceResponse.TopicProduceResponse(
                    name=data.name, topic_id=data.topic_id, partition_responses=answers
                )
            )

    def durable(self, error: Exception | None) -> None:
        if error is not None:
            _fail_all(self.response)
        self.resolve(self.response if self._request.acks else None)

    def refuse_all(self, error: KafkaError) -> None:
        message = error.message if isinstance(error, UnreadableBatch) else None
        self.response.responses = [
            ProduceResponse.TopicProduceResponse(
                name=data.name,
                topic_id=data.topic_id,
                partition_responses=[self._refused(row, None, error, message) for row in data.partition_data],
            )
            for data in self._topics
        ]

    def _permitted(self, topic: Topic | None, name: str) -> bool:
        """By name, whether or not it exists; an id that is unknown tells nothing."""
        if topic is None and self._by_id:
            return True
        return self._context.access.topic(Operation.WRITE, name if topic is None else topic.name)

    def _check(self, topic: Topic | None, data: PartitionData) -> Checked:
        if topic is None:
            code = ErrorCode.UNKNOWN_TOPIC_ID if self._by_id else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            return data, None, KafkaError(code)
        log = None
        try:
            log = topic.partition(data.index)
            return data, log, self._batch(topic, log, data)
        except RequestRefused:
            raise
        except UnreadableBatch as error:
            # What follows a sound batch spoils its own partition only, as in Kafka.
            if _starts_with_batch(data.records):
                return data, log, KafkaError(error.code)
            raise
        except KafkaError as error:
            return data, log, error

    def _batch(self, topic: Topic, log: PartitionLog, data: PartitionData) -> BatchHeader:
        batch = check_batch(self._context, self._request, topic, log.config, data.records, self._now_ms)
        if topic.codec is None or topic.codec == batch.attributes & CODEC_MASK:
            return batch
        return _recompress(data, batch, topic.codec, log.config.max_message_bytes)

    def _append(
        self, data: PartitionData, log: PartitionLog | None, batch: BatchHeader | KafkaError
    ) -> PartitionAnswer:
        if log is None or isinstance(batch, KafkaError):
            assert isinstance(batch, KafkaError)
            return self._refused(data, log, batch)
        records = data.records
        assert records is not None
        if len(records) != batch.size:
            records = records[: batch.size]
        try:
            if batch.transactional and batch.producer_id >= 0:
                enter_transaction(self._context, self._request.transactional_id or "", log, batch)
            result = log.append(records, [batch], now_ms=self._now_ms)
        except KafkaError as error:
            return self._refused(data, log, error)
        if result.sequence > self.sequence:
            self.sequence = result.sequence
        return PartitionAnswer(
            index=data.index,
            base_offset=result.base_offset,
            log_append_time_ms=result.log_append_time_ms,
            log_start_offset=result.log_start_offset,
        )

    def _refused(
        self, data: PartitionData, log: PartitionLog | None, error: KafkaError, message: str | None = None
    ) -> PartitionAnswer:
        self.failed = True
        services = self._context.services
        services.metrics.errors[ApiKey.PRODUCE, error.code] += 1
        if error.code in _BAD_BATCH:
            place = {"client": self._context.client_host, "topic": log and log.topic, "partition": data.index}
            services.refusals.warning("batch refused", **place, error=str(error))
        answer = PartitionAnswer(index=data.index, error_code=error.code, base_offset=-1, error_message=message)
        if isinstance(error, NotInTransaction):
            answer.error_message = error.message if error.code is ErrorCode.INVALID_TXN_STATE else None
        elif log is not None and error.code not in _BEFORE_LOG and _is_one_batch(data.records):
            answer.log_start_offset = log.log_start_offset
        if isinstance(error, InvalidRecords):
            answer.error_message = error.message
            answer.record_errors = [
                ProduceResponse.BatchIndexAndErrorMessage(batch_index=index, batch_index_error_message=error.message)
                for index in error.indexes
            ]
        return answer


def _fail_all(response: ProduceResponse) -> None:
    for topic in response.responses:
        for partition in topic.partition_responses:
            if not partition.error_code:
                partition.error_code = ErrorCode.KAFKA_STORAGE_ERROR
                partition.base_offset = -1


def _recompress(data: PartitionData, batch: BatchHeader, codec: Compression, max_message_bytes: int) -> BatchHeader:
    """Puts the batch into the topic's codec; KafkaError MESSAGE_TOO_LARGE when it has grown too much."""
    assert data.records is not None
    data.records = recompressed(data.records, batch, codec)
    if len(data.records) > max_message_bytes:
        raise KafkaError(ErrorCode.MESSAGE_TOO_LARGE)
    return BatchHeader(data.records)


def _starts_with_batch(records: memoryview | None) -> bool:
    if records is None or len(records) < BATCH_OVERHEAD:
        return False
    return _is_one_batch(records[: BatchHeader(records).size])


def _is_one_batch(records: memoryview | None) -> bool:
    try:
        return records is not None and len(walk_batches(records)) == 1
    except KafkaError:
        return False


def _merged(request: ProduceRequest, by_id: bool) -> list[ProduceRequest.TopicProduceData]:
    """The topics of the request, each once; of a partition named twice the last data counts, as in Kafka."""
    topics = request.topic_data
    if len(topics) == 1 and len(topics[0].partition_data) == 1:
        return topics
    merged: dict[str | bytes, dict[int, PartitionData]] = {}
    first: dict[str | bytes, ProduceRequest.TopicProduceData] = {}
    for topic in topics:
        if topic.partition_data:
            key: str | bytes = topic.topic_id if by_id else topic.name
            first.setdefault(key, topic)
            partitions = merged.setdefault(key, {})
            for data in topic.partition_data:
                partitions[data.index] = data
    for key, partitions in merged.items():
        first[key].partition_data = list(partitions.values())
    return list(first.values())
