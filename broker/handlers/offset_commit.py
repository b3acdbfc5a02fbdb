"""OffsetCommit (8): v2-9 by topic name, v10 by topic id. v2-4 retention, v6 leader epoch, v7 static members.

Each partition is checked for itself (topic, partition, size of the metadata); who may commit is decided for the group.
"""

from broker.context import RequestContext
from broker.coordinator.group_state import Committer
from broker.coordinator.offsets import metadata_fits
from broker.coordinator.records import CommittedOffset
from broker.deferred import Deferred
from broker.operations import Operation
from broker.registry import api
from broker.topics import Topic
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import OffsetCommitRequest, OffsetCommitResponse

TOPIC_IDS_FROM = 10

_Accepted = list[tuple[OffsetCommitResponse.OffsetCommitResponsePartition, str, CommittedOffset]]


@api(ApiKey.OFFSET_COMMIT, versions=(2, 10))
def handle(
    context: RequestContext, request: OffsetCommitRequest
) -> OffsetCommitResponse | Deferred[OffsetCommitResponse]:
    """Errors: 3 (100), 12, 22 (69), 24, 25, 27, 35, 82, 113 per partition; 16 when the commit cannot be written."""
    response = OffsetCommitResponse()
    accepted: _Accepted = []
    for requested in request.topics:
        if requested.partitions:
            response.topics.append(_check_topic(context, request, requested, accepted))
    if not accepted:
        return response
    committer = Committer(
        group_id=request.group_id,
        member_id=request.member_id,
        group_instance_id=request.group_instance_id,
        generation_id=request.generation_id_or_member_epoch,
        api_version=context.api_version,
    )
    offsets = [(topic, partition.partition_index, committed) for partition, topic, committed in accepted]
    answer: Deferred[OffsetCommitResponse] = Deferred()

    def respond(error: ErrorCode) -> None:
        for partition, _, _ in accepted:
            partition.error_code = error
        answer.resolve(response)

    context.services.groups.offsets.commit(committer, offsets).then(respond)
    return answer


def _check_topic(
    context: RequestContext,
    request: OffsetCommitRequest,
    requested: OffsetCommitRequest.OffsetCommitRequestTopic,
    accepted: _Accepted,
) -> OffsetCommitResponse.OffsetCommitResponseTopic:
    """The answer for one topic; partitions without an error of their own are added to `accepted`."""
    by_id = context.api_version >= TOPIC_IDS_FROM
    topics = context.services.topics
    topic = topics.get_by_id(requested.topic_id) if by_id else topics.get(requested.name)
    answered = OffsetCommitResponse.OffsetCommitResponseTopic(name=requested.name, topic_id=requested.topic_id)
    refusal = _refusal(context, request, requested, topic)
    for partition in requested.partitions:
        error = refusal if refusal or topic is None else _check_partition(context, topic, partition)
        answer = OffsetCommitResponse.OffsetCommitResponsePartition(
            partition_index=partition.partition_index, error_code=error
        )
        answered.partitions.append(answer)
        if topic is not None and error is ErrorCode.NONE:
            accepted.append((answer, topic.name, _committed(context, request, topic, partition)))
    return answered


def _refusal(
    context: RequestContext,
    request: OffsetCommitRequest,
    requested: OffsetCommitRequest.OffsetCommitRequestTopic,
    topic: Topic | None,
) -> ErrorCode:
    """Why nothing of a topic may be committed; NONE if it may."""
    if not context.access.group(Operation.READ, request.group_id):
        return ErrorCode.GROUP_AUTHORIZATION_FAILED
    if topic is None and context.api_version >= TOPIC_IDS_FROM:
        return ErrorCode.UNKNOWN_TOPIC_ID
    if not context.access.topic(Operation.READ, requested.name if topic is None else topic.name):
        return ErrorCode.TOPIC_AUTHORIZATION_FAILED
    return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if topic is None else ErrorCode.NONE


def _check_partition(
    context: RequestContext, topic: Topic, partition: OffsetCommitRequest.OffsetCommitRequestPartition
) -> ErrorCode:
    if not 0 <= partition.partition_index < len(topic.partitions):
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    fits = metadata_fits(partition.committed_metadata, context.services.config.offset_metadata_max_bytes)
    return ErrorCode.NONE if fits else ErrorCode.OFFSET_METADATA_TOO_LARGE


def _committed(
    context: RequestContext,
    request: OffsetCommitRequest,
    topic: Topic,
    partition: OffsetCommitRequest.OffsetCommitRequestPartition,
) -> CommittedOffset:
    now_ms = context.services.clock.time_ms()
    return CommittedOffset(
        offset=partition.committed_offset,
        leader_epoch=partition.committed_leader_epoch,
        metadata=partition.committed_metadata or "",
        commit_timestamp_ms=now_ms,
        expire_timestamp_ms=-1 if request.retention_time_ms < 0 else now_ms + request.retention_time_ms,
        topic_id=topic.topic_id,
    )
