"""ListPartitionReassignments (46): on one node nothing ever moves; kafka-topics.sh --describe asks."""

from broker.context import RequestContext
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.messages import ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse


@api(ApiKey.LIST_PARTITION_REASSIGNMENTS, versions=(0, 0))
def handle(
    context: RequestContext,  # noqa: ARG001 - the signature of a handler
    request: ListPartitionReassignmentsRequest,  # noqa: ARG001
) -> ListPartitionReassignmentsResponse:
    """Always none."""
    return ListPartitionReassignmentsResponse(error_message=None, topics=[])
