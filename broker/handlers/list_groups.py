"""ListGroups (16): every group of this broker. v4 filters by state (KIP-518), v5 by type (KIP-848); case does not matter."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.messages import ListGroupsRequest, ListGroupsResponse


@api(ApiKey.LIST_GROUPS, versions=(0, 5))
def handle(context: RequestContext, request: ListGroupsRequest) -> ListGroupsResponse:
    """A state or type that does not exist matches nothing, as in Kafka."""
    states = {state.lower() for state in request.states_filter}
    types = {kind.lower() for kind in request.types_filter}
    response = ListGroupsResponse()
    access = context.access
    every = access.cluster(Operation.DESCRIBE)
    for group in context.services.groups.groups():
        if not (every or access.group(Operation.DESCRIBE, group.group_id)):
            continue
        matches_type = not types or group.type.value in types
        if matches_type and (not states or group.state_name.lower() in states):
            response.groups.append(
                ListGroupsResponse.ListedGroup(
                    group_id=group.group_id,
                    protocol_type=group.protocol_type or "",
                    group_state=group.state_name,
                    group_type=group.type.value,
                )
            )
    return response
