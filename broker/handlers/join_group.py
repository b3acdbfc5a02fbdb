"""JoinGroup (11): enters a classic group or its next generation; the answer waits for the other members.

v0 has no rebalance timeout; v4 first hands out a member id (KIP-394); v5 static members (KIP-345); v7 protocol type and a
null protocol name on errors; v9 skip_assignment (KIP-814).
"""

from functools import partial

from broker.context import RequestContext
from broker.coordinator.answers import failed_join
from broker.coordinator.group_state import JoiningClient
from broker.deferred import Deferred
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import JoinGroupRequest, JoinGroupResponse

NULL_PROTOCOL_NAME_FROM = 7


@api(ApiKey.JOIN_GROUP, versions=(0, 9))
def handle(context: RequestContext, request: JoinGroupRequest) -> JoinGroupResponse | Deferred[JoinGroupResponse]:
    """Errors: 23, 24, 25, 26, 27, 79, 81, 82 as in Kafka; 16 when the group's state cannot be written."""
    if not context.access.group(Operation.READ, request.group_id):
        refused = failed_join(ErrorCode.GROUP_AUTHORIZATION_FAILED)
        return refused if context.api_version >= NULL_PROTOCOL_NAME_FROM else _without_null(refused)
    client = JoiningClient(
        context.client_id or "",
        "/" + context.client_host,
        context.api_version,
        partial(context.access.topic, Operation.DESCRIBE),
    )
    answer = context.services.groups.join(request, client)
    if context.api_version >= NULL_PROTOCOL_NAME_FROM:
        return answer
    shaped: Deferred[JoinGroupResponse] = Deferred()
    answer.then(lambda response: shaped.resolve(_without_null(response)))
    return shaped


def _without_null(response: JoinGroupResponse) -> JoinGroupResponse:
    if response.protocol_name is None:
        response.protocol_name = ""
    return response
