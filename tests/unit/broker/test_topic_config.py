"""broker.configs.topic: Kafka's table, its limits and texts, the broker's defaults."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import Config
from broker.configs.defaults import BrokerDefaults
from broker.configs.definition import MAX_LONG, ConfigType
from broker.configs.entries import topic_entries
from broker.configs.topic import (
    KAFKA_KEYS,
    TOPIC_KEYS,
    effective_values,
    log_config,
    validate_topic_configs,
    vector_config,
)
from protocol.errors import ErrorCode, KafkaError

DEFAULTS = BrokerDefaults(Config(), {})


def message_of(configs: dict[str, str]) -> str:
    with pytest.raises(KafkaError) as caught:
        validate_topic_configs(configs)
    assert caught.value.code == ErrorCode.INVALID_CONFIG
    return caught.value.message


def test_kafka_has_33_topic_keys_and_every_default_is_valid() -> None:
    assert len(KAFKA_KEYS) == 33
    for definition in TOPIC_KEYS.values():
        assert definition.documentation
        if definition.default is not None:
            assert definition.canonical(definition.default) == definition.default
            definition.parse(definition.default)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [  # as Apache Kafka 4.3 wrote them
        ("no.such.key", "1", "Unknown topic config name: no.such.key"),
        ("retention.ms", "abc", "Invalid value abc for configuration retention.ms: Not a number of type LONG"),
        ("retention.ms", "", "Invalid value  for configuration retention.ms: Not a number of type LONG"),
        ("retention.ms", str(MAX_LONG + 1), f"Invalid value {MAX_LONG + 1} for configuration retention.ms: Not a number of type LONG"),
        ("retention.ms", "-2", "Invalid value -2 for configuration retention.ms: Value must be at least -1"),
        ("cleanup.policy", "xyz", "Invalid value xyz for configuration cleanup.policy: String must be one of: compact, delete"),
        ("compression.zstd.level", "23", "Invalid value 23 for configuration compression.zstd.level: Value must be no more than 22"),
        ("compression.gzip.level", "100", "Invalid value 100 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1"),
        ("preallocate", "yes", "Invalid value yes for configuration preallocate: Expected value to be either true or false"),
        ("vector.metric", "manhattan", "Invalid value manhattan for configuration vector.metric: "),
        ("vector.enabled", "maybe", "Invalid value maybe for configuration vector.enabled: Expected value to be either true or false"),
    ],
)  # fmt: skip
def test_bad_values_are_refused_by_name(key: str, value: str, message: str) -> None:
    assert message_of({key: value}).startswith(message)


def test_lags_that_cross_are_refused() -> None:
    crossed = {"min.compaction.lag.ms": "20", "max.compaction.lag.ms": "10"}
    assert (
        message_of(crossed) == "conflict topic config setting min.compaction.lag.ms (20) > max.compaction.lag.ms (10)"
    )


@given(
    st.sampled_from([d for d in TOPIC_KEYS.values() if d.type in (ConfigType.INT, ConfigType.LONG)]),
    st.text(max_size=25),
)
def test_any_text_for_a_number_is_a_number_in_range_or_refused(definition, text: str) -> None:  # type: ignore[no-untyped-def]
    try:
        value = definition.parse(text)
    except KafkaError:
        assert definition.name in message_of({definition.name: text})
    else:
        assert definition.parse(str(value)) == value


@given(
    st.dictionaries(st.sampled_from(sorted(TOPIC_KEYS)), st.text("0123456789-,.truefalse ", max_size=12), max_size=3)
)
def test_what_is_valid_can_be_applied_and_shown(configs: dict[str, str]) -> None:
    try:
        validate_topic_configs(configs)
    except KafkaError:
        return
    log_config(configs, DEFAULTS)
    vector_config(configs)
    shown = {entry.definition.name: entry.value for entry in topic_entries(configs, DEFAULTS)}
    assert set(shown) == set(TOPIC_KEYS)
    values = effective_values(configs, DEFAULTS)
    assert effective_values({key: shown[key] or "" for key in configs}, DEFAULTS) == values


def test_values_are_shown_in_one_form() -> None:
    given_values = {"retention.ms": " 60000 ", "preallocate": "TRUE", "cleanup.policy": "compact, delete,compact"}
    shown = {entry.definition.name: entry.value for entry in topic_entries(given_values, DEFAULTS)}
    assert shown["retention.ms"] == "60000"
    assert shown["preallocate"] == "true"
    assert shown["cleanup.policy"] == "compact,delete"


def test_sources_and_synonyms_name_every_place_of_a_value() -> None:
    broker = BrokerDefaults(Config(), {"": {"message.max.bytes": "5"}, "1": {"message.max.bytes": "6"}})
    entries = {entry.definition.name: entry for entry in topic_entries({"max.message.bytes": "4"}, broker)}
    places = [(s.name, s.value, int(s.source)) for s in entries["max.message.bytes"].synonyms]
    assert places == [
        ("max.message.bytes", "4", 1),
        ("message.max.bytes", "6", 2),
        ("message.max.bytes", "5", 3),
        ("message.max.bytes", "1048588", 5),
    ]
    assert log_config({}, broker).max_message_bytes == 6


def test_the_brokers_configuration_gives_defaults() -> None:
    broker = BrokerDefaults(Config(log_retention_ms=99), {})
    entries = {entry.definition.name: entry for entry in topic_entries({}, broker)}
    assert (entries["retention.ms"].value, entries["retention.ms"].source) == ("99", 4)
    assert log_config({}, broker).retention_ms == 99
    assert log_config({"retention.ms": "7"}, broker).retention_ms == 7
