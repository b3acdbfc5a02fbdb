"""Heartbeat (12): keeps a classic member's session and calls it to a rebalance. v3 static members."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import HeartbeatRequest, HeartbeatResponse


@api(ApiKey.HEARTBEAT, versions=(0, 4))
def handle(context: RequestContext, request: HeartbeatRequest) -> HeartbeatResponse:
    """Errors: 22, 24, 25, 27, 82 as in Kafka."""
    if not context.access.group(Operation.READ, request.group_id):
        return HeartbeatResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    return HeartbeatResponse(error_code=context.services.groups.heartbeat(request))
