"""Configs as the admin APIs show them: value, source, synonyms, for topics, the broker, groups and client metrics."""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.configs.broker import ROOT_LOGGER, ROOT_LOGGER_LEVEL, broker_keys, broker_sources
from broker.configs.defaults import CLUSTER_DEFAULTS, BrokerDefaults
from broker.configs.definition import ConfigDefinition, ConfigSource, ConfigType
from broker.configs.resource import CLIENT_METRICS_KEYS, GROUP_KEYS
from broker.configs.topic import TOPIC_KEYS, broker_default
from broker.services import Services

_NO_BROKER_DEFAULT = frozenset({"log.retention.ms", "log.roll.ms", "log.roll.jitter.ms", "log.flush.interval.ms"})
"""Kafka's keys without a default of their own (it is in .hours or nowhere): they are no synonyms until they are set."""


@dataclass(frozen=True, slots=True)
class Synonym:
    """A place that could give the value, the strongest first."""

    name: str
    value: str | None
    source: ConfigSource


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One key with the value in force."""

    definition: ConfigDefinition
    value: str | None
    source: ConfigSource
    synonyms: tuple[Synonym, ...]

    @property
    def shown(self) -> str | None:
        """The value, unless it is a secret."""
        return None if self.definition.sensitive else self.value


def topic_entries(configs: Mapping[str, str], broker: BrokerDefaults) -> list[ConfigEntry]:
    """Every topic key for a topic with these overrides."""
    entries = []
    for name, definition in TOPIC_KEYS.items():
        value, source = broker_default(definition, broker)
        synonyms = _broker_synonyms(definition, broker)
        if name in configs:
            value, source = definition.canonical(configs[name]), ConfigSource.TOPIC
            synonyms = (Synonym(name, value, source), *synonyms)
        entries.append(ConfigEntry(definition, value, source, synonyms))
    return entries


def _broker_synonyms(definition: ConfigDefinition, broker: BrokerDefaults) -> tuple[Synonym, ...]:
    key = definition.broker_key
    if key is None:
        return ()
    synonyms = [Synonym(key, value, source) for value, source in broker.sources(key)]
    if key not in _NO_BROKER_DEFAULT and definition.default is not None:
        synonyms.append(Synonym(key, definition.default, ConfigSource.DEFAULT))
    return tuple(synonyms)


def broker_entries(services: Services) -> list[ConfigEntry]:
    """Every broker key of this node."""
    entries = []
    for name, definition in broker_keys().items():
        synonyms = [Synonym(name, value, source) for value, source in broker_sources(definition, services)]
        first = synonyms[0] if synonyms else Synonym(name, None, ConfigSource.DEFAULT)
        entries.append(ConfigEntry(definition, first.value, first.source, tuple(synonyms)))
    return entries


def all_brokers_entries(configs: Mapping[str, str]) -> list[ConfigEntry]:
    """What is set for all brokers (resource name empty)."""
    source = ConfigSource.DYNAMIC_DEFAULT_BROKER
    return [
        ConfigEntry(broker_keys()[name], value, source, (Synonym(name, value, source),))
        for name, value in {**CLUSTER_DEFAULTS, **configs}.items()
        if name in broker_keys()
    ]


def logger_entries() -> list[ConfigEntry]:
    """The one logger whose level can be asked for."""
    definition = ConfigDefinition(ROOT_LOGGER, ConfigType.UNKNOWN, None, "")
    return [ConfigEntry(definition, ROOT_LOGGER_LEVEL, ConfigSource.DYNAMIC_BROKER_LOGGER, ())]


def group_entries(configs: Mapping[str, str], broker: BrokerDefaults) -> list[ConfigEntry]:
    """Every group key for a group with these overrides."""
    entries = []
    for name, definition in GROUP_KEYS.items():
        synonyms = _broker_synonyms(definition, broker)
        value, source = synonyms[0].value, synonyms[0].source
        if name in configs:
            value, source = definition.canonical(configs[name]), ConfigSource.GROUP
            synonyms = (Synonym(name, value, source), *synonyms)
        entries.append(ConfigEntry(definition, value, source, synonyms))
    return entries


def client_metrics_entries(configs: Mapping[str, str]) -> list[ConfigEntry]:
    """Every key of a client metrics subscription with these overrides."""
    entries = []
    for name, definition in CLIENT_METRICS_KEYS.items():
        value, source = definition.default, ConfigSource.DEFAULT
        if name in configs:
            value, source = definition.canonical(configs[name]), ConfigSource.CLIENT_METRICS
        entries.append(ConfigEntry(definition, value, source, ()))
    return entries
