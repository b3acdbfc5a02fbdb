"""From the entries and components of quota requests to entities and quotas, with Kafka's refusals."""

import ipaddress
import math
from collections.abc import Iterable, Mapping

from broker.security.quotas import (
    CLIENT_ID,
    CONNECTION_CREATION_RATE,
    CONSUMER_BYTE_RATE,
    CONTROLLER_MUTATION_RATE,
    IP,
    PRODUCER_BYTE_RATE,
    REQUEST_PERCENTAGE,
    USER,
    Entity,
    entity_of,
)
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import AlterClientQuotasRequest, DescribeClientQuotasRequest

EXACT, DEFAULT, ANY = 0, 1, 2
_KEYS_OF_CLIENTS = (PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE, REQUEST_PERCENTAGE, CONTROLLER_MUTATION_RATE)
_WHOLE = (PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE, CONNECTION_CREATION_RATE)
_LONG_MAX = 2.0**63


def checked_entity(components: Iterable[AlterClientQuotasRequest.EntityData]) -> Entity:
    """Raises KafkaError INVALID_REQUEST."""
    names = {component.entity_type: component.entity_name for component in components}
    if not names:
        raise _invalid("Invalid empty client quota entity")
    for kind, name in names.items():
        if kind not in (USER, CLIENT_ID, IP):
            raise _invalid(f"Unhandled client quota entity type: {kind}")
        if name == "":
            raise _invalid(f"Empty {kind} not supported")
    if IP in names and len(names) > 1:
        raise _invalid("Invalid quota entity combination, IP entity should not be combined with User or ClientId")
    address = names.get(IP)
    if address is not None:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise _invalid(f"{address} is not a valid IP") from None
    return entity_of(names)


def checked_values(
    entity: Entity, current: Mapping[str, float], operations: Iterable[AlterClientQuotasRequest.OpData]
) -> dict[str, float]:
    """The quotas of an entity after the operations; raises KafkaError INVALID_REQUEST."""
    known = (CONNECTION_CREATION_RATE,) if dict(entity).keys() == {IP} else _KEYS_OF_CLIENTS
    values = dict(current)
    seen = set()
    for operation in operations:
        key = operation.key
        if key in seen:
            raise _invalid(f"Duplicate quota key {key}")
        seen.add(key)
        if operation.remove:
            values.pop(key, None)
        elif key not in known:
            raise _invalid(f"Invalid configuration key {key}")
        else:
            values[key] = _checked_value(key, operation.value)
    return values


def _checked_value(key: str, value: float) -> float:
    if value <= 0:
        raise _invalid(f"Quota {key} must be greater than 0")
    if key in _WHOLE and not (value < _LONG_MAX and abs(value - round(value)) < 1e-6):
        raise _invalid(f"{key} must be a whole number, {value} is none")
    if math.isinf(value):
        raise _invalid(f"Quota {key} cannot be infinite")
    return value


def found_entities(request: DescribeClientQuotasRequest, entities: Iterable[Entity]) -> list[Entity]:
    """Those that fit every component; strict: and have no others. Raises KafkaError."""
    wanted: dict[str, tuple[int, str | None]] = {}
    for component in request.components:
        kind = component.entity_type
        if not kind:
            raise _invalid("Invalid empty entity type.")
        if kind in wanted:
            raise _invalid(f"Entity type {kind} cannot appear more than once in the filter.")
        if kind not in (USER, CLIENT_ID, IP):
            raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, f"Unsupported entity type {kind}")
        if component.match_type not in (EXACT, DEFAULT, ANY):
            raise _invalid(f"Unknown match type {component.match_type}")
        if (component.match is None) == (component.match_type == EXACT):
            raise _invalid("A match is given for exact matches, and only for them.")
        wanted[kind] = (component.match_type, component.match)
    if IP in wanted and len(wanted) > 1:
        raise _invalid("Invalid entity filter component combination: ip stands alone.")
    return [entity for entity in entities if _fits(dict(entity), wanted, request.strict)]


def _fits(names: Mapping[str, str | None], wanted: Mapping[str, tuple[int, str | None]], strict: bool) -> bool:
    if strict and names.keys() != wanted.keys():
        return False
    return all(kind in names and (how == ANY or names[kind] == match) for kind, (how, match) in wanted.items())


def _invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REQUEST, message)
