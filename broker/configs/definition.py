"""How a config key is defined: type, default, limits, documentation. Shared by topics, broker, groups and client metrics.

Parsing, limits and error texts are those of Kafka 4.3's `ConfigDef`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from protocol.errors import ErrorCode, KafkaError

Value = bool | int | float | str | list[str]
Check = Callable[[str, Value], None]
"""Takes the key's name and the parsed value; raises KafkaError INVALID_CONFIG."""

_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_INTEGER_BITS = {"SHORT": 16, "INT": 32, "LONG": 64}
MAX_LONG = 2**63 - 1


class ConfigType(IntEnum):
    """`config_type` of DescribeConfigs v3+."""

    UNKNOWN = 0
    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class ConfigSource(IntEnum):
    """`config_source` of DescribeConfigs v1+: where the value in force comes from."""

    UNKNOWN = 0
    TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5
    DYNAMIC_BROKER_LOGGER = 6
    CLIENT_METRICS = 7
    GROUP = 8


class ConfigResource(IntEnum):
    """`resource_type` of the config requests."""

    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


@dataclass(frozen=True, slots=True)
class ConfigDefinition:
    """One config key.

    `broker_key` names the broker's key that gives the default (None: there is none); `read_only` and `sensitive` are
    what DescribeConfigs says of it.
    """

    name: str
    type: ConfigType
    default: str | None
    documentation: str
    check: Check | None = None
    broker_key: str | None = None
    read_only: bool = False
    sensitive: bool = False

    def parse(self, text: str) -> Value:
        """The typed value; raises KafkaError INVALID_CONFIG with Kafka's text."""
        value = _parse(self.name, self.type, text)
        if self.check is not None:
            self.check(self.name, value)
        return value

    def canonical(self, text: str | None) -> str | None:
        """The value as DescribeConfigs shows it: trimmed, numbers and lists in one form."""
        return None if text is None else render(_parse(self.name, self.type, text))


def render(value: Value) -> str:
    """A parsed value as text, as Kafka writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(value)
    return str(value)


def invalid(name: str, value: object, reason: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_CONFIG, f"Invalid value {value} for configuration {name}: {reason}")


def _parse(name: str, kind: ConfigType, text: str) -> Value:
    trimmed = text.strip()
    if kind is ConfigType.BOOLEAN:
        if trimmed.lower() not in ("true", "false"):
            raise invalid(name, text, "Expected value to be either true or false")
        return trimmed.lower() == "true"
    if kind is ConfigType.LIST:
        # Kafka 4.2+ drops what a list names twice (KIP-1161).
        return list(dict.fromkeys(re.split(r"\s*,\s*", trimmed))) if trimmed else []
    if kind.name in _INTEGER_BITS:
        limit = 1 << (_INTEGER_BITS[kind.name] - 1)
        # 20 characters hold every 64-bit number; int() of a longer text would only burn time.
        if not _INTEGER.fullmatch(trimmed) or len(trimmed) > 20 or not -limit <= int(trimmed) < limit:
            raise invalid(name, text, f"Not a number of type {kind.name}")
        return int(trimmed)
    if kind is ConfigType.DOUBLE:
        try:
            return float(trimmed)
        except ValueError:
            raise invalid(name, text, "Not a number of type DOUBLE") from None
    return trimmed


def at_least(minimum: float) -> Check:
    """The value is a number not below `minimum`."""

    def check(name: str, value: Value) -> None:
        if not isinstance(value, (int, float)) or not value >= minimum:
            raise invalid(name, value, f"Value must be at least {minimum}")

    return check


def between(minimum: float, maximum: float) -> Check:
    """The value is a number from `minimum` to `maximum`, both included."""

    def check(name: str, value: Value) -> None:
        at_least(minimum)(name, value)
        if not isinstance(value, (int, float)) or not value <= maximum:
            raise invalid(name, value, f"Value must be no more than {maximum}")

    return check


def between_or(minimum: int, maximum: int, special: int) -> Check:
    """The value is from `minimum` to `maximum`, or `special`."""

    def check(name: str, value: Value) -> None:
        if value != special and not (isinstance(value, int) and minimum <= value <= maximum):
            raise invalid(name, value, f"Value must be between {minimum} and {maximum} or equal to {special}")

    return check


def one_of(*allowed: str) -> Check:
    """The value, or each element of a list, is one of `allowed`."""

    def check(name: str, value: Value) -> None:
        for element in value if isinstance(value, list) else [value]:
            if element not in allowed:
                raise invalid(name, element, f"String must be one of: {', '.join(allowed)}")

    return check
