"""OffsetDelete (47): single committed offsets of a group; topics that its live members subscribe to are protected (KIP-496)."""

from broker.context import RequestContext
from broker.deferred import Deferred
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import OffsetDeleteRequest, OffsetDeleteResponse

_Partition = OffsetDeleteResponse.OffsetDeleteResponsePartition


@api(ApiKey.OFFSET_DELETE, versions=(0, 0))
def handle(
    context: RequestContext, request: OffsetDeleteRequest
) -> OffsetDeleteResponse | Deferred[OffsetDeleteResponse]:
    """Errors: 3 and 86 per partition; 24, 68 and 69 for the group."""
    if not context.access.group(Operation.DELETE, request.group_id):
        return OffsetDeleteResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    response = OffsetDeleteResponse()
    wanted: list[tuple[str, _Partition]] = []
    for requested in request.topics:
        topic = context.services.topics.get(requested.name)
        count = len(topic.partitions) if topic is not None else 0
        answered = OffsetDeleteResponse.OffsetDeleteResponseTopic(name=requested.name)
        permitted = context.access.topic(Operation.READ, requested.name)
        for partition in requested.partitions:
            known = permitted and 0 <= partition.partition_index < count
            error = ErrorCode.NONE if known else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            if not permitted:
                error = ErrorCode.TOPIC_AUTHORIZATION_FAILED
            answered.partitions.append(_Partition(partition_index=partition.partition_index, error_code=error))
            if known:
                wanted.append((requested.name, answered.partitions[-1]))
        if requested.partitions:
            response.topics.append(answered)
    answer: Deferred[OffsetDeleteResponse] = Deferred()

    def respond(codes: list[ErrorCode]) -> None:
        for (_, partition), code in zip(wanted, codes, strict=True):
            partition.error_code = code
        answer.resolve(response)

    pairs = [(topic, partition.partition_index) for topic, partition in wanted]
    try:
        context.services.groups.offsets.delete(request.group_id, pairs).then(respond)
    except KafkaError as error:
        return OffsetDeleteResponse(error_code=error.code)
    return answer
