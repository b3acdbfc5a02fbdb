"""CreatePartitions (37)."""

from collections import Counter

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.services import Services
from broker.throttle import MutationQuota
from broker.topic_rules import check_added, check_growth, check_once
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import CreatePartitionsRequest, CreatePartitionsResponse

_WITHOUT_TEXT = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.TOPIC_AUTHORIZATION_FAILED)

STRICT_QUOTA_FROM = 3

_Result = CreatePartitionsResponse.CreatePartitionsTopicResult


@api(ApiKey.CREATE_PARTITIONS, versions=(0, 3))
def handle(context: RequestContext, request: CreatePartitionsRequest) -> CreatePartitionsResponse:
    """Each topic on its own; the new partitions can be used when the answer is sent."""
    counts = Counter(topic.name for topic in request.topics)
    quota = MutationQuota(context, STRICT_QUOTA_FROM)
    results = []
    for topic in {topic.name: topic for topic in request.topics}.values():
        try:
            check_once(counts[topic.name])
            context.access.check_topic(Operation.ALTER, topic.name)
            _grow(context.services, topic, quota, request.validate_only)
            results.append(_Result(name=topic.name))
        except KafkaError as error:
            message = None if error.code in _WITHOUT_TEXT else error.message
            results.append(_Result(name=topic.name, error_code=error.code, error_message=message))
    return CreatePartitionsResponse(throttle_time_ms=quota.wait_ms, results=results)


def _grow(
    services: Services,
    asked: CreatePartitionsRequest.CreatePartitionsTopic,
    quota: MutationQuota,
    validate_only: bool,
) -> None:
    topic = services.topics.get(asked.name)
    if topic is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    assignments = None if asked.assignments is None else [entry.broker_ids for entry in asked.assignments]
    check_growth(asked.name, len(topic.partitions), asked.count, assignments, services.node_id)
    check_added(asked.count - len(topic.partitions))
    quota.take(asked.count - len(topic.partitions))
    if not validate_only:
        services.topics.add_partitions(asked.name, asked.count)
