"""DeleteGroups (42): groups without members, with their offsets; answered when that would survive a crash."""

from functools import partial

from broker.context import RequestContext
from broker.deferred import Deferred
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import DeleteGroupsRequest, DeleteGroupsResponse


@api(ApiKey.DELETE_GROUPS, versions=(0, 2))
def handle(
    context: RequestContext, request: DeleteGroupsRequest
) -> DeleteGroupsResponse | Deferred[DeleteGroupsResponse]:
    """Errors per group: 68 with members, 69 unknown; a group named twice is answered once."""
    wanted = list(dict.fromkeys(request.groups_names))
    if not wanted:
        return DeleteGroupsResponse()
    answer: Deferred[DeleteGroupsResponse] = Deferred()
    results = {name: DeleteGroupsResponse.DeletableGroupResult(group_id=name) for name in wanted}
    waiting = set(wanted)

    def deleted(name: str, error: ErrorCode) -> None:
        results[name].error_code = error
        waiting.remove(name)
        if not waiting:
            answer.resolve(DeleteGroupsResponse(results=list(results.values())))

    for name in wanted:
        if not context.access.group(Operation.DELETE, name):
            deleted(name, ErrorCode.GROUP_AUTHORIZATION_FAILED)
            continue
        context.services.groups.delete_group(name).then(partial(deleted, name))
    return answer
