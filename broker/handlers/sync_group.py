"""SyncGroup (14): the leader brings the assignment, everybody takes its own. v5 names protocol type and protocol (KIP-559)."""

from broker.context import RequestContext
from broker.coordinator.answers import failed_sync
from broker.deferred import Deferred
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import SyncGroupRequest, SyncGroupResponse

PROTOCOL_NAMED_FROM = 5


@api(ApiKey.SYNC_GROUP, versions=(0, 5))
def handle(context: RequestContext, request: SyncGroupRequest) -> SyncGroupResponse | Deferred[SyncGroupResponse]:
    """Errors: 22, 23, 24, 25, 27, 82 as in Kafka; 16 when the assignment cannot be written."""
    if not context.access.group(Operation.READ, request.group_id):
        return failed_sync(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    unnamed = request.protocol_type is None or request.protocol_name is None
    if context.api_version >= PROTOCOL_NAMED_FROM and unnamed:
        return failed_sync(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    return context.services.groups.sync(request)
