"""The broker's topics: created, changed and deleted here, durable through the metadata store, told to observers."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from broker.config import Config
from broker.configs.defaults import BrokerDefaults
from broker.configs.definition import ConfigResource
from broker.configs.topic import log_config, topic_codec, validate_topic_configs, vector_config
from broker.meta_store import MetaStore, TopicRecord
from broker.topic_rules import INTERNAL_TOPICS, check_new_name, collision_key
from protocol.compression import Compression
from protocol.errors import ErrorCode, KafkaError
from storage.config import LogConfig
from storage.log import PartitionLog
from storage.log_manager import LogManager
from vector.config import VectorConfig

logger = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Topic:
    """One topic. `configs` are its overrides; `partitions` holds the logs by partition number."""

    name: str
    topic_id: bytes
    configs: dict[str, str]
    partitions: list[PartitionLog] = field(default_factory=list)
    vector: VectorConfig | None = None
    codec: Compression | None = None
    """What batches are stored in; None: what the producer chose."""

    @property
    def internal(self) -> bool:
        """As Metadata says it: a topic of the broker's own."""
        return self.name in INTERNAL_TOPICS

    def partition(self, number: int) -> PartitionLog:
        """The log of a partition; raises KafkaError UNKNOWN_TOPIC_OR_PARTITION."""
        if 0 <= number < len(self.partitions):
            return self.partitions[number]
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)


class TopicObserver(Protocol):
    """Told synchronously, on the event loop, after the change is durable."""

    def topic_created(self, topic: Topic) -> None: ...

    def topic_deleted(self, topic: Topic) -> None: ...

    def topic_changed(self, topic: Topic) -> None:
        """Partitions were added or configs changed."""


class Topics:
    """Every topic by name and by id. The metadata store decides what exists; logs follow it."""

    def __init__(self, store: MetaStore, logs: LogManager, config: Config) -> None:
        self._store = store
        self._logs = logs
        self._config = config
        self.broker_defaults = BrokerDefaults(config, self.resource_configs(ConfigResource.BROKER))
        self._by_name: dict[str, Topic] = {}
        self._by_id: dict[bytes, Topic] = {}
        self._by_collision_key: dict[str, dict[str, None]] = {}
        self.observers: list[TopicObserver] = []
        self.revision = 0
        """Grows with every change: what was built from the topics may be kept while it stays the same."""
        self._recover()

    def _recover(self) -> None:
        """Opens what the store lists; logs of a topic whose deletion a crash interrupted are deleted now."""
        for record in self._store.metadata.topics.values():
            configs = _usable(record)
            topic = Topic(record.name, record.topic_id, configs, vector=vector_config(configs))
            self._open_logs(topic, record.partitions)
            self._remember(topic)
        for log in list(self._logs.logs()):
            if log.topic_id not in self._by_id:
                self._logs.delete_log(log)

    # ---- asking ------------------------------------------------------------------------------------------------

    def get(self, name: str) -> Topic | None:
        return self._by_name.get(name)

    def get_by_id(self, topic_id: bytes) -> Topic | None:
        return self._by_id.get(topic_id)

    def names(self) -> list[str]:
        """The names of all topics, in order."""
        return sorted(self._by_name)

    def __iter__(self) -> Iterator[Topic]:
        return iter(self._by_name.values())

    @property
    def partition_count(self) -> int:
        return sum(len(topic.partitions) for topic in self._by_name.values())

    def check_new(self, name: str, configs: Mapping[str, str | None]) -> dict[str, str]:
        """Checks name and configs of a topic to be created, see `check_new_name`; returns its overrides. Raises KafkaError."""
        check_new_name(name, self._by_collision_key)
        overrides: dict[str, str] = {}
        for key, value in configs.items():
            if value is None:
                raise KafkaError(ErrorCode.INVALID_CONFIG, f"Null value not supported for topic configs: {key}")
            overrides[key] = value
        validate_topic_configs(overrides)
        return overrides

    def new_topic_id(self) -> bytes:
        """A random 16-byte id for a topic."""
        return self._store.new_topic_id()

    def log(self, name: str, partition: int) -> PartitionLog:
        """The log of a partition; raises KafkaError UNKNOWN_TOPIC_OR_PARTITION."""
        topic = self._by_name.get(name)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return topic.partition(partition)

    # ---- changing ----------------------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        partitions: int,
        configs: Mapping[str, str | None],
        *,
        topic_id: bytes | None = None,
    ) -> Topic:
        """Creates a topic; durable when it returns.

        Raises KafkaError with Kafka's codes, KAFKA_STORAGE_ERROR when it cannot be written (nothing is left of it then).
        """
        overrides = self.check_new(name, configs)
        if partitions < 1:
            raise KafkaError(
                ErrorCode.INVALID_PARTITIONS, "Number of partitions was set to an invalid non-positive value."
            )
        record = TopicRecord(name, topic_id or self.new_topic_id(), partitions, overrides)
        outcome = self.create_checked([record])[name]
        if isinstance(outcome, KafkaError):
            raise outcome
        return outcome

    def create_checked(self, records: Iterable[TopicRecord]) -> dict[str, Topic | KafkaError]:
        """Creates topics that `check_new` has found right, durably, with one write of the metadata for all of them.

        By name what became of each: KAFKA_STORAGE_ERROR when it cannot be written (nothing is left of it then).
        """
        new = {record.name: record for record in records}
        if not new:
            return {}
        try:
            self._store_topics({**self._store.metadata.topics, **new})
        except KafkaError as error:
            return dict.fromkeys(new, error)
        outcomes = {record.name: self._create_logs(record) for record in new.values()}
        failed = [name for name, outcome in outcomes.items() if isinstance(outcome, KafkaError)]
        if failed:
            # Should the disk not take the metadata either: the answer is the same.
            with contextlib.suppress(KafkaError):
                self._store_topics(_without(self._store.metadata.topics, failed))
        return outcomes

    def _create_logs(self, record: TopicRecord) -> Topic | KafkaError:
        topic = Topic(record.name, record.topic_id, record.configs, vector=vector_config(record.configs))
        try:
            self._open_logs(topic, record.partitions)
        except (OSError, KafkaError) as error:
            # The logs first: should the disk not take the metadata either, the next topic of this name needs their place.
            # One that cannot be deleted now is deleted at the next start: the store does not list it.
            with contextlib.suppress(KafkaError):
                for log in topic.partitions:
                    self._logs.delete_log(log)
            return KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"Cannot create the logs of {record.name}: {error}")
        self._remember(topic)
        for observer in self.observers:
            observer.topic_created(topic)
        return topic

    def auto_create(self, name: str) -> Topic:
        """Creates a topic that a client asked for in Metadata, with the broker's defaults; raises KafkaError.

        Not a topic of the broker's own: its coordinator creates it when it is first needed, with the configs it needs.
        """
        if name in INTERNAL_TOPICS:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return self.create(name, self._config.num_partitions, {})

    def ensure_internal(self, name: str, partitions: int, configs: Mapping[str, str | None]) -> Topic:
        """The topic of the broker's own, created if it does not exist; an existing one keeps its partitions."""
        return self._by_name.get(name) or self.create(name, partitions, configs)

    def delete(self, name: str) -> Topic:
        """Deletes a topic with its data; raises KafkaError UNKNOWN_TOPIC_OR_PARTITION, INVALID_REQUEST for an internal one,
        KAFKA_STORAGE_ERROR when it cannot be written (it is still there then).
        """
        topic = self._require(name)
        if topic.internal:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"The internal topic {name} cannot be deleted.")
        # All of it or nothing: half a deletion would leave logs that live on without their topic.
        self._logs.reserve_deletions(len(topic.partitions))
        self._store_topics(_without(self._store.metadata.topics, [name]))
        del self._by_name[name], self._by_id[topic.topic_id]
        del self._by_collision_key[collision_key(name)][name]
        self.revision += 1
        for log in topic.partitions:
            self._logs.delete_log(log)
        for observer in self.observers:
            observer.topic_deleted(topic)
        return topic

    def add_partitions(self, name: str, total: int) -> Topic:
        """Grows a topic to `total` partitions; raises KafkaError, KAFKA_STORAGE_ERROR when it cannot be written (it is as it was then)."""
        topic = self._require(name)
        if total <= len(topic.partitions):
            raise KafkaError(ErrorCode.INVALID_PARTITIONS, f"Topic already has {len(topic.partitions)} partition(s).")
        before = self._store.metadata.topics
        record = TopicRecord(name, topic.topic_id, total, topic.configs)
        self._store_topics({**before, name: record})
        count = len(topic.partitions)
        try:
            self._open_logs(topic, total)
        except (OSError, KafkaError) as error:
            # Should the disk not take the metadata either, the missing logs are created at the next start.
            with contextlib.suppress(KafkaError):
                for log in topic.partitions[count:]:
                    self._logs.delete_log(log)
            del topic.partitions[count:]
            with contextlib.suppress(KafkaError):
                self._store_topics(before)
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"Cannot create the logs of {name}: {error}") from error
        self._changed(topic)
        return topic

    def set_configs(self, name: str, configs: Mapping[str, str]) -> Topic:
        """Replaces a topic's overrides; they act at once. Raises KafkaError INVALID_CONFIG."""
        topic = self._require(name)
        validate_topic_configs(configs)
        if dict(configs) == topic.configs:
            return topic
        vector = vector_config(configs)
        record = TopicRecord(name, topic.topic_id, len(topic.partitions), dict(configs))
        self._store_topics({**self._store.metadata.topics, name: record})
        topic.configs, topic.vector = record.configs, vector
        self._apply_configs(topic)
        self._changed(topic)
        return topic

    def resource_configs(self, kind: ConfigResource) -> dict[str, dict[str, str]]:
        """Overrides of what is not a topic, by resource name."""
        return self._store.metadata.resource_configs.get(kind, {})

    def set_resource_configs(self, kind: ConfigResource, name: str, configs: Mapping[str, str]) -> None:
        """Replaces the overrides of a broker, group or client metrics subscription; the caller has checked them."""
        changed = {**self.resource_configs(kind), name: dict(configs)}
        if not configs:
            del changed[name]
        self._replace(resource_configs={**self._store.metadata.resource_configs, int(kind): changed})
        if kind is ConfigResource.BROKER:
            self.broker_defaults = BrokerDefaults(self._config, changed)
            self.revision += 1
            for topic in self._by_name.values():
                self._apply_configs(topic)

    # ---- helpers -----------------------------------------------------------------------------------------------

    def _require(self, name: str) -> Topic:
        topic = self._by_name.get(name)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
        return topic

    def _remember(self, topic: Topic) -> None:
        self._by_name[topic.name] = self._by_id[topic.topic_id] = topic
        self._by_collision_key.setdefault(collision_key(topic.name), {})[topic.name] = None
        self.revision += 1

    def _changed(self, topic: Topic) -> None:
        self.revision += 1
        for observer in self.observers:
            observer.topic_changed(topic)

    def _open_logs(self, topic: Topic, total: int) -> None:
        settings = self._settings(topic)
        for partition in range(len(topic.partitions), total):
            topic.partitions.append(self._logs.create_log(topic.topic_id, topic.name, partition, settings))

    def _settings(self, topic: Topic) -> LogConfig:
        topic.codec = topic_codec(topic.configs, self.broker_defaults)
        return log_config(topic.configs, self.broker_defaults)

    def _apply_configs(self, topic: Topic) -> None:
        settings = self._settings(topic)
        for log in topic.partitions:
            log.config = settings

    def _store_topics(self, topics: dict[str, TopicRecord]) -> None:
        self._replace(topics=topics)

    def _replace(self, **changes: Any) -> None:
        try:
            self._store.replace(**changes)
        except OSError as error:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"Cannot write the metadata: {error}") from error


def _usable(record: TopicRecord) -> dict[str, str]:
    """The topic's overrides without those that this version of the broker does not take: one must not stop its start."""
    usable = {}
    for key, value in record.configs.items():
        try:
            validate_topic_configs({key: value})
            usable[key] = value
        except KafkaError as error:
            logger.warning("topic config ignored", topic=record.name, key=key, reason=error.message)
    return usable


def _without(topics: Mapping[str, TopicRecord], names: list[str]) -> dict[str, TopicRecord]:
    kept = dict(topics)
    for name in names:
        del kept[name]
    return kept
