"""Config keys of groups and of client metrics subscriptions, as in Kafka 4.3.

Groups: those of the protocols that the coordinator may speak (KIP-848). Client metrics can be set and listed, but no
telemetry is ever asked for: keys 71 and 72 are not advertised.
"""

import operator
import re
from collections.abc import Mapping

from broker.config import Config
from broker.configs.definition import Check, ConfigDefinition, ConfigType, Value, at_least, one_of
from protocol.errors import ErrorCode, KafkaError

_MATCH = re.compile(r"client_(instance_id|id|software_name|software_version|source_address|source_port)=.+")
_INTERVAL_LIMITS_MS = (100, 3_600_000)


# Keys whose values the broker bounds: by `group.consumer.min…` and `group.consumer.max…`.
_BOUNDED = ("consumer.assignment.interval.ms", "consumer.heartbeat.interval.ms", "consumer.session.timeout.ms")


def check_group_value(key: str, text: str, config: Config) -> None:
    """Raises KafkaError INVALID_CONFIG for a value that is none, or outside the broker's bounds."""
    value = GROUP_KEYS[key].parse(text)
    if key not in _BOUNDED:
        return
    assert isinstance(value, int)
    suffix = key.removeprefix("consumer.")
    for bound, wrong, relation in (("min", operator.lt, "greater"), ("max", operator.gt, "less")):
        limit = getattr(config, f"group_consumer_{bound}_{suffix.replace('.', '_')}")
        if wrong(value, limit):
            reason = f"{key} must be {relation} than or equal to group.consumer.{bound}.{suffix}"
            raise KafkaError(ErrorCode.INVALID_CONFIG, reason)


def _interval(name: str, value: Value) -> None:
    lowest, highest = _INTERVAL_LIMITS_MS
    if not isinstance(value, int) or not lowest <= value <= highest:
        reason = f"Invalid value {value} for {name}, interval must be between {lowest} and {highest} (1 hour)"
        raise KafkaError(ErrorCode.INVALID_REQUEST, reason)


def _match(name: str, value: Value) -> None:  # noqa: ARG001 - the signature of a check
    for pattern in value if isinstance(value, list) else []:
        if not _MATCH.fullmatch(pattern):
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Illegal client matching pattern: {pattern}")


def _table(*definitions: ConfigDefinition) -> Mapping[str, ConfigDefinition]:
    return {definition.name: definition for definition in definitions}


def _group_key(name: str, default: int, documentation: str, check: Check | None = None) -> ConfigDefinition:
    return ConfigDefinition(name, ConfigType.INT, str(default), documentation, check or at_least(0), f"group.{name}")


GROUP_KEYS = _table(
    _group_key("consumer.assignment.interval.ms", 1000, "The interval between assignments of a consumer group."),
    _group_key("consumer.heartbeat.interval.ms", 5000, "The heartbeat interval given to members."),
    _group_key("consumer.session.timeout.ms", 45000, "The time after which a silent member is removed."),
    _group_key("share.assignment.interval.ms", 1000, "The interval between assignments of a share group."),
    ConfigDefinition(
        "share.auto.offset.reset",
        ConfigType.STRING,
        "latest",
        "Where a share group starts.",
        None,
        "share.auto.offset.reset",
    ),
    _group_key("share.delivery.count.limit", 5, "How often a record is delivered to a share group at most."),
    _group_key("share.heartbeat.interval.ms", 5000, "The heartbeat interval given to members of a share group."),
    ConfigDefinition(
        "share.isolation.level",
        ConfigType.STRING,
        "read_uncommitted",
        "What a share group reads of transactions.",
        one_of("read_committed", "read_uncommitted"),
        "share.isolation.level",
    ),
    _group_key(
        "share.partition.max.record.locks", 2000, "Records of a partition that a share group may have acquired."
    ),
    _group_key("share.record.lock.duration.ms", 30000, "How long a share group's member holds a record."),
    ConfigDefinition(
        "share.renew.acknowledge.enable",
        ConfigType.BOOLEAN,
        "true",
        "Whether members of a share group may renew a record's lock.",
        None,
        "share.renew.acknowledge.enable",
    ),
    _group_key("share.session.timeout.ms", 45000, "The time after which a silent member of a share group is removed."),
    _group_key("streams.assignment.interval.ms", 1000, "The interval between assignments of a streams group."),
    _group_key("streams.heartbeat.interval.ms", 5000, "The heartbeat interval given to members of a streams group."),
    _group_key("streams.initial.rebalance.delay.ms", 3000, "How long a new streams group waits for more members."),
    _group_key("streams.num.standby.replicas", 0, "Standby replicas of each task of a streams group."),
    _group_key(
        "streams.session.timeout.ms", 45000, "The time after which a silent member of a streams group is removed."
    ),
)

CLIENT_METRICS_KEYS = _table(
    ConfigDefinition("interval.ms", ConfigType.INT, "300000", "How often clients would push metrics.", _interval),
    ConfigDefinition("match", ConfigType.LIST, "", "Which clients the subscription is for.", _match),
    ConfigDefinition("metrics", ConfigType.LIST, "", "Prefixes of the metrics subscribed to."),
)
