"""DescribeGroups (15): state and members of classic groups. v3 authorised operations, v4 instance ids, v6 GROUP_ID_NOT_FOUND.

Subscriptions and the protocol are shown only while the group is Stable, as in Kafka: otherwise they are about to change.
"""

from broker.context import RequestContext
from broker.coordinator.classic_group import ClassicGroup
from broker.coordinator.group_state import GroupState
from broker.operations import NOT_ASKED, Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import DescribeGroupsRequest, DescribeGroupsResponse

NOT_FOUND_FROM = 6

_Described = DescribeGroupsResponse.DescribedGroup


@api(ApiKey.DESCRIBE_GROUPS, versions=(0, 6))
def handle(context: RequestContext, request: DescribeGroupsRequest) -> DescribeGroupsResponse:
    """Before v6 a group that does not exist is Dead, without an error."""
    return DescribeGroupsResponse(groups=[_group(context, request, group_id) for group_id in request.groups])


def _group(context: RequestContext, request: DescribeGroupsRequest, group_id: str) -> _Described:
    if not context.access.group(Operation.DESCRIBE, group_id):
        code = ErrorCode.GROUP_AUTHORIZATION_FAILED
        return _Described(error_code=code, group_id=group_id, authorized_operations=NOT_ASKED)
    operations = context.access.group_operations(group_id) if request.include_authorized_operations else NOT_ASKED
    group = context.services.groups.group(group_id)
    if isinstance(group, ClassicGroup):
        return _describe(group, operations)
    return _unknown(context, group_id, operations)


def _unknown(context: RequestContext, group_id: str, operations: int) -> _Described:
    if context.api_version < NOT_FOUND_FROM:
        return _Described(group_id=group_id, group_state=GroupState.DEAD.value, authorized_operations=operations)
    return _Described(
        error_code=ErrorCode.GROUP_ID_NOT_FOUND,
        error_message=f"Group {group_id} not found.",
        group_id=group_id,
        group_state=GroupState.DEAD.value,
        authorized_operations=NOT_ASKED,
    )


def _describe(group: ClassicGroup, operations: int) -> _Described:
    stable = group.state is GroupState.STABLE
    return _Described(
        group_id=group.group_id,
        group_state=group.state.value,
        protocol_type=group.protocol_type or "",
        protocol_data=(group.protocol_name or "") if stable else "",
        members=[
            DescribeGroupsResponse.DescribedGroupMember(
                member_id=member.member_id,
                group_instance_id=member.group_instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                member_metadata=member.metadata(group.protocol_name) if stable else b"",
                member_assignment=member.assignment,
            )
            for member in group.roster.members.values()
        ],
        authorized_operations=operations,
    )
