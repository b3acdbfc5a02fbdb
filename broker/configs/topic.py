"""Every topic config key: Kafka 4.3's table and the `vector.*` keys.

Names, types, defaults, limits and the broker's keys behind them are Kafka 4.3's own (LogConfig, recorded by DescribeConfigs v4).
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from broker.configs.defaults import BrokerDefaults
from broker.configs.definition import (
    MAX_LONG,
    ConfigDefinition,
    ConfigSource,
    ConfigType,
    Value,
    at_least,
    between,
    between_or,
    invalid,
    one_of,
    render,
)
from broker.recompression import CODECS
from protocol.compression import Compression
from protocol.errors import ErrorCode, KafkaError
from storage.config import LogConfig
from vector.config import TOPIC_KEYS as VECTOR_CONFIG_KEYS
from vector.config import ConfigKey, VectorConfig, check_together

_REPLICA = re.compile(r"([0-9]+:[0-9]+)?", re.ASCII)


def _throttled_replicas(name: str, value: Value) -> None:
    assert isinstance(value, list)
    if value != ["*"] and not all(_REPLICA.fullmatch(element) for element in value):
        form = "[partitionId]:[brokerId],[partitionId]:[brokerId],..."
        reason = f"{name} must be the literal '*' or a list of replicas in the following format: {form}"
        raise invalid(name, f"[{', '.join(value)}]", reason)


def _kafka_keys() -> tuple[ConfigDefinition, ...]:
    boolean, string, integer, long, double, listing = (
        ConfigType.BOOLEAN,
        ConfigType.STRING,
        ConfigType.INT,
        ConfigType.LONG,
        ConfigType.DOUBLE,
        ConfigType.LIST,
    )
    key, natural, positive, never = ConfigDefinition, at_least(0), at_least(1), str(MAX_LONG)
    codecs = one_of("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")
    # fmt: off
    return (
        key("cleanup.policy", listing, "delete", "What happens to old segments: delete (by retention), compact (keep the last record of each key), or both.", one_of("compact", "delete"), "log.cleanup.policy"),  # noqa: E501
        key("compression.gzip.level", integer, "-1", "Level for gzip where the broker compresses. Accepted without effect: it uses the codec's default.", between_or(1, 9, -1), "compression.gzip.level"),  # noqa: E501
        key("compression.lz4.level", integer, "9", "Level for lz4 where the broker compresses. Accepted without effect: it uses the codec's default.", between(1, 17), "compression.lz4.level"),  # noqa: E501
        key("compression.type", string, "producer", "What batches are stored in: uncompressed, zstd, lz4, snappy, gzip, or producer (as they were sent, which is by far the fastest).", codecs, "compression.type"),  # noqa: E501
        key("compression.zstd.level", integer, "3", "Level for zstd where the broker compresses. Accepted without effect: it uses the codec's default.", between(-131072, 22), "compression.zstd.level"),  # noqa: E501
        key("delete.retention.ms", long, "86400000", "How long tombstones and transaction markers outlive the compaction that could have removed them, so that a reader from the start sees them.", natural, "log.cleaner.delete.retention.ms"),  # noqa: E501
        key("file.delete.delay.ms", long, "60000", "How long Kafka keeps a deleted segment's file; here it goes with one of the next checkpoints, open readers keep their data.", natural, "log.segment.delete.delay.ms"),  # noqa: E501
        key("flush.messages", long, never, "Kafka: sync after this many records. Here storage.sync of the broker decides when data is synced.", positive, "log.flush.interval.messages"),  # noqa: E501
        key("flush.ms", long, never, "Kafka: sync after this time. Here storage.sync of the broker decides when data is synced.", natural, "log.flush.interval.ms"),  # noqa: E501
        key("follower.replication.throttled.replicas", listing, "", "Replicas whose replication is throttled on the follower: PARTITION:BROKER,… or *. One node has no followers.", _throttled_replicas),  # noqa: E501
        key("index.interval.bytes", integer, "4096", "One entry of the offset index for this many bytes of the log.", natural, "log.index.interval.bytes"),  # noqa: E501
        key("leader.replication.throttled.replicas", listing, "", "Replicas whose replication is throttled on the leader: PARTITION:BROKER,… or *. One node has no followers.", _throttled_replicas),  # noqa: E501
        key("local.retention.bytes", long, "-2", "How much of a tiered partition stays on local disk; -2: retention.bytes.", at_least(-2), "log.local.retention.bytes"),  # noqa: E501
        key("local.retention.ms", long, "-2", "How long a tiered partition's segments stay on local disk; -2: retention.ms.", at_least(-2), "log.local.retention.ms"),  # noqa: E501
        key("max.compaction.lag.ms", long, never, "How long a record may stay uncompacted at most: its segment is closed and compacted then, whatever the dirty ratio.", positive, "log.cleaner.max.compaction.lag.ms"),  # noqa: E501
        key("max.message.bytes", integer, "1048588", "The largest record batch that is accepted, after compression.", natural, "message.max.bytes"),
        key("message.timestamp.after.max.ms", long, "3600000", "How far a record's timestamp may lie in the future.", natural, "log.message.timestamp.after.max.ms"),  # noqa: E501
        key("message.timestamp.before.max.ms", long, never, "How far a record's timestamp may lie in the past.", natural, "log.message.timestamp.before.max.ms"),  # noqa: E501
        key("message.timestamp.type", string, "CreateTime", "Whose time a record carries: the producer's (CreateTime) or the broker's (LogAppendTime).", one_of("CreateTime", "LogAppendTime"), "log.message.timestamp.type"),  # noqa: E501
        key("min.cleanable.dirty.ratio", double, "0.5", "The share of the closed segments that must be uncompacted before compaction begins.", between(0, 1), "log.cleaner.min.cleanable.ratio"),  # noqa: E501
        key("min.compaction.lag.ms", long, "0", "How long a record stays uncompacted at least.", natural, "log.cleaner.min.compaction.lag.ms"),
        key("min.insync.replicas", integer, "1", "How many replicas must have a record before acks=all is answered. One node: always one.", positive, "min.insync.replicas"),  # noqa: E501
        key("preallocate", boolean, "false", "Kafka: reserve a segment's space when it is created. Without effect here.", None, "log.preallocate"),
        key("remote.log.copy.disable", boolean, "false", "Tiered storage: stop uploading segments."),
        key("remote.log.delete.on.disable", boolean, "false", "Tiered storage: delete uploaded segments when it is switched off."),
        key("remote.storage.enable", boolean, "false", "Kafka's tiered storage; the broker has none, so true is refused."),
        key("retention.bytes", long, "-1", "The size of a partition beyond which its oldest segments are deleted; -1: no limit.", None, "log.retention.bytes"),  # noqa: E501
        key("retention.ms", long, "604800000", "The age beyond which segments are deleted; -1: never.", at_least(-1), "log.retention.ms"),
        key("segment.bytes", integer, "1073741824", "The size of a segment file; retention and compaction work on whole segments.", at_least(1048576), "log.segment.bytes"),  # noqa: E501
        key("segment.index.bytes", integer, "10485760", "The largest offset index of a segment.", at_least(4), "log.index.size.max.bytes"),
        key("segment.jitter.ms", long, "0", "A random time taken off segment.ms, so that not all partitions roll at once.", natural, "log.roll.jitter.ms"),  # noqa: E501
        key("segment.ms", long, "604800000", "The age after which a segment is closed even when it is not full.", positive, "log.roll.ms"),
        key("unclean.leader.election.enable", boolean, "false", "Whether a replica that is not in sync may lead. One node: no effect.", None, "unclean.leader.election.enable"),  # noqa: E501
    )
    # fmt: on


def _vector_definition(key: ConfigKey) -> ConfigDefinition:
    """A key of `vector.config` in the form of this table."""

    def check(name: str, value: Value) -> None:
        try:
            key.validator(render(value))
        except ValueError as error:
            raise invalid(name, render(value), str(error)) from None

    broker_key = key.name if key.default is None else None
    return ConfigDefinition(key.name, ConfigType[key.type.upper()], key.default, key.documentation, check, broker_key)


KAFKA_KEYS: Mapping[str, ConfigDefinition] = {definition.name: definition for definition in _kafka_keys()}
VECTOR_KEYS: Mapping[str, ConfigDefinition] = {
    name: _vector_definition(key) for name, key in VECTOR_CONFIG_KEYS.items()
}
TOPIC_KEYS: Mapping[str, ConfigDefinition] = {**KAFKA_KEYS, **VECTOR_KEYS}


def vector_config(configs: Mapping[str, str]) -> VectorConfig | None:
    """What a topic with these overrides asks of the vector index; None: it has no vectors."""
    values = {name: TOPIC_KEYS[name].parse(text) for name, text in configs.items() if name in VECTOR_KEYS}
    if not values.get("vector.enabled"):
        return None
    settings: dict[str, Any] = {}
    for field in dataclasses.fields(VectorConfig):
        definition = VECTOR_KEYS["vector." + field.name.replace("_", ".")]
        default = None if definition.default is None else definition.parse(definition.default)
        settings[field.name] = values.get(definition.name, default)
    return VectorConfig(**settings)


def broker_default(definition: ConfigDefinition, broker: BrokerDefaults) -> tuple[str | None, ConfigSource]:
    """The value of a key that the topic does not set, and where it comes from: Kafka's key of the broker, or the default."""
    if definition.broker_key is not None and (sources := broker.sources(definition.broker_key)):
        return sources[0]
    default = definition.default
    if default is None and definition.broker_key is not None:
        default = broker.built_in(definition.broker_key)
    return default, ConfigSource.DEFAULT


def validate_topic_configs(configs: Mapping[str, str]) -> None:
    """Checks a topic's whole set of overrides; raises KafkaError INVALID_CONFIG naming the key, with Kafka's texts."""
    for name in configs:
        if name not in TOPIC_KEYS:
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Unknown topic config name: {name}")
    values = {name: TOPIC_KEYS[name].parse(text) for name, text in configs.items()}
    try:
        check_together(configs)
    except ValueError as error:
        raise KafkaError(ErrorCode.INVALID_CONFIG, str(error)) from None
    if values.get("remote.storage.enable"):
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
        )
    lowest, highest = values.get("min.compaction.lag.ms", 0), values.get("max.compaction.lag.ms", MAX_LONG)
    assert isinstance(lowest, int)
    assert isinstance(highest, int)
    if lowest > highest:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            f"conflict topic config setting min.compaction.lag.ms ({lowest}) > max.compaction.lag.ms ({highest})",
        )


def effective_values(configs: Mapping[str, str], broker: BrokerDefaults) -> dict[str, Any]:
    """The typed value of every key for a topic with these overrides (None where a key has no value)."""
    values: dict[str, Any] = {}
    for name, definition in TOPIC_KEYS.items():
        text = configs[name] if name in configs else broker_default(definition, broker)[0]
        values[name] = None if text is None else definition.parse(text)
    return values


def topic_codec(configs: Mapping[str, str], broker: BrokerDefaults) -> Compression | None:
    """The codec that a topic's batches are stored in; None: the producer's."""
    definition = TOPIC_KEYS["compression.type"]
    text = configs.get(definition.name) or broker_default(definition, broker)[0]
    assert text is not None
    return CODECS[str(definition.parse(text))]


def log_config(configs: Mapping[str, str], broker: BrokerDefaults) -> LogConfig:
    """What storage needs of a topic's configuration; its fields are the config keys with underscores."""
    values = effective_values(configs, broker)
    wanted: dict[str, Any] = {
        field.name: values[field.name.replace("_", ".")] for field in dataclasses.fields(LogConfig)
    }
    wanted |= {name: render(value) for name, value in wanted.items() if isinstance(value, list)}
    return LogConfig(**wanted)
