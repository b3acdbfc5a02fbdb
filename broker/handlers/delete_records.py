"""DeleteRecords (21): lets partitions start later."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import DeleteRecordsRequest, DeleteRecordsResponse

HIGH_WATERMARK = -1

_Asked = DeleteRecordsRequest.DeleteRecordsPartition
_Result = DeleteRecordsResponse.DeleteRecordsPartitionResult


@api(ApiKey.DELETE_RECORDS, versions=(0, 2))
def handle(context: RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse:
    """Each partition on its own; topics of which no partition is named are left out, as in Kafka."""
    return DeleteRecordsResponse(
        topics=[
            DeleteRecordsResponse.DeleteRecordsTopicResult(
                name=topic.name,
                partitions=[_delete(context, topic.name, asked) for asked in topic.partitions],
            )
            for topic in request.topics
            if topic.partitions
        ]
    )


def _delete(context: RequestContext, name: str, asked: _Asked) -> _Result:
    try:
        return _Result(partition_index=asked.partition_index, low_watermark=_delete_before(context, name, asked))
    except KafkaError as error:
        return _Result(partition_index=asked.partition_index, low_watermark=-1, error_code=error.code)


def _delete_before(context: RequestContext, name: str, asked: _Asked) -> int:
    context.access.check_topic(Operation.DELETE, name)
    topic = context.services.topics.get(name)
    if topic is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    if topic.internal:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION)
    log = topic.partition(asked.partition_index)
    if "delete" not in log.config.cleanup_policy.split(","):
        raise KafkaError(ErrorCode.POLICY_VIOLATION)
    return log.delete_records_before(log.high_watermark if asked.offset == HIGH_WATERMARK else asked.offset)
