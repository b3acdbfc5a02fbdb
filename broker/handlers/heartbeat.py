"""Heartbeat (12): keeps a classic member's session and calls it to a rebalance. v3 static members."""

from broker.context import RequestContext
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.messages import HeartbeatRequest, HeartbeatResponse


@api(ApiKey.HEARTBEAT, versions=(0, 4))
def handle(context: RequestContext, request: HeartbeatRequest) -> HeartbeatResponse:
    """Errors: 22, 24, 25, 27, 82 as in Kafka."""
    return HeartbeatResponse(error_code=context.services.groups.heartbeat(request))
