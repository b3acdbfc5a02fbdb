"""ListOffsets (2): the ends of partitions, and offsets by time."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from broker.context import RequestContext
from broker.deferred import Deferred
from broker.leadership import check_leader_epoch
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import ListOffsetsRequest, ListOffsetsResponse
from storage.log import PartitionLog

LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED, EARLIEST_PENDING_UPLOAD = -1, -2, -3, -4, -5, -6
_FIRST_VERSION = {
    LATEST: 0,
    EARLIEST: 0,
    MAX_TIMESTAMP: 7,
    EARLIEST_LOCAL: 8,
    LATEST_TIERED: 9,
    EARLIEST_PENDING_UPLOAD: 11,
}
READ_UNCOMMITTED, READ_COMMITTED = 0, 1

_Asked = ListOffsetsRequest.ListOffsetsPartition
_Found = ListOffsetsResponse.ListOffsetsPartitionResponse


@api(ApiKey.LIST_OFFSETS, versions=(1, 11))
def handle(context: RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse | Deferred[ListOffsetsResponse]:
    """Each partition on its own; one asked for twice is an error, as in Kafka. Waits for the disk in a thread."""
    looked_up = list(_looked_up(context, request))
    loads = [load for log, time in looked_up if (load := log.load_indexes_for(time)) is not None]
    if not loads:
        return _answer_from_pages(context, request, looked_up)
    answer: Deferred[ListOffsetsResponse] = Deferred()

    def indexes_loaded() -> None:
        found = _answer_from_pages(context, request, looked_up)
        found.then(answer.resolve) if isinstance(found, Deferred) else answer.resolve(found)

    context.services.read_ahead.load(loads, indexes_loaded)
    return answer


def _looked_up(context: RequestContext, request: ListOffsetsRequest) -> Iterator[tuple[PartitionLog, int]]:
    """The logs that are asked for a time, and the time (-1: the latest)."""
    for topic in request.topics:
        for partition in topic.partitions if context.access.topic(Operation.DESCRIBE, topic.name) else ():
            if partition.timestamp >= 0 or partition.timestamp == MAX_TIMESTAMP:
                with contextlib.suppress(KafkaError):
                    yield (
                        context.services.topics.log(topic.name, partition.partition_index),
                        max(partition.timestamp, -1),
                    )


def _answer_from_pages(
    context: RequestContext, request: ListOffsetsRequest, looked_up: list[tuple[PartitionLog, int]]
) -> ListOffsetsResponse | Deferred[ListOffsetsResponse]:
    loads = []
    for log, time in looked_up:
        with contextlib.suppress(KafkaError, OSError):  # which the answer then says
            if not log.deleted and (load := log.load_pages_for(time)) is not None:
                loads.append(load)
    if not loads:
        return _respond(context, request)
    answer: Deferred[ListOffsetsResponse] = Deferred()
    context.services.read_ahead.load(loads, lambda: answer.resolve(_respond(context, request)))
    return answer


def _respond(context: RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse:
    topics = []
    for topic in request.topics:
        times = Counter(partition.partition_index for partition in topic.partitions)
        partitions = {partition.partition_index: partition for partition in topic.partitions}.values()
        found = [
            _answer(context, topic.name, partition, request.isolation_level, times[partition.partition_index])
            for partition in partitions
        ]
        topics.append(ListOffsetsResponse.ListOffsetsTopicResponse(name=topic.name, partitions=found))
    return ListOffsetsResponse(topics=topics)


def _answer(context: RequestContext, name: str, asked: _Asked, isolation_level: int, times: int) -> _Found:
    try:
        _check(asked, context.api_version, isolation_level, times)
        context.access.check_topic(Operation.DESCRIBE, name)
        log = context.services.topics.log(name, asked.partition_index)
        check_leader_epoch(log, asked.current_leader_epoch)
        offset, timestamp_ms, leader_epoch = _find(log, asked.timestamp, isolation_level)
    except KafkaError as error:
        return _Found(partition_index=asked.partition_index, error_code=error.code)
    return _Found(
        partition_index=asked.partition_index, offset=offset, timestamp=timestamp_ms, leader_epoch=leader_epoch
    )


def _check(asked: _Asked, version: int, isolation_level: int, times: int) -> None:
    if times > 1:
        raise KafkaError(ErrorCode.INVALID_REQUEST)
    if isolation_level not in (READ_UNCOMMITTED, READ_COMMITTED):
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
    if asked.timestamp < 0 and version < _FIRST_VERSION.get(asked.timestamp, version + 1):
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION)


def _find(log: PartitionLog, timestamp: int, isolation_level: int) -> tuple[int, int, int]:
    """(offset, timestamp in ms, leader epoch); -1 for what there is none of."""
    end = log.last_stable_offset if isolation_level == READ_COMMITTED else log.high_watermark
    if timestamp == LATEST:
        return end, -1, log.leader_epoch
    if timestamp in (EARLIEST, EARLIEST_LOCAL):
        epoch = log.epochs.epoch_of(log.log_start_offset)
        return log.log_start_offset, -1, log.leader_epoch if epoch < 0 else epoch
    if timestamp in (LATEST_TIERED, EARLIEST_PENDING_UPLOAD):  # there is no remote storage
        return -1, -1, -1
    if timestamp == MAX_TIMESTAMP:
        found = log.max_timestamp()
        if found is None and log.log_start_offset < end:  # no record has a time: then they are all the latest
            return log.log_start_offset, -1, log.epochs.epoch_of(log.log_start_offset)
    else:
        found = log.offset_for_timestamp(timestamp)
    return found if found is not None and found[0] < end else (-1, -1, -1)
