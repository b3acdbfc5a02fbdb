"""The broker as groups see it: its topics, and what is configured for one group."""

from collections.abc import Iterable

from broker.config import Config
from broker.configs.definition import ConfigResource
from broker.coordinator.group_state import ConsumerSettings
from broker.coordinator.topic_catalog import TopicFacts
from broker.topics import Topic, Topics


class BrokerTopics:
    """A `TopicCatalog`."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    @property
    def revision(self) -> int:
        return self._topics.revision

    def named(self, name: str) -> TopicFacts | None:
        return _facts(self._topics.get(name))

    def identified(self, topic_id: bytes) -> TopicFacts | None:
        return _facts(self._topics.get_by_id(topic_id))

    def names(self) -> Iterable[str]:
        return (topic.name for topic in self._topics)


def _facts(topic: Topic | None) -> TopicFacts | None:
    return None if topic is None else TopicFacts(topic.name, topic.topic_id, len(topic.partitions))


def consumer_settings(config: Config, topics: Topics, group_id: str) -> ConsumerSettings:
    """What is set for the group, or else for the broker."""
    own = topics.resource_configs(ConfigResource.GROUP).get(group_id, {})

    def number(key: str, default: int) -> int:
        return int(own.get(key, default))

    return ConsumerSettings(
        session_timeout_ms=number("consumer.session.timeout.ms", config.group_consumer_session_timeout_ms),
        heartbeat_interval_ms=number("consumer.heartbeat.interval.ms", config.group_consumer_heartbeat_interval_ms),
        assignment_interval_ms=number("consumer.assignment.interval.ms", config.group_consumer_assignment_interval_ms),
        members_max=config.group_consumer_max_size,
        classic_members_max=config.group_max_size,
        default_assignor=config.group_consumer_assignors[0],
        may_downgrade=config.group_consumer_migration_policy in ("bidirectional", "downgrade"),
    )
