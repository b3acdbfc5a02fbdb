"""CreateTopics (19)."""

from collections import Counter

from broker.config_entries import topic_entries
from broker.context import RequestContext
from broker.registry import api
from broker.services import Services
from broker.topic_config import VECTOR_KEYS
from broker.topic_rules import check_added, check_assignments, check_counts, check_once
from protocol.api_keys import ApiKey
from protocol.errors import KafkaError
from protocol.messages import CreateTopicsRequest, CreateTopicsResponse

_Asked = CreateTopicsRequest.CreatableTopic
_Result = CreateTopicsResponse.CreatableTopicResult
_Config = CreateTopicsResponse.CreatableTopicConfigs
REPLICATION_FACTOR = 1


@api(ApiKey.CREATE_TOPICS, versions=(2, 7))
def handle(context: RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse:
    """Each topic on its own; one that is created can be used when the answer is sent."""
    times = Counter(topic.name for topic in request.topics)
    asked = {topic.name: topic for topic in request.topics}
    added = sum(max(topic.num_partitions, len(topic.assignments)) for topic in asked.values())
    created: set[str] = set()
    results = []
    for topic in asked.values():
        try:
            check_once(times[topic.name])
            check_added(added)
            results.append(_create(context.services, topic, created, request.validate_only))
            created.add(topic.name)
        except KafkaError as error:
            results.append(_Result(name=topic.name, error_code=error.code, error_message=error.message))
    return CreateTopicsResponse(topics=results)


def _create(services: Services, asked: _Asked, beside: set[str], validate_only: bool) -> _Result:
    """Creates the topic, or only checks it; `beside`: the topics that the request has created."""
    topics = services.topics
    configs = topics.check_new(asked.name, {config.name: config.value for config in asked.configs}, beside=beside)
    if asked.assignments:
        assignments = [(entry.partition_index, entry.broker_ids) for entry in asked.assignments]
        count = check_assignments(assignments, asked.num_partitions, asked.replication_factor, services.node_id)
    else:
        check_counts(asked.num_partitions, asked.replication_factor)
        count = services.config.num_partitions if asked.num_partitions == -1 else asked.num_partitions
    topic = None if validate_only else topics.create(asked.name, count, configs, beside=beside)
    return _Result(
        name=asked.name,
        topic_id=topics.new_topic_id() if topic is None else topic.topic_id,
        error_message=None,
        num_partitions=count,
        replication_factor=REPLICATION_FACTOR,
        configs=_configs(services, configs),
    )


def _configs(services: Services, configs: dict[str, str]) -> list[_Config]:
    """The topic's configs, its own as they were given; those of vectors only if it has any: other topics look as in Kafka."""
    vectors = not VECTOR_KEYS.keys().isdisjoint(configs)
    return [
        _Config(
            name=entry.definition.name,
            value=configs.get(entry.definition.name, entry.shown),
            read_only=entry.definition.read_only,
            config_source=entry.source,
            is_sensitive=entry.definition.sensitive,
        )
        for entry in topic_entries(configs, services.topics.broker_defaults)
        if vectors or entry.definition.name not in VECTOR_KEYS
    ]
