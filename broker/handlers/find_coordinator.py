"""FindCoordinator (10): this broker coordinates everything. v0-3 ask for one key, v4+ for many."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import FindCoordinatorRequest, FindCoordinatorResponse

GROUP, TRANSACTION = 0, 1
BATCHED_FROM = 4


@api(ApiKey.FIND_COORDINATOR, versions=(0, 6))
def handle(context: RequestContext, request: FindCoordinatorRequest) -> FindCoordinatorResponse:
    """Share groups (key type 2) are not offered: INVALID_REQUEST, as for a type that does not exist."""
    if request.key_type in (GROUP, TRANSACTION):
        coordinator = context.services.groups if request.key_type == GROUP else context.services.transactions
        coordinator.ensure_ready()
    if context.api_version >= BATCHED_FROM:
        return FindCoordinatorResponse(
            coordinators=[_found(context, request.key_type, key) for key in request.coordinator_keys]
        )
    found = _found(context, request.key_type, request.key)
    return FindCoordinatorResponse(
        error_code=found.error_code,
        # "NONE" are Kafka's own words for "no error" in these versions.
        error_message=_error(context, request.key_type, request.key).text if found.error_code else "NONE",
        node_id=found.node_id,
        host=found.host,
        port=found.port,
    )


def _found(context: RequestContext, kind: int, key: str) -> FindCoordinatorResponse.Coordinator:
    error = _error(context, kind, key)
    host, port = ("", -1) if error else context.connection.advertised
    return FindCoordinatorResponse.Coordinator(
        key=key,
        node_id=-1 if error else context.services.node_id,
        host=host,
        port=port,
        error_code=error,
        error_message=error.text if error is ErrorCode.INVALID_REQUEST else "",
    )


def _error(context: RequestContext, kind: int, key: str) -> ErrorCode:
    if kind == GROUP:
        allowed = context.access.group(Operation.DESCRIBE, key)
        return ErrorCode.NONE if allowed else ErrorCode.GROUP_AUTHORIZATION_FAILED
    if kind == TRANSACTION:
        allowed = context.access.transactional_id(Operation.DESCRIBE, key)
        return ErrorCode.NONE if allowed else ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    return ErrorCode.INVALID_REQUEST
