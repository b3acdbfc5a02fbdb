"""OffsetFetch (9): v1-7 one group, v8+ many; null topics ask for all (v2+); v9 member and epoch, v10 topic ids.

What was never committed is answered with offset -1 and no error, also for groups, topics and partitions that do not exist.
The answer waits until what it tells is durable: no client resumes from an offset that a crash would take back.
Consumer groups (KIP-848) fence members by id and epoch; classic groups do not look at them.
"""

from collections.abc import Iterable
from functools import partial

from broker.context import RequestContext
from broker.coordinator.offsets import OffsetTable
from broker.coordinator.records import NO_TOPIC_ID
from broker.deferred import Deferred
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import OffsetFetchRequest, OffsetFetchResponse

BATCHED_FROM = 8
MEMBER_EPOCHS_FROM = 9
TOPIC_IDS_FROM = 10
GROUP_ERROR_FROM = 2
NO_OFFSET = -1
NO_EPOCH = -1

_Group = OffsetFetchResponse.OffsetFetchResponseGroup
_Topics = OffsetFetchResponse.OffsetFetchResponseTopics
_Partitions = OffsetFetchResponse.OffsetFetchResponsePartitions


@api(ApiKey.OFFSET_FETCH, versions=(1, 10))
def handle(context: RequestContext, request: OffsetFetchRequest) -> Deferred[OffsetFetchResponse]:
    """Errors: 22, 25, 113 for the group; 100 per partition for an unknown topic id, 88 where an open transaction may change the
    offset and it is to be stable (v7+); 16 for the group when offsets cannot be made durable."""
    batched = context.api_version >= BATCHED_FROM
    groups = [
        _fetch(context, group, request.require_stable) for group in (request.groups if batched else [_single(request)])
    ]
    answer: Deferred[OffsetFetchResponse] = Deferred()

    def respond(error: ErrorCode) -> None:
        answered = [_Group(group_id=group.group_id, error_code=error) for group in groups] if error else groups
        answer.resolve(OffsetFetchResponse(groups=answered) if batched else _single_response(answered[0]))

    context.services.groups.offsets.when_durable([group.group_id for group in groups], respond)
    return answer


def _single(request: OffsetFetchRequest) -> OffsetFetchRequest.OffsetFetchRequestGroup:
    """v1-7 in the form of v8."""
    group = OffsetFetchRequest.OffsetFetchRequestGroup(group_id=request.group_id, topics=None)
    if request.topics is not None:
        group.topics = [
            OffsetFetchRequest.OffsetFetchRequestTopics(name=topic.name, partition_indexes=topic.partition_indexes)
            for topic in request.topics
        ]
    return group


def _single_response(group: _Group) -> OffsetFetchResponse:
    return OffsetFetchResponse(
        error_code=group.error_code,
        topics=[
            OffsetFetchResponse.OffsetFetchResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetFetchResponse.OffsetFetchResponsePartition(
                        partition_index=partition.partition_index,
                        committed_offset=partition.committed_offset,
                        committed_leader_epoch=partition.committed_leader_epoch,
                        metadata=partition.metadata,
                        error_code=partition.error_code,
                    )
                    for partition in topic.partitions
                ],
            )
            for topic in group.topics
        ],
    )


def _fetch(context: RequestContext, group: OffsetFetchRequest.OffsetFetchRequestGroup, stable: bool) -> _Group:
    if not context.access.group(Operation.DESCRIBE, group.group_id):
        forbidden = ErrorCode.GROUP_AUTHORIZATION_FAILED
        if context.api_version < GROUP_ERROR_FROM:
            topics_of = [_failed(wanted, wanted.name, forbidden) for wanted in group.topics or ()]
            return _Group(group_id=group.group_id, topics=topics_of)
        return _Group(group_id=group.group_id, error_code=forbidden)
    permitted = partial(context.access.topic, Operation.DESCRIBE)
    offsets = context.services.groups.offsets.of_group(group.group_id)
    member_id = None if context.api_version < MEMBER_EPOCHS_FROM else group.member_id
    member_epoch = NO_EPOCH if context.api_version < MEMBER_EPOCHS_FROM else group.member_epoch
    error = context.services.groups.offsets.check_fetch(group.group_id, member_id, member_epoch)
    answered = _Group(group_id=group.group_id, error_code=error)
    if error:
        return answered
    by_id, topics = context.api_version >= TOPIC_IDS_FROM, context.services.topics
    if group.topics is None:
        for name in offsets.topics():
            known = topics.get(name)
            if known is not None and permitted(name):
                current = [p for p, committed in offsets.of_topic(name).items() if committed.belongs_to(known.topic_id)]
                answered.topics.append(_topic(name, known.topic_id, offsets, current, stable))
        return answered
    for wanted in group.topics:
        known = topics.get_by_id(wanted.topic_id) if by_id else topics.get(wanted.name)
        name = wanted.name if known is None else known.name
        if (known is not None or not by_id) and not permitted(name):
            answered.topics.append(_failed(wanted, name, ErrorCode.TOPIC_AUTHORIZATION_FAILED))
        elif known is not None:
            answered.topics.append(_topic(known.name, known.topic_id, offsets, wanted.partition_indexes, stable))
        elif by_id:
            answered.topics.append(_failed(wanted, "", ErrorCode.UNKNOWN_TOPIC_ID))
        else:
            answered.topics.append(_topic(wanted.name, NO_TOPIC_ID, offsets, wanted.partition_indexes, stable))
    return answered


def _topic(name: str, topic_id: bytes, offsets: OffsetTable, partitions: Iterable[int], stable: bool) -> _Topics:
    answered = _Topics(name=name, topic_id=topic_id)
    for partition in partitions:
        unstable = stable and offsets.is_pending(name, partition)
        committed = None if unstable else offsets.get(name, partition)
        if committed is not None and not committed.belongs_to(topic_id):
            committed = None
        answered.partitions.append(
            _Partitions(
                partition_index=partition,
                committed_offset=NO_OFFSET if committed is None else committed.offset,
                committed_leader_epoch=-1 if committed is None else committed.leader_epoch,
                metadata="" if committed is None else committed.metadata,
                error_code=ErrorCode.UNSTABLE_OFFSET_COMMIT if unstable else ErrorCode.NONE,
            )
        )
    return answered


def _failed(wanted: OffsetFetchRequest.OffsetFetchRequestTopics, name: str, error: ErrorCode) -> _Topics:
    return _Topics(
        name=name,
        topic_id=wanted.topic_id,
        partitions=[
            _Partitions(
                partition_index=partition,
                committed_offset=NO_OFFSET,
                metadata="",
                error_code=error,
            )
            for partition in wanted.partition_indexes
        ],
    )
