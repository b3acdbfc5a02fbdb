"""DescribeProducers (61): what partitions know of idempotent and transactional producers (KIP-664)."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.topic_rules import valid_name
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import DescribeProducersRequest, DescribeProducersResponse

_Partition = DescribeProducersResponse.PartitionResponse
_Producer = DescribeProducersResponse.ProducerState


@api(ApiKey.DESCRIBE_PRODUCERS, versions=(0, 0))
def handle(context: RequestContext, request: DescribeProducersRequest) -> DescribeProducersResponse:
    """Each partition on its own."""
    return DescribeProducersResponse(
        topics=[
            DescribeProducersResponse.TopicResponse(
                name=topic.name,
                partitions=[_described(context, topic.name, number) for number in topic.partition_indexes],
            )
            for topic in request.topics
        ]
    )


def _described(context: RequestContext, name: str, number: int) -> _Partition:
    if not context.access.topic(Operation.READ, name):
        code = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        return _Partition(partition_index=number, error_code=code, error_message=code.text)
    topic = context.services.topics.get(name)
    if topic is None:
        code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if valid_name(name) else ErrorCode.INVALID_TOPIC_EXCEPTION
        return _Partition(partition_index=number, error_code=code, error_message=code.text)
    try:
        log = topic.partition(number)
    except KafkaError as error:
        return _Partition(partition_index=number, error_code=error.code, error_message=None)
    return _Partition(
        partition_index=number,
        error_message=None,
        active_producers=[
            _Producer(
                producer_id=producer.producer_id,
                producer_epoch=producer.epoch,
                last_sequence=producer.last_sequence,
                last_timestamp=producer.last_timestamp,
                coordinator_epoch=producer.coordinator_epoch,
                current_txn_start_offset=log.producers.open_transactions.get(producer.producer_id, -1),
            )
            for producer in log.producers.producers.values()
        ],
    )
