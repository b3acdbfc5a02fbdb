"""DeleteAcls (31): what is found is out of force and durably gone when the answer is sent."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.security.acl import Acl
from broker.security.acl_checks import new_filter, reject_unknown
from protocol.api_keys import ApiKey
from protocol.errors import KafkaError
from protocol.messages import DeleteAclsRequest, DeleteAclsResponse

_Result = DeleteAclsResponse.DeleteAclsFilterResult


@api(ApiKey.DELETE_ACLS, versions=(1, 3))
def handle(context: RequestContext, request: DeleteAclsRequest) -> DeleteAclsResponse:
    """Each filter names all that it finds, also what another one of the request has found."""
    reject_unknown(
        (one.resource_type_filter, one.pattern_type_filter, one.operation, one.permission_type)
        for one in request.filters
    )
    security = context.services.security
    refusal = security.acl_refusal(context.access, Operation.ALTER)
    if refusal is not None:
        return DeleteAclsResponse(filter_results=[_failed(refusal) for _ in request.filters])
    gone: set[Acl] = set()
    results = []
    for wanted in request.filters:
        try:
            found = security.find_acls(new_filter(wanted))
        except KafkaError as error:
            results.append(_failed(error))
            continue
        gone.update(found)
        results.append(_Result(error_message=None, matching_acls=[_shown(acl) for acl in found]))
    if gone:
        security.remove_acls(gone)
    return DeleteAclsResponse(filter_results=results)


def _shown(acl: Acl) -> DeleteAclsResponse.DeleteAclsMatchingAcl:
    return DeleteAclsResponse.DeleteAclsMatchingAcl(
        error_message=None,
        resource_type=acl.resource_type,
        resource_name=acl.name,
        pattern_type=acl.pattern,
        principal=acl.principal,
        host=acl.host,
        operation=acl.operation,
        permission_type=acl.permission,
    )


def _failed(error: KafkaError) -> _Result:
    return _Result(error_code=error.code, error_message=error.message)
