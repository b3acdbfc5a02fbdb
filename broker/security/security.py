"""The broker's users and ACLs, and from both what a client may do. Changes are durable when they return."""

from collections.abc import Collection, Iterable, Mapping

from broker.config import Config, ConfigError
from broker.listeners import listeners
from broker.meta_store import MetaStore
from broker.operations import Operation
from broker.security.access import UNRESTRICTED, Access, RestrictedAccess
from broker.security.acl import Acl, AclFilter, PatternType, Permission, ResourceType
from broker.security.authorizer import Authorizer
from broker.security.logins import Logins
from broker.security.plain import PlainUsers
from broker.security.quotas import Entity, Quotas, entity_of
from broker.security.users import ScramUsers
from protocol.errors import ErrorCode, KafkaError


class Security:
    """One broker's."""

    def __init__(self, config: Config, store: MetaStore) -> None:
        """Raises ConfigError."""
        self.users = ScramUsers(store)
        self.plain = PlainUsers(config.sasl_plain_users_file)
        self.logins = Logins(self.plain, self.users, config.connection_failed_authentication_delay_ms / 1000)
        self.admits_anonymous = any(
            not listener.protocol.sasl
            and not (listener.protocol.tls and config.at(listener.name).ssl_client_auth == "required")
            for listener in listeners(config)
        )
        """Whether some listener lets clients in that have not said who they are; then HTTP and gRPC do so too."""
        self.quotas = Quotas(
            [(entity_of(dict(names)), values) for names, values in store.metadata.quotas],
            config.quota_window_num * config.quota_window_size_seconds,
        )
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

    def change_quotas(self, changes: Mapping[Entity, Mapping[str, float]]) -> None:
        """Sets all quotas of each entity; raises OSError, and then nothing is changed."""
        entries = {entity: values for entity, values in {**self.quotas.entries, **changes}.items() if values}
        if entries != self.quotas.entries:
            self._store.replace(quotas=[[list(entity), dict(values)] for entity, values in entries.items()])
            self.quotas.replace(entries.items())

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
