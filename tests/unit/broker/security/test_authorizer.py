"""The authorizer against a model that looks at every entry; access that remembers against one that does not."""

from hypothesis import given
from hypothesis import strategies as st

from broker.operations import Operation
from broker.security.access import UNRESTRICTED, RestrictedAccess
from broker.security.acl import EVERYBODY, WILDCARD, Acl, AclFilter, PatternType, Permission, ResourceType
from broker.security.authorizer import Authorizer

NAMES = ["a", "ab", "abc", "b", "ba", WILDCARD]
USERS = ["User:alice", "User:bob"]
HOSTS = ["10.0.0.1", "10.0.0.2"]
KINDS = [ResourceType.TOPIC, ResourceType.GROUP]
OPERATIONS = [operation for operation in Operation if operation > Operation.ALL]

acls = st.builds(
    Acl,
    st.sampled_from(KINDS),
    st.sampled_from(NAMES),
    st.sampled_from([PatternType.LITERAL, PatternType.PREFIXED]),
    st.sampled_from([*USERS, EVERYBODY]),
    st.sampled_from([*HOSTS, WILDCARD]),
    st.sampled_from([Operation.ALL, *OPERATIONS]),
    st.sampled_from([Permission.ALLOW, Permission.DENY]),
)
questions = st.tuples(
    st.sampled_from([*USERS, "User:root"]), st.sampled_from(HOSTS), st.sampled_from(OPERATIONS), st.sampled_from(KINDS)
)
RIGHT_IMPLIES = {
    Operation.READ: {Operation.DESCRIBE},
    Operation.WRITE: {Operation.DESCRIBE},
    Operation.DELETE: {Operation.DESCRIBE},
    Operation.ALTER: {Operation.DESCRIBE},
    Operation.ALTER_CONFIGS: {Operation.DESCRIBE_CONFIGS},
}


def model(entries: list[Acl], question: tuple[str, str, Operation, ResourceType], name: str, otherwise: bool) -> bool:
    """As the documentation of StandardAuthorizer says it, entry by entry."""
    principal, host, operation, kind = question
    if principal == "User:root":
        return True
    about = [
        acl
        for acl in entries
        if acl.resource_type == kind
        and (name.startswith(acl.name) if acl.pattern == PatternType.PREFIXED else acl.name in (name, "*"))
    ]
    if not about:
        return otherwise
    mine = [acl for acl in about if acl.principal in (principal, "User:*") and acl.host in (host, "*")]
    if any(acl.permission == Permission.DENY and acl.operation in (operation, Operation.ALL) for acl in mine):
        return False
    return any(
        acl.permission == Permission.ALLOW
        and (acl.operation in (operation, Operation.ALL) or operation in RIGHT_IMPLIES.get(acl.operation, ()))
        for acl in mine
    )


@given(st.lists(acls, max_size=8), questions, st.sampled_from(NAMES), st.booleans())
def test_authorizer_decides_as_the_model(
    entries: list[Acl], question: tuple[str, str, Operation, ResourceType], name: str, otherwise: bool
) -> None:
    """Whatever the entries, indexed and naive search agree."""
    authorizer = Authorizer(entries, frozenset(("User:root",)), allow_without_acls=otherwise)
    assert authorizer.authorize(*question, name) == model(entries, question, name, otherwise)


@given(st.lists(st.lists(acls, max_size=4), min_size=1, max_size=4), questions, st.sampled_from(NAMES))
def test_access_never_remembers_what_has_changed(
    versions: list[list[Acl]], question: tuple[str, str, Operation, ResourceType], name: str
) -> None:
    """After each change of entries, an answer given before is given anew."""
    principal, host, operation, kind = question
    authorizer = Authorizer([], frozenset(("User:root",)), allow_without_acls=False)
    access = RestrictedAccess(authorizer, principal, host)
    for entries in versions:
        authorizer.replace(entries)
        for _ in range(2):
            assert access.allows(operation, kind, name) == model(entries, question, name, False)


@given(st.lists(acls, max_size=6), questions)
def test_any_topic_needs_an_allowed_name_that_is_not_denied(
    entries: list[Acl], question: tuple[str, str, Operation, ResourceType]
) -> None:
    """KIP-679: if some name may be used by itself, the kind may; what is implied does not count."""
    principal, host, operation, kind = question
    authorizer = Authorizer(entries, frozenset(("User:root",)), allow_without_acls=False)
    mine = [a for a in entries if a.resource_type == kind and a.concerns(principal, host)]
    exact = [a for a in mine if a.operation in (operation, Operation.ALL)]
    allowed = [a for a in exact if a.permission == Permission.ALLOW]
    denied = [a for a in exact if a.permission == Permission.DENY]
    answer = authorizer.authorize_any(principal, host, operation, kind)
    if principal == "User:root" or (allowed and not denied):
        assert answer
    elif not allowed and not authorizer.authorize(principal, host, operation, kind, "hardcode"):
        assert not answer
    if principal != "User:root" and any(a.pattern == PatternType.LITERAL and a.name == "*" for a in denied):
        assert not answer


def test_without_an_authorizer_everything_is_allowed() -> None:
    """And the bit fields show all that exists for the resource."""
    assert UNRESTRICTED.topic(Operation.WRITE, "t")
    assert UNRESTRICTED.any_topic(Operation.WRITE)
    for shown, operations in (
        (UNRESTRICTED.topic_operations("t"), (3, 4, 5, 6, 7, 8, 10, 11)),
        (UNRESTRICTED.group_operations("g"), (3, 6, 8, 10, 11)),
        (UNRESTRICTED.cluster_operations(), (5, 7, 8, 9, 10, 11, 12)),
    ):
        assert shown == sum(1 << operation for operation in operations)


def test_a_filter_by_match_finds_what_is_about_the_name() -> None:
    """MATCH finds literal, prefixed and wildcard entries that cover a name; ANY and LITERAL the very name."""
    rest = ("User:alice", "*", Operation.READ, Permission.ALLOW)
    literal = Acl(ResourceType.TOPIC, "abc", PatternType.LITERAL, *rest)
    prefix = Acl(ResourceType.TOPIC, "ab", PatternType.PREFIXED, *rest)
    everything = Acl(ResourceType.TOPIC, "*", PatternType.LITERAL, *rest)
    other = Acl(ResourceType.TOPIC, "x", PatternType.LITERAL, *rest)
    entries = [literal, prefix, everything, other]

    def found(pattern: PatternType, name: str | None) -> list[Acl]:
        wanted = AclFilter(ResourceType.ANY, name, pattern, None, None, Operation.ANY, Permission.ANY)
        return [acl for acl in entries if wanted.matches(acl)]

    assert found(PatternType.MATCH, "abc") == [literal, prefix, everything]
    assert found(PatternType.ANY, "abc") == [literal]
    assert found(PatternType.PREFIXED, "abc") == []
    assert found(PatternType.PREFIXED, None) == [prefix]
    assert found(PatternType.ANY, None) == entries
