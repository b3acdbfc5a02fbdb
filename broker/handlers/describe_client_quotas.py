"""DescribeClientQuotas (48): the quotas of the entities that a filter finds (KIP-546)."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.security.quota_checks import found_entities
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import DescribeClientQuotasRequest, DescribeClientQuotasResponse

_Entry = DescribeClientQuotasResponse.EntryData
_Entity = DescribeClientQuotasResponse.EntityData
_Value = DescribeClientQuotasResponse.ValueData


@api(ApiKey.DESCRIBE_CLIENT_QUOTAS, versions=(0, 1))
def handle(context: RequestContext, request: DescribeClientQuotasRequest) -> DescribeClientQuotasResponse:
    """Errors for the request: 31, 35 for a type of entity that does not exist, 42."""
    if not context.access.cluster(Operation.DESCRIBE_CONFIGS):
        code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        return DescribeClientQuotasResponse(error_code=code, error_message=None, entries=None)
    quotas = context.services.security.quotas
    try:
        found = found_entities(request, quotas.entries)
    except KafkaError as error:
        return DescribeClientQuotasResponse(error_code=error.code, error_message=error.message, entries=None)
    return DescribeClientQuotasResponse(
        error_message="",
        entries=[
            _Entry(
                entity=[_Entity(entity_type=kind, entity_name=name) for kind, name in entity],
                values=[_Value(key=key, value=value) for key, value in quotas.entries[entity].items()],
            )
            for entity in found
        ],
    )
