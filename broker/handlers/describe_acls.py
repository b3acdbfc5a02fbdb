"""DescribeAcls (29): the entries that a filter finds, by resource."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.security.acl_checks import new_filter, reject_unknown
from protocol.api_keys import ApiKey
from protocol.errors import KafkaError
from protocol.messages import DescribeAclsRequest, DescribeAclsResponse

_Resource = DescribeAclsResponse.DescribeAclsResource


@api(ApiKey.DESCRIBE_ACLS, versions=(1, 3))
def handle(context: RequestContext, request: DescribeAclsRequest) -> DescribeAclsResponse:
    """Codes that do not exist find nothing, as in Kafka."""
    reject_unknown(
        [(request.resource_type_filter, request.pattern_type_filter, request.operation, request.permission_type)]
    )
    security = context.services.security
    refusal = security.acl_refusal(context.access, Operation.DESCRIBE)
    if refusal is not None:
        return DescribeAclsResponse(error_code=refusal.code, error_message=refusal.message)
    try:
        found = security.find_acls(new_filter(request))
    except KafkaError:
        found = []
    resources: dict[tuple[int, str, int], _Resource] = {}
    for acl in found:
        kind, name, pattern = acl.resource_type, acl.name, acl.pattern
        if (kind, name, pattern) not in resources:
            resources[kind, name, pattern] = _Resource(resource_type=kind, resource_name=name, pattern_type=pattern)
        resources[kind, name, pattern].acls.append(
            DescribeAclsResponse.AclDescription(
                principal=acl.principal, host=acl.host, operation=acl.operation, permission_type=acl.permission
            )
        )
    return DescribeAclsResponse(resources=list(resources.values()))
