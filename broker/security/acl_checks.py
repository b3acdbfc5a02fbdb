"""From the numbers and texts of ACL requests to entries and filters, with Kafka's refusals."""

from collections.abc import Iterable
from enum import IntEnum
from typing import TypeVar

from broker.context import CloseConnection
from broker.operations import Operation
from broker.security.acl import CLUSTER_NAME, Acl, AclFilter, PatternType, Permission, ResourceType
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest

UNKNOWN = 0
_Code = TypeVar("_Code", bound=IntEnum)


def reject_unknown(rows: Iterable[tuple[int, ...]]) -> None:
    """Code 0 is UNKNOWN: Kafka's own parser throws, and the connection ends without an answer."""
    if any(UNKNOWN in row for row in rows):
        raise CloseConnection("an ACL of an UNKNOWN kind")


def new_acl(creation: CreateAclsRequest.AclCreation) -> Acl:
    """Raises KafkaError; UNKNOWN_SERVER_ERROR, for ANY and MATCH, has no text in Kafka's answer."""
    acl = Acl(
        _known(ResourceType, creation.resource_type, "resource type"),
        creation.resource_name,
        _known(PatternType, creation.resource_pattern_type, "pattern type"),
        creation.principal,
        creation.host,
        _known(Operation, creation.operation, "operation"),
        _known(Permission, creation.permission_type, "permission type"),
    )
    if acl.resource_type is ResourceType.CLUSTER and acl.name != CLUSTER_NAME:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"The only valid name for the CLUSTER resource is {CLUSTER_NAME}")
    if not acl.name:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Resource name should not be empty")
    if ResourceType.ANY in acl[:1] or Operation.ANY in acl[5:6] or Permission.ANY in acl[6:]:
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
    if acl.pattern not in (PatternType.LITERAL, PatternType.PREFIXED):
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
    if ":" not in acl.principal:
        reason = f"Could not parse principal from `{acl.principal}` (no colon is present separating the principal type from the principal name)"
        raise KafkaError(ErrorCode.INVALID_REQUEST, reason)
    return acl


def new_filter(wanted: DescribeAclsRequest | DeleteAclsRequest.DeleteAclsFilter) -> AclFilter:
    """Raises KafkaError INVALID_REQUEST for codes that Kafka does not know."""
    return AclFilter(
        _known(ResourceType, wanted.resource_type_filter, "resource type"),
        wanted.resource_name_filter,
        _known(PatternType, wanted.pattern_type_filter, "pattern type"),
        wanted.principal_filter,
        wanted.host_filter,
        _known(Operation, wanted.operation, "operation"),
        _known(Permission, wanted.permission_type, "permission type"),
    )


def _known(codes: type[_Code], code: int, what: str) -> _Code:
    try:
        return codes(code)
    except ValueError:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown {what} {code}") from None
