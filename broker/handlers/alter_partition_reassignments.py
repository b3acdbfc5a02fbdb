"""AlterPartitionReassignments (45): the only node holds every partition, so nothing can move."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.services import Services
from broker.topic_rules import check_replicas
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse

_Asked = AlterPartitionReassignmentsRequest.ReassignablePartition
_Result = AlterPartitionReassignmentsResponse.ReassignablePartitionResponse


@api(ApiKey.ALTER_PARTITION_REASSIGNMENTS, versions=(0, 1))
def handle(context: RequestContext, request: AlterPartitionReassignmentsRequest) -> AlterPartitionReassignmentsResponse:
    """To this node: done already. To others: they are not registered. Cancelling: nothing is under way."""
    if not context.access.cluster(Operation.ALTER):
        code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        return AlterPartitionReassignmentsResponse(
            error_code=code,
            error_message=code.text,
            responses=[
                AlterPartitionReassignmentsResponse.ReassignableTopicResponse(
                    name=topic.name,
                    partitions=[_failed(asked.partition_index, code, code.text) for asked in topic.partitions],
                )
                for topic in request.topics
            ],
        )
    return AlterPartitionReassignmentsResponse(
        allow_replication_factor_change=request.allow_replication_factor_change,
        error_message=None if request.topics else "",
        responses=[
            AlterPartitionReassignmentsResponse.ReassignableTopicResponse(
                name=topic.name,
                partitions=[_reassigned(context.services, topic.name, asked) for asked in topic.partitions],
            )
            for topic in request.topics
        ],
    )


def _reassigned(services: Services, name: str, asked: _Asked) -> _Result:
    topic, number = services.topics.get(name), asked.partition_index
    if topic is None:
        return _failed(number, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Unable to find a topic named {name}.")
    if not 0 <= number < len(topic.partitions):
        return _failed(number, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Unable to find partition {name}:{number}.")
    if asked.replicas is None:
        return _failed(number, ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, None)
    try:
        check_replicas(asked.replicas, services.node_id)
    except KafkaError as error:
        return _failed(number, error.code, error.message)
    return _Result(partition_index=number, error_message=None)


def _failed(number: int, code: ErrorCode, message: str | None) -> _Result:
    return _Result(partition_index=number, error_code=code, error_message=message)
