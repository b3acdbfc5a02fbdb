"""What one client may do, as handlers ask it: everything while no authorizer is configured, else what the entries say."""

from broker.configs.definition import ConfigResource
from broker.operations import (
    CLUSTER_OPERATIONS,
    GROUP_OPERATIONS,
    NOT_ASKED,
    TOPIC_OPERATIONS,
    Operation,
    bit_field,
)
from broker.security.acl import CLUSTER_NAME, ResourceType
from broker.security.authorizer import Authorizer
from protocol.errors import ErrorCode, KafkaError

ANONYMOUS = "User:ANONYMOUS"
# Answers remembered for one connection: a consumer of many partitions asks for each of its topics again and again.
REMEMBERED_MAX = 10_000


class Access:
    """One principal's rights. This class grants all of them: there is no authorizer."""

    __slots__ = ("principal",)
    restricted = False
    """Whether anything can be refused at all."""

    def __init__(self, principal: str = ANONYMOUS) -> None:
        self.principal = principal

    def allows(self, operation: Operation, kind: ResourceType, name: str) -> bool:  # noqa: ARG002
        return True

    def topic(self, operation: Operation, name: str) -> bool:
        return self.allows(operation, ResourceType.TOPIC, name)

    def check_topic(self, operation: Operation, name: str) -> None:
        """Raises KafkaError TOPIC_AUTHORIZATION_FAILED."""
        if not self.topic(operation, name):
            raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)

    def group(self, operation: Operation, name: str) -> bool:
        return self.allows(operation, ResourceType.GROUP, name)

    def transactional_id(self, operation: Operation, name: str) -> bool:
        return self.allows(operation, ResourceType.TRANSACTIONAL_ID, name)

    def cluster(self, operation: Operation) -> bool:
        return self.allows(operation, ResourceType.CLUSTER, CLUSTER_NAME)

    def any_topic(self, operation: Operation) -> bool:  # noqa: ARG002
        """Whether the operation is allowed with at least one topic."""
        return True

    # Bit fields (KIP-430)

    def topic_operations(self, name: str) -> int:
        return self._operations(TOPIC_OPERATIONS, ResourceType.TOPIC, name) or NOT_ASKED

    def group_operations(self, name: str) -> int:
        return self._operations(GROUP_OPERATIONS, ResourceType.GROUP, name) or NOT_ASKED

    def cluster_operations(self) -> int:
        """None at all without DESCRIBE, as in Kafka."""
        if not self.cluster(Operation.DESCRIBE):
            return 0
        return self._operations(CLUSTER_OPERATIONS, ResourceType.CLUSTER, CLUSTER_NAME)

    def _operations(self, fields: int, kind: ResourceType, name: str) -> int:
        return bit_field(*(one for one in Operation if fields >> one & 1 and self.allows(one, kind, name)))


class RestrictedAccess(Access):
    """The rights of a principal at one address under an authorizer, remembered until an entry changes."""

    __slots__ = ("_authorizer", "_host", "_known", "_revision")
    restricted = True

    def __init__(self, authorizer: Authorizer, principal: str, host: str) -> None:
        super().__init__(principal)
        self._authorizer = authorizer
        self._host = host
        self._revision = authorizer.revision
        # By operation and kind in one number (an IntEnum's own hash is slow), then by name.
        self._known: dict[int, dict[str, bool]] = {}

    def allows(self, operation: Operation, kind: ResourceType, name: str) -> bool:
        if self._revision != self._authorizer.revision:
            self._known.clear()
            self._revision = self._authorizer.revision
        known = self._known.get(operation << 3 | kind)
        if known is None:
            known = self._known[operation << 3 | kind] = {}
        answer = known.get(name)
        if answer is None:
            if len(known) >= REMEMBERED_MAX:
                known.clear()
            answer = known[name] = self._authorizer.authorize(self.principal, self._host, operation, kind, name)
        return answer

    def any_topic(self, operation: Operation) -> bool:
        return self._authorizer.authorize_any(self.principal, self._host, operation, ResourceType.TOPIC)


UNRESTRICTED = Access()


def check_configs(access: Access, operation: Operation, kind: int, name: str) -> None:
    """Raises KafkaError for who may not do `operation` with the configs of a resource."""
    if kind == ConfigResource.TOPIC:
        access.check_topic(operation, name)
    elif kind == ConfigResource.GROUP:
        if not access.group(operation, name):
            raise KafkaError(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    elif not access.cluster(operation):
        raise KafkaError(ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
