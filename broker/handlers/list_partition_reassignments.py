"""ListPartitionReassignments (46): on one node nothing ever moves; kafka-topics.sh --describe asks."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse


@api(ApiKey.LIST_PARTITION_REASSIGNMENTS, versions=(0, 0))
def handle(
    context: RequestContext,
    request: ListPartitionReassignmentsRequest,  # noqa: ARG001 - the signature of a handler
) -> ListPartitionReassignmentsResponse:
    """Always none."""
    if not context.access.cluster(Operation.DESCRIBE):
        code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        return ListPartitionReassignmentsResponse(error_code=code, error_message=code.text, topics=[])
    return ListPartitionReassignmentsResponse(error_message=None, topics=[])
