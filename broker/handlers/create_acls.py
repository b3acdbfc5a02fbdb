"""CreateAcls (30): in force and durable when the answer is sent."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.security.acl import Acl
from broker.security.acl_checks import new_acl, reject_unknown
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import CreateAclsRequest, CreateAclsResponse

_Result = CreateAclsResponse.AclCreationResult


@api(ApiKey.CREATE_ACLS, versions=(1, 3))
def handle(context: RequestContext, request: CreateAclsRequest) -> CreateAclsResponse:
    """Each entry on its own; those that exist already are fine."""
    reject_unknown(
        (one.resource_type, one.resource_pattern_type, one.operation, one.permission_type) for one in request.creations
    )
    refusal = context.services.security.acl_refusal(context.access, Operation.ALTER)
    if refusal is not None:
        return CreateAclsResponse(results=[_failed(refusal) for _ in request.creations])
    acls: list[Acl] = []
    results = []
    for creation in request.creations:
        try:
            acls.append(new_acl(creation))
            results.append(_Result())
        except KafkaError as error:
            results.append(_failed(error))
    if acls:
        context.services.security.add_acls(acls)
    return CreateAclsResponse(results=results)


def _failed(error: KafkaError) -> _Result:
    text = None if error.code is ErrorCode.UNKNOWN_SERVER_ERROR else error.message
    return _Result(error_code=error.code, error_message=text)
