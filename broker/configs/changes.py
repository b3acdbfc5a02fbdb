"""Changes of configs: checked as Kafka 4.3 checks them, then applied. One place for AlterConfigs and IncrementalAlterConfigs."""

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum

from broker.configs.broker import LOGGER_LEVELS, ROOT_LOGGER, ROOT_LOGGER_LEVEL, broker_keys
from broker.configs.defaults import ALL_BROKERS
from broker.configs.definition import ConfigDefinition, ConfigResource, ConfigType
from broker.configs.resource import CLIENT_METRICS_KEYS, GROUP_KEYS, check_group_value
from broker.configs.topic import TOPIC_KEYS, validate_topic_configs
from broker.services import Services
from broker.topic_rules import check_name
from protocol.errors import ErrorCode, KafkaError


class Operation(IntEnum):
    """`config_operation` of IncrementalAlterConfigs."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


Change = tuple[str, int, str | None]
"""Key, operation, value."""


def check_once(times: int) -> None:
    """Raises KafkaError for a resource that a request names `times` times, if that is more than once."""
    if times > 1:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Each resource must appear at most once.")


def replace_configs(
    services: Services, kind: int, name: str, configs: Sequence[tuple[str, str | None]], *, validate_only: bool
) -> None:
    """AlterConfigs of one resource: what is not given is unset. Raises KafkaError."""
    if kind not in (ConfigResource.TOPIC, ConfigResource.BROKER):
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown resource type {kind}")
    overrides = {key: value for key, _, value in _checked([(key, Operation.SET, value) for key, value in configs])}
    complete = {key: value for key, value in overrides.items() if value is not None}
    _apply(services, ConfigResource(kind), name, lambda _: complete, validate_only)


def change_configs(services: Services, kind: int, name: str, changes: Sequence[Change], *, validate_only: bool) -> None:
    """IncrementalAlterConfigs of one resource. Raises KafkaError."""
    if kind not in tuple(ConfigResource):
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown resource type {kind}")
    checked = _checked(changes)
    if kind == ConfigResource.BROKER_LOGGER:
        _check_logger(services, name, checked)
        return
    keys = _KEYS[ConfigResource(kind)]()
    _apply(services, ConfigResource(kind), name, lambda current: _changed(kind, keys, current, checked), validate_only)


def _checked(changes: Sequence[Change]) -> Sequence[Change]:
    if len({key for key, _, _ in changes}) < len(changes):
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Error due to duplicate config keys")
    empty = [key for key, operation, value in changes if value is None and operation != Operation.DELETE]
    if empty:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Null value not supported for : {','.join(empty)}")
    return changes


def _changed(
    kind: int, keys: Mapping[str, ConfigDefinition], current: Mapping[str, str], changes: Sequence[Change]
) -> dict[str, str]:
    """The overrides after the changes; the operations are Kafka's, down to what they do with empty elements."""
    overrides = dict(current)
    for key, operation, value in changes:
        if operation == Operation.DELETE:
            overrides.pop(key, None)
            continue
        assert value is not None
        if operation == Operation.SET:
            overrides[key] = value
            continue
        if operation not in (Operation.APPEND, Operation.SUBTRACT):
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown operations type {operation}")
        definition = keys.get(key)
        if definition is None or definition.type is not ConfigType.LIST:
            raise KafkaError(ErrorCode.INVALID_CONFIG, _not_a_list(kind, Operation(operation), key))
        before = overrides.get(key, definition.default or "")
        elements = [element for element in before.split(",") if element]
        for element in value.split(","):
            if operation == Operation.APPEND and element not in elements:
                elements.append(element)
            elif operation == Operation.SUBTRACT and element in elements:
                elements.remove(element)
        overrides[key] = ",".join(elements)
    return overrides


def _not_a_list(kind: int, operation: Operation, key: str) -> str:
    if kind == ConfigResource.BROKER:
        return f"Config value {operation.name.lower()} is not allowed for config key: {key}"
    return f"Can't {operation.name} to key {key} because its type is not LIST."


def _apply(
    services: Services,
    kind: ConfigResource,
    name: str,
    change: Callable[[Mapping[str, str]], dict[str, str]],
    validate_only: bool,
) -> None:
    topics = services.topics
    if kind is ConfigResource.TOPIC:
        if not name:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed.")
        check_name(name)
        topic = topics.get(name)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
        overrides = change(topic.configs)
        validate_topic_configs(overrides)
        if not validate_only:
            topics.set_configs(name, overrides)
        return
    _CHECK_NAME[kind](services, name)
    current = topics.resource_configs(kind).get(name, {})
    overrides = change(current)
    _CHECK_VALUES[kind](services, overrides, current)
    if not validate_only and overrides != current:
        topics.set_resource_configs(kind, name, overrides)


# ---- what is particular to each kind of resource -----------------------------------------------------------------


def _check_broker(services: Services, name: str) -> None:
    if name == ALL_BROKERS:
        return
    if not name.lstrip("-").isdecimal():
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Node id must be an integer, but it is: {name}")
    if name != str(services.node_id):
        reason = f"Unexpected broker id, expected {services.node_id}, but received {name}"
        raise KafkaError(ErrorCode.INVALID_REQUEST, reason)


def _check_broker_values(_: Services, overrides: Mapping[str, str], current: Mapping[str, str]) -> None:
    """Keys unknown to Kafka are kept, as Kafka does: plug-ins read them. Those known but not dynamic are refused."""
    known = {
        key: broker_keys()[key] for key in overrides if key in broker_keys() and overrides[key] != current.get(key)
    }
    if fixed := [key for key, definition in known.items() if definition.read_only]:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Cannot update these configs dynamically: [{', '.join(fixed)}]")
    try:
        for key, definition in known.items():
            definition.parse(overrides[key])
            for topic_key in TOPIC_KEYS.values():  # it will be the default of a topic's key
                if topic_key.broker_key == key:
                    topic_key.parse(overrides[key])
    except KafkaError as error:
        raise KafkaError(ErrorCode.INVALID_REQUEST, error.message) from None


def _check_group(_: Services, name: str) -> None:
    if not name:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Default group resources are not allowed.")


def _check_group_values(services: Services, overrides: Mapping[str, str], _: Mapping[str, str]) -> None:
    for key in overrides:
        if key not in GROUP_KEYS:
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Unknown group config name: {key}")
    for key, value in overrides.items():
        check_group_value(key, value, services.config)


def _check_client_metrics(_: Services, name: str) -> None:
    if not name:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Subscription name can't be empty")


def _check_client_metrics_values(_: Services, overrides: Mapping[str, str], current: Mapping[str, str]) -> None:  # noqa: ARG001
    for key in overrides:
        if key not in CLIENT_METRICS_KEYS:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown client metrics configuration: {key}")
    for key, value in overrides.items():
        CLIENT_METRICS_KEYS[key].parse(value)


def _check_logger(services: Services, name: str, changes: Sequence[Change]) -> None:
    """Levels are fixed by the configuration: a change to the level in force is accepted, others are refused."""
    if not name.lstrip("-").isdecimal():
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Node id must be an integer, but it is: {name}")
    if name != str(services.node_id):
        reason = f"Unexpected node id. Expected {services.node_id}, but received {name}"
        raise KafkaError(ErrorCode.INVALID_REQUEST, reason)
    for logger, operation, level in changes:
        if operation in (Operation.APPEND, Operation.SUBTRACT):
            reason = f"{Operation(operation).name} operation is not allowed for the BROKER_LOGGER resource"
            raise KafkaError(ErrorCode.INVALID_REQUEST, reason)
        if logger != ROOT_LOGGER:
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Logger {logger} does not exist!")
        if operation == Operation.DELETE:
            reason = "Removing the log level of the root logger is not allowed"
            raise KafkaError(ErrorCode.INVALID_REQUEST, reason)
        if level not in LOGGER_LEVELS:
            reason = (
                f"Cannot set the log level of {logger} to {level} as it is not a supported log level. "
                f"Valid log levels are {', '.join(LOGGER_LEVELS)}"
            )
            raise KafkaError(ErrorCode.INVALID_CONFIG, reason)
        if level != ROOT_LOGGER_LEVEL:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Log levels cannot be changed while the broker runs.")


_KEYS: Mapping[ConfigResource, Callable[[], Mapping[str, ConfigDefinition]]] = {
    ConfigResource.TOPIC: lambda: TOPIC_KEYS,
    ConfigResource.BROKER: broker_keys,
    ConfigResource.GROUP: lambda: GROUP_KEYS,
    ConfigResource.CLIENT_METRICS: lambda: CLIENT_METRICS_KEYS,
}
_CHECK_NAME = {
    ConfigResource.BROKER: _check_broker,
    ConfigResource.GROUP: _check_group,
    ConfigResource.CLIENT_METRICS: _check_client_metrics,
}
_CHECK_VALUES = {
    ConfigResource.BROKER: _check_broker_values,
    ConfigResource.GROUP: _check_group_values,
    ConfigResource.CLIENT_METRICS: _check_client_metrics_values,
}
