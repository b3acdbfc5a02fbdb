"""OffsetForLeaderEpoch (23): where an epoch ended, so that a consumer notices a truncated log (KIP-320)."""

from broker.context import RequestContext
from broker.leadership import check_leader_epoch
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import KafkaError
from protocol.messages import OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse

_Found = OffsetForLeaderEpochResponse.EpochEndOffset


@api(ApiKey.OFFSET_FOR_LEADER_EPOCH, versions=(2, 4))
def handle(context: RequestContext, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse:
    """Each partition on its own; (-1, -1) for an epoch that has not been yet."""
    return OffsetForLeaderEpochResponse(
        topics=[
            OffsetForLeaderEpochResponse.OffsetForLeaderTopicResult(
                topic=topic.topic,
                partitions=[_answer(context, topic.topic, asked) for asked in topic.partitions],
            )
            for topic in request.topics
        ]
    )


def _answer(context: RequestContext, name: str, asked: OffsetForLeaderEpochRequest.OffsetForLeaderPartition) -> _Found:
    try:
        context.access.check_topic(Operation.DESCRIBE, name)
        log = context.services.topics.log(name, asked.partition)
        check_leader_epoch(log, asked.current_leader_epoch)
        epoch, end_offset = log.end_offset_for_epoch(asked.leader_epoch)
    except KafkaError as error:
        return _Found(partition=asked.partition, error_code=error.code)
    return _Found(partition=asked.partition, leader_epoch=epoch, end_offset=end_offset)
