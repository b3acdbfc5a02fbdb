"""LeaveGroup (13): v0-2 one member, its error at the top; v3+ many, also by instance id alone, each with its own error."""

from broker.context import RequestContext
from broker.deferred import Deferred
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import LeaveGroupRequest, LeaveGroupResponse

BATCHED_FROM = 3


@api(ApiKey.LEAVE_GROUP, versions=(0, 5))
def handle(context: RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse | Deferred[LeaveGroupResponse]:
    """Errors: 24, 25, 82 as in Kafka."""
    if not context.access.group(Operation.READ, request.group_id):
        return LeaveGroupResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    batched = context.api_version >= BATCHED_FROM
    identities = request.members if batched else [LeaveGroupRequest.MemberIdentity(member_id=request.member_id)]
    try:
        left = context.services.groups.leave(request.group_id, identities)
    except KafkaError as error:
        return LeaveGroupResponse(error_code=error.code)
    answer: Deferred[LeaveGroupResponse] = Deferred()
    left.then(
        lambda members: answer.resolve(
            LeaveGroupResponse(members=members) if batched else LeaveGroupResponse(error_code=members[0].error_code)
        )
    )
    return answer
