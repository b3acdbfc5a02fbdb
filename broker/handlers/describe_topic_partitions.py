"""DescribeTopicPartitions (75): topics in order of name, in pages (KIP-966)."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.services import Services
from broker.topic_rules import INTERNAL_TOPICS, valid_name
from broker.topics import Topic
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse

PARTITIONS_MAX = 2000
"""Kafka's max.request.partition.size.limit."""

_Described = DescribeTopicPartitionsResponse.DescribeTopicPartitionsResponseTopic
_Partition = DescribeTopicPartitionsResponse.DescribeTopicPartitionsResponsePartition


@api(ApiKey.DESCRIBE_TOPIC_PARTITIONS, versions=(0, 0))
def handle(context: RequestContext, request: DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse:
    """At most `response_partition_limit` partitions, from the cursor on; `next_cursor` says where the next page starts."""
    services, cursor = context.services, request.cursor
    start = "" if cursor is None else cursor.topic_name
    every = not request.topics
    names = services.topics.names() if every else sorted({topic.name for topic in request.topics})
    names = [name for name in names if name >= start]
    access = context.access
    if every:
        names = [name for name in names if access.topic(Operation.DESCRIBE, name)]
    if cursor is not None and (cursor.partition_index < 0 or not (every or start in names)):
        return _all_failed(request)
    response = DescribeTopicPartitionsResponse()
    forbidden: list[_Described] = []
    room = max(1, min(request.response_partition_limit, PARTITIONS_MAX))
    for name in names:
        if room == 0:
            response.next_cursor = DescribeTopicPartitionsResponse.Cursor(topic_name=name, partition_index=0)
            break
        topic = services.topics.get(name)
        if not access.topic(Operation.DESCRIBE, name):
            forbidden.append(_Described(error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED, name=name))
            continue
        if topic is None:
            response.topics.append(_unknown(name, access.topic_operations(name)))
            continue
        first = cursor.partition_index if cursor is not None and name == start else 0
        response.topics.append(_described(services, topic, first, first + room))
        response.topics[-1].topic_authorized_operations = access.topic_operations(name)
        if first + room < len(topic.partitions):
            response.next_cursor = DescribeTopicPartitionsResponse.Cursor(topic_name=name, partition_index=first + room)
            break
        room -= len(response.topics[-1].partitions)
    response.topics = forbidden + response.topics
    return response


def _all_failed(request: DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse:
    topics = [_Described(error_code=ErrorCode.INVALID_REQUEST, name=topic.name) for topic in request.topics]
    return DescribeTopicPartitionsResponse(topics=topics)


def _unknown(name: str, operations: int) -> _Described:
    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if valid_name(name) else ErrorCode.INVALID_TOPIC_EXCEPTION
    return _Described(
        error_code=code,
        name=name,
        is_internal=name in INTERNAL_TOPICS,
        topic_authorized_operations=operations,
    )


def _described(services: Services, topic: Topic, first: int, end: int) -> _Described:
    nodes = [services.node_id]
    return _Described(
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=topic.internal,
        partitions=[
            _Partition(
                partition_index=log.partition,
                leader_id=services.node_id,
                leader_epoch=log.leader_epoch,
                replica_nodes=nodes,
                isr_nodes=nodes,
                eligible_leader_replicas=[],
                last_known_elr=[],
                offline_replicas=[],
            )
            for log in topic.partitions[first:end]
        ],
    )
