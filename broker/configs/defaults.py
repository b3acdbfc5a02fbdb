"""Where a broker-wide config value comes from: set at run time for this node or all nodes, in the configuration, or nowhere."""

from collections.abc import Mapping

from broker.config import Config
from broker.configs.definition import ConfigSource, render

ALL_BROKERS = ""
"""The resource name of configs for every broker."""
# min.insync.replicas is the one key for which a fresh Kafka 4.3 cluster has a cluster-wide value of its own (KIP-966).
CLUSTER_DEFAULTS = {"min.insync.replicas": "1"}


class BrokerDefaults:
    """Looks up broker keys by precedence; `dynamic` are the configs set at run time by resource name."""

    def __init__(self, config: Config, dynamic: Mapping[str, Mapping[str, str]]) -> None:
        self.config = config
        self._dynamic = dynamic

    def sources(self, key: str) -> list[tuple[str, ConfigSource]]:
        """Every place that sets the broker's `key`, the strongest first."""
        found = []
        node = self._dynamic.get(str(self.config.node_id), {})
        cluster = {**CLUSTER_DEFAULTS, **self._dynamic.get(ALL_BROKERS, {})}
        if key in node:
            found.append((node[key], ConfigSource.DYNAMIC_BROKER))
        if key in cluster:
            found.append((cluster[key], ConfigSource.DYNAMIC_DEFAULT_BROKER))
        attribute = key.replace(".", "_")
        if attribute in self.config.model_fields_set:
            found.append((render(getattr(self.config, attribute)), ConfigSource.STATIC_BROKER))
        return found

    def built_in(self, key: str) -> str | None:
        """What the configuration says of `key` when nobody sets it; None if it has no such key or no value."""
        field = type(self.config).model_fields.get(key.replace(".", "_"))
        return None if field is None or field.default is None else render(field.default)
