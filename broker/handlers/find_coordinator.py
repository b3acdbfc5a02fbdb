"""FindCoordinator (10): this broker coordinates everything. v0-3 ask for one key, v4+ for many."""

from broker.context import RequestContext
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import FindCoordinatorRequest, FindCoordinatorResponse

GROUP, TRANSACTION = 0, 1
BATCHED_FROM = 4


@api(ApiKey.FIND_COORDINATOR, versions=(0, 6))
def handle(context: RequestContext, request: FindCoordinatorRequest) -> FindCoordinatorResponse:
    """Share groups (key type 2) are not offered: INVALID_REQUEST, as for a type that does not exist."""
    known = request.key_type in (GROUP, TRANSACTION)
    if known:
        coordinator = context.services.groups if request.key_type == GROUP else context.services.transactions
        coordinator.ensure_ready()
    error = ErrorCode.NONE if known else ErrorCode.INVALID_REQUEST
    node_id = context.services.node_id if known else -1
    host, port = context.connection.advertised if known else ("", -1)
    if context.api_version < BATCHED_FROM:
        text = "NONE" if known else error.text  # Kafka's own words for "no error" in these versions
        return FindCoordinatorResponse(error_code=error, error_message=text, node_id=node_id, host=host, port=port)
    return FindCoordinatorResponse(
        coordinators=[
            FindCoordinatorResponse.Coordinator(
                key=key,
                node_id=node_id,
                host=host,
                port=port,
                error_code=error,
                error_message="" if known else error.text,
            )
            for key in request.coordinator_keys
        ]
    )
