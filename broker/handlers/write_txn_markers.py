"""WriteTxnMarkers (27): an administrator ends a transaction that hangs in a partition (`kafka-transactions --abort`)."""

from broker.context import RequestContext
from broker.deferred import Deferred
from broker.operations import Operation
from broker.producer_ids import ProducerIdAndEpoch
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import WriteTxnMarkersRequest, WriteTxnMarkersResponse

_Marker = WriteTxnMarkersRequest.WritableTxnMarker
_MarkerResult = WriteTxnMarkersResponse.WritableTxnMarkerResult
_TopicResult = WriteTxnMarkersResponse.WritableTxnMarkerTopicResult
_PartitionResult = WriteTxnMarkersResponse.WritableTxnMarkerPartitionResult


@api(ApiKey.WRITE_TXN_MARKERS, versions=(1, 2))
def handle(context: RequestContext, request: WriteTxnMarkersRequest) -> Deferred[WriteTxnMarkersResponse]:
    """Each partition on its own; errors: 3, 31, 47, 52, 56."""
    allowed = context.access.cluster(Operation.ALTER) or context.access.cluster(Operation.CLUSTER_ACTION)
    sequences = [0]
    response = WriteTxnMarkersResponse(
        markers=[
            _MarkerResult(
                producer_id=marker.producer_id,
                topics=[
                    _TopicResult(
                        name=topic.name,
                        partitions=[
                            _PartitionResult(
                                partition_index=number,
                                error_code=_write(context, marker, topic.name, number, sequences)
                                if allowed
                                else ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
                            )
                            for number in topic.partition_indexes
                        ],
                    )
                    for topic in marker.topics
                ],
            )
            for marker in request.markers
        ]
    )
    answer: Deferred[WriteTxnMarkersResponse] = Deferred()

    def durable(failure: Exception | None) -> None:
        if failure is not None:
            for marker in response.markers:
                for topic in marker.topics:
                    for partition in topic.partitions:
                        partition.error_code = partition.error_code or ErrorCode.KAFKA_STORAGE_ERROR
        answer.resolve(response)

    context.services.logs.when_durable(max(sequences), durable)
    return answer


def _write(context: RequestContext, marker: _Marker, topic: str, number: int, sequences: list[int]) -> ErrorCode:
    producer = ProducerIdAndEpoch(marker.producer_id, marker.producer_epoch)
    try:
        sequences.append(
            context.services.transactions.write_marker(
                (topic, number), producer, marker.coordinator_epoch, commit=marker.transaction_result
            )
        )
    except KafkaError as error:
        return error.code
    return ErrorCode.NONE
