"""AlterClientQuotas (49): durable and in force when the answer is sent (KIP-546)."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.security.quota_checks import checked_entity, checked_values
from broker.security.quotas import Entity
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import AlterClientQuotasRequest, AlterClientQuotasResponse

_Asked = AlterClientQuotasRequest.EntryData
_Result = AlterClientQuotasResponse.EntryData
_Named = tuple[tuple[str, str | None], ...]


@api(ApiKey.ALTER_CLIENT_QUOTAS, versions=(0, 1))
def handle(context: RequestContext, request: AlterClientQuotasRequest) -> AlterClientQuotasResponse:
    """Each entity on its own, all of its changes or none; one may be named once."""
    if not context.access.cluster(Operation.ALTER_CONFIGS):
        refusal = KafkaError(ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
        return AlterClientQuotasResponse(entries=[_result(_named(entry), refusal) for entry in request.entries])
    security = context.services.security
    changes: dict[Entity, dict[str, float]] = {}
    results: dict[_Named, _Result] = {}
    for entry in request.entries:
        named = _named(entry)
        if named in results:  # Kafka takes the first and says this of both
            results[named] = _result(named, KafkaError(ErrorCode.INVALID_REQUEST, "Duplicate quota entity"))
            continue
        try:
            entity = checked_entity(entry.entity)
            values = checked_values(entity, security.quotas.entries.get(entity, {}), entry.ops)
        except KafkaError as error:
            results[named] = _result(named, error)
        else:
            changes[entity] = values
            results[named] = _result(named, None)
    if changes and not request.validate_only:
        security.change_quotas(changes)
    return AlterClientQuotasResponse(entries=list(results.values()))


def _named(entry: _Asked) -> _Named:
    """As the request names it, each type once."""
    return tuple({component.entity_type: component.entity_name for component in entry.entity}.items())


def _result(named: _Named, error: KafkaError | None) -> _Result:
    entity = [AlterClientQuotasResponse.EntityData(entity_type=kind, entity_name=name) for kind, name in named]
    if error is None:
        return _Result(error_message=None, entity=entity)
    return _Result(error_code=error.code, error_message=error.message, entity=entity)
