"""The features that clients see in ApiVersions (KIP-584): name, levels that this broker speaks, the level in force."""

from collections.abc import Mapping
from typing import NamedTuple

from broker.meta_store import MetaStore
from protocol.errors import ErrorCode, KafkaError

UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE = 1, 2, 3
GROUP_VERSION, TRANSACTION_VERSION = "group.version", "transaction.version"


class Feature(NamedTuple):
    """The levels of one feature that this program speaks, and the one that a new broker starts with."""

    name: str
    lowest: int
    highest: int
    initial: int


FEATURES = {
    feature.name: feature
    for feature in (
        Feature(GROUP_VERSION, 0, 1, 1),
        Feature(TRANSACTION_VERSION, 0, 2, 2),
        # Apache may give key 100 away one day; the feature's name says whose it is here.
        Feature("vector.search", 1, 1, 1),
    )
}
FIRST_EPOCH = 1
"""Clients ignore finalized features while the epoch is negative."""


class Features:
    """The levels in force. An administrator changes them (`kafka-features`); clients choose their protocols by them."""

    def __init__(self, store: MetaStore, node_id: int) -> None:
        self._store = store
        self._node_id = node_id

    @property
    def epoch(self) -> int:
        """Grows with every change."""
        return FIRST_EPOCH + self._store.metadata.feature_changes

    def level(self, name: str) -> int:
        """In force."""
        return self._store.metadata.features.get(name, FEATURES[name].initial)

    def check(self, name: str, level: int, upgrade_type: int) -> None:
        """Whether the feature may be set to a level; raises KafkaError INVALID_UPDATE_VERSION with Kafka's texts."""
        reason = self._refusal(name, level, upgrade_type)
        if reason is not None:
            message = f"Invalid update version {level} for feature {name}. {reason}"
            raise KafkaError(ErrorCode.INVALID_UPDATE_VERSION, message)

    def _refusal(self, name: str, level: int, upgrade_type: int) -> str | None:
        if upgrade_type not in (UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE):
            return "The controller does not support the given upgrade type."
        if level < 0:
            return "A feature version cannot be less than 0."
        feature = FEATURES.get(name)
        if feature is None:
            unknown = f"Local controller {self._node_id} does not support this feature."
            return unknown if level else f"Feature {name} not found."
        if not feature.lowest <= level <= feature.highest:
            return f"Local controller {self._node_id} only supports versions {feature.lowest}-{feature.highest}"
        current = self.level(name)
        if level < current and upgrade_type == UPGRADE:
            return (
                "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe "
                "downgrade."
            )
        if level > current and upgrade_type != UPGRADE:
            return "Can't downgrade to a newer version."
        return None

    def change(self, levels: Mapping[str, int]) -> None:
        """Sets checked levels, durably. Raises KafkaError KAFKA_STORAGE_ERROR."""
        metadata = self._store.metadata
        changed = {**metadata.features, **levels}
        if all(self.level(name) == level for name, level in levels.items()):
            return
        try:
            self._store.replace(features=changed, feature_changes=metadata.feature_changes + 1)
        except OSError as error:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"Cannot write the metadata: {error}") from error
