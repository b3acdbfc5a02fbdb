"""SCRAM users and ACLs: durable before a change is answered, in force at once."""

from collections.abc import Collection, Iterable, Mapping

from broker.config import Config, ConfigError
from broker.meta_store import MetaStore
from broker.operations import Operation
from broker.security.access import UNRESTRICTED, Access, RestrictedAccess
from broker.security.acl import Acl, AclFilter, PatternType, Permission, ResourceType
from broker.security.authorizer import Authorizer
from broker.security.scram import Credential, ScramMechanism
from protocol.errors import ErrorCode, KafkaError


class ScramUsers:
    """Who may log in by SCRAM. A user may have a credential for each mechanism."""

    def __init__(self, store: MetaStore) -> None:
        self._store = store
        self._credentials = {
            (name, ScramMechanism(code)): Credential(*fields)
            for name, rows in store.metadata.scram.items()
            for code, fields in rows.items()
        }

    def get(self, name: str, mechanism: ScramMechanism) -> Credential | None:
        return self._credentials.get((name, mechanism))

    def of_user(self, name: str) -> dict[ScramMechanism, Credential]:
        return {mechanism: found for (user, mechanism), found in self._credentials.items() if user == name}

    def names(self) -> list[str]:
        """In order."""
        return sorted({name for name, _ in self._credentials})

    def change(self, changes: Mapping[tuple[str, ScramMechanism], Credential | None]) -> None:
        """Sets credentials, or removes those that are None; raises OSError, and then nothing is changed."""
        credentials = {**self._credentials, **changes}
        kept = {key: credential for key, credential in credentials.items() if credential is not None}
        rows: dict[str, dict[int, list[object]]] = {}
        for (name, mechanism), credential in kept.items():
            rows.setdefault(name, {})[int(mechanism)] = list(credential)
        self._store.replace(scram=rows)
        self._credentials = kept


class Security:
    """Users, entries, and from both what a client may do."""

    def __init__(self, config: Config, store: MetaStore) -> None:
        """Raises ConfigError."""
        self.users = ScramUsers(store)
        self.authorizer: Authorizer | None = None
        self._store = store
        if config.authorizer_class_name:
            self.authorizer = Authorizer(
                [_acl(*row) for row in store.metadata.acls],
                super_users(config.super_users),
                allow_without_acls=config.allow_everyone_if_no_acl_found,
            )

    def access(self, principal: str, host: str) -> Access:
        """What `principal` may do from the address `host`."""
        if self.authorizer is None:
            return Access(principal) if principal != UNRESTRICTED.principal else UNRESTRICTED
        return RestrictedAccess(self.authorizer, principal, host)

    def acl_refusal(self, access: Access, operation: Operation) -> KafkaError | None:
        """Why a principal may not do `operation` with ACLs; None if it may."""
        if self.authorizer is None:
            return KafkaError(ErrorCode.SECURITY_DISABLED, "No Authorizer is configured on the broker.")
        return None if access.cluster(operation) else KafkaError(ErrorCode.CLUSTER_AUTHORIZATION_FAILED)

    def find_acls(self, wanted: AclFilter) -> list[Acl]:
        return [acl for acl in self._known().acls if wanted.matches(acl)]

    def add_acls(self, acls: Iterable[Acl]) -> None:
        """Those that exist already are left as they are; raises OSError, and then nothing is changed."""
        self._set((*self._known().acls, *acls))

    def remove_acls(self, acls: Collection[Acl]) -> None:
        """Raises OSError, and then nothing is changed."""
        self._set(acl for acl in self._known().acls if acl not in acls)

    def _set(self, acls: Iterable[Acl]) -> None:
        entries = tuple(dict.fromkeys(acls))
        if entries != self._known().acls:
            self._store.replace(acls=[list(acl) for acl in entries])
            self._known().replace(entries)

    def _known(self) -> Authorizer:
        assert self.authorizer is not None
        return self.authorizer


def super_users(text: str) -> frozenset[str]:
    """`User:admin;User:operator`; raises ConfigError."""
    names = [name.strip() for name in text.split(";") if name.strip()]
    for name in names:
        if ":" not in name:
            raise ConfigError(f"super.users: {name!r} is not User:NAME")
    return frozenset(names)


def _acl(kind: int, name: str, pattern: int, principal: str, host: str, operation: int, permission: int) -> Acl:
    """From what the metadata file holds."""
    return Acl(
        ResourceType(kind), name, PatternType(pattern), principal, host, Operation(operation), Permission(permission)
    )
