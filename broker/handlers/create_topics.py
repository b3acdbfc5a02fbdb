"""CreateTopics (19)."""

from collections import Counter

from broker.configs.entries import topic_entries
from broker.configs.topic import VECTOR_KEYS
from broker.context import RequestContext
from broker.meta_store import TopicRecord
from broker.operations import Operation
from broker.registry import api
from broker.security.access import Access
from broker.services import Services
from broker.throttle import MutationQuota
from broker.topic_rules import check_added, check_assignments, check_counts, check_once
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import CreateTopicsRequest, CreateTopicsResponse

_Asked = CreateTopicsRequest.CreatableTopic
_Result = CreateTopicsResponse.CreatableTopicResult
_Config = CreateTopicsResponse.CreatableTopicConfigs
REPLICATION_FACTOR = 1
STRICT_QUOTA_FROM = 6


@api(ApiKey.CREATE_TOPICS, versions=(2, 7))
def handle(context: RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse:
    """Each topic on its own; one that is created can be used when the answer is sent."""
    times = Counter(topic.name for topic in request.topics)
    asked = {topic.name: topic for topic in request.topics}
    added = sum(max(topic.num_partitions, len(topic.assignments)) for topic in asked.values())
    checked: dict[str, TopicRecord] = {}
    refused: dict[str, KafkaError] = {}
    quota = MutationQuota(context, STRICT_QUOTA_FROM)
    access = context.access
    every = access.cluster(Operation.CREATE)
    for topic in asked.values():
        try:
            check_once(times[topic.name])
            if not every:
                _check_allowed(access, topic.name)
            check_added(added)
            record = _check(context.services, topic)
            quota.take(record.partitions)
            checked[topic.name] = record
        except KafkaError as error:
            refused[topic.name] = error
    if not request.validate_only:
        # Together: each write of the metadata costs two syncs on the event loop.
        outcomes = context.services.topics.create_checked(checked.values())
        refused |= {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, KafkaError)}
    return CreateTopicsResponse(
        throttle_time_ms=quota.wait_ms,
        topics=[
            _Result(name=name, error_code=refused[name].code, error_message=refused[name].message)
            if name in refused
            else _result(context, checked[name])
            for name in asked
        ],
    )


def _check_allowed(access: Access, name: str) -> None:
    """Raises KafkaError, in the words that Kafka has for this request alone."""
    if not access.topic(Operation.CREATE, name):
        raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Authorization failed.")


def _check(services: Services, asked: _Asked) -> TopicRecord:
    """The topic as it would be; raises KafkaError."""
    topics = services.topics
    configs = topics.check_new(asked.name, {config.name: config.value for config in asked.configs})
    if asked.assignments:
        assignments = [(entry.partition_index, entry.broker_ids) for entry in asked.assignments]
        count = check_assignments(assignments, asked.num_partitions, asked.replication_factor, services.node_id)
    else:
        check_counts(asked.num_partitions, asked.replication_factor)
        count = services.config.num_partitions if asked.num_partitions == -1 else asked.num_partitions
    return TopicRecord(asked.name, topics.new_topic_id(), count, configs)


def _result(context: RequestContext, topic: TopicRecord) -> _Result:
    if not context.access.topic(Operation.DESCRIBE_CONFIGS, topic.name):
        return _Result(
            name=topic.name,
            topic_id=topic.topic_id,
            error_message=None,
            topic_config_error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED,
        )
    return _Result(
        name=topic.name,
        topic_id=topic.topic_id,
        error_message=None,
        num_partitions=topic.partitions,
        replication_factor=REPLICATION_FACTOR,
        configs=_configs(context.services, topic.configs),
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
