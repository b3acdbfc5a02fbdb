"""The broker's own configs as DescribeConfigs lists them: Kafka 4.3's keys that mean something here or that tools read.

`broker.json` has names, types, defaults and (shortened) documentation from Apache Kafka 4.3, Apache License 2.0.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from broker.configs.definition import ConfigDefinition, ConfigSource, ConfigType, at_least
from broker.services import Services

_TABLE = Path(__file__).with_name("broker.json")
LOGGER_LEVELS = ("DEBUG", "ERROR", "FATAL", "INFO", "TRACE", "WARN")
ROOT_LOGGER, ROOT_LOGGER_LEVEL = "root", "INFO"


@cache
def broker_keys() -> Mapping[str, ConfigDefinition]:
    """Every broker config key by name; read on first use."""
    return {row["name"]: _definition(row) for row in json.loads(_TABLE.read_text(encoding="utf-8"))}


def _definition(row: dict[str, Any]) -> ConfigDefinition:
    return ConfigDefinition(
        name=row["name"],
        type=ConfigType[row["type"]],
        default=row["default"],
        documentation=row["documentation"],
        check=at_least(0) if row["name"].endswith(".threads") else None,
        read_only=row.get("read_only", False),
        sensitive=row.get("sensitive", False),
    )


def broker_sources(definition: ConfigDefinition, services: Services) -> list[tuple[str, ConfigSource]]:
    """Every place that gives the key a value, the strongest first."""
    name = definition.name
    if (identity := _identity(services).get(name)) is not None:
        return [(identity, ConfigSource.STATIC_BROKER)]
    sources = services.topics.broker_defaults.sources(name)
    default = services.topics.broker_defaults.built_in(name) or definition.default
    if default is not None:
        sources.append((default, ConfigSource.DEFAULT))
    return sources


def _identity(services: Services) -> dict[str, str]:
    """What only the running broker knows."""
    return {
        "node.id": str(services.node_id),
        "broker.id": str(services.node_id),
        "process.roles": "broker,controller",
        "listeners": services.bound_listeners,
        "advertised.listeners": services.advertised_listeners,
        "log.dir": str(services.config.data_dir),
        "log.dirs": str(services.config.data_dir),
    }
