"""Kafka's StandardAuthorizer: deny wins, super users may do everything, what no entry allows is forbidden.

Pure: no clock, no disk. Entries are found by name, so that a check looks at those of its resource alone, however many there
are; `broker.security.access` remembers the answers of a connection.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from broker.operations import Operation
from broker.security.acl import WILDCARD, Acl, PatternType, Permission, ResourceType

# An allowed operation allows these too, on every kind of resource; a denied one denies itself alone.
_IMPLIED_BY: Mapping[Operation, frozenset[Operation]] = {
    Operation.DESCRIBE: frozenset((Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER)),
    Operation.DESCRIBE_CONFIGS: frozenset((Operation.ALTER_CONFIGS,)),
}
_NOTHING: frozenset[Operation] = frozenset()
# Super users are granted access by resource type whatever is denied, as Kafka does it: asked by a name that has no entries.
_ANY_NAME = "hardcode"


class Authorizer:
    """All entries, and the answer to whether a principal may do something."""

    def __init__(self, acls: Iterable[Acl], super_users: frozenset[str], *, allow_without_acls: bool) -> None:
        """`allow_without_acls`: Kafka's `allow.everyone.if.no.acl.found`, for resources that no entry is about."""
        self.super_users = super_users
        self.revision = 0
        """Changes with the entries."""
        self._allow_without_acls = allow_without_acls
        self.replace(acls)

    def replace(self, acls: Iterable[Acl]) -> None:
        """Sets all entries."""
        self.acls = tuple(dict.fromkeys(acls))
        self.revision += 1
        self._literal: dict[tuple[ResourceType, str], list[Acl]] = defaultdict(list)
        self._prefixed: dict[tuple[ResourceType, str], list[Acl]] = defaultdict(list)
        lengths: dict[ResourceType, set[int]] = defaultdict(set)
        for acl in self.acls:
            if acl.pattern is PatternType.PREFIXED:
                self._prefixed[acl.resource_type, acl.name].append(acl)
                lengths[acl.resource_type].add(len(acl.name))
            else:
                self._literal[acl.resource_type, acl.name].append(acl)
        self._prefix_lengths = {kind: sorted(found) for kind, found in lengths.items()}

    def authorize(self, principal: str, host: str, operation: Operation, kind: ResourceType, name: str) -> bool:
        """Whether `principal` (`User:alice`) at the address `host` may do `operation`."""
        if principal in self.super_users:
            return True
        found = False
        allowed = False
        implied = _IMPLIED_BY.get(operation, _NOTHING)
        for acl in self._about(kind, name):
            found = True
            if not acl.concerns(principal, host):
                continue
            if acl.permission is Permission.DENY:
                if acl.operation in (operation, Operation.ALL):
                    return False
            elif acl.operation in (operation, Operation.ALL) or acl.operation in implied:
                allowed = True
        return allowed or (not found and self._allow_without_acls)

    def authorize_any(self, principal: str, host: str, operation: Operation, kind: ResourceType) -> bool:
        """Whether `principal` may do `operation` with at least one resource, even one that does not exist (KIP-679).

        Allowed names whose own name, or a prefix of it, is denied do not count; what is implied does not count either.
        """
        if self.authorize(principal, host, operation, kind, _ANY_NAME):
            return True
        allowed: set[tuple[PatternType, str]] = set()
        denied: set[tuple[PatternType, str]] = set()
        for acl in self.acls:
            if (
                acl.resource_type is kind
                and acl.operation in (operation, Operation.ALL)
                and acl.concerns(principal, host)
            ):
                (denied if acl.permission is Permission.DENY else allowed).add((acl.pattern, acl.name))
        everything = (PatternType.LITERAL, WILDCARD)
        if everything in denied:
            return False
        return everything in allowed or any(not _dominated(one, denied) for one in allowed)

    def _about(self, kind: ResourceType, name: str) -> Iterable[Acl]:
        """Every entry whose pattern covers the resource."""
        yield from self._literal.get((kind, name), ())
        if name != WILDCARD:
            yield from self._literal.get((kind, WILDCARD), ())
        for length in self._prefix_lengths.get(kind, ()):
            if length > len(name):
                break
            yield from self._prefixed.get((kind, name[:length]), ())


def _dominated(pattern: tuple[PatternType, str], denied: set[tuple[PatternType, str]]) -> bool:
    kind, name = pattern
    if kind is PatternType.LITERAL and pattern in denied:
        return True
    return any((PatternType.PREFIXED, name[:length]) in denied for length in range(1, len(name) + 1))
