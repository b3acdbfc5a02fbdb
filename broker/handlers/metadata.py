"""Metadata (3): the node, topics by name or id, created on request."""

from broker.context import RequestContext
from broker.operations import NOT_ASKED, Operation
from broker.registry import api
from broker.services import Services
from broker.topic_rules import INTERNAL_TOPICS, valid_name
from broker.topics import Topic
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import MetadataRequest, MetadataResponse

FIRST_VERSION_WITH_TOPIC_IDS = 12
"""Versions 10 and 11 carry ids too, but a client may not ask by them."""
NO_ID = bytes(16)


@api(ApiKey.METADATA, versions=(0, 13))
def handle(context: RequestContext, request: MetadataRequest) -> MetadataResponse:
    """All topics for null (v0: for an empty list); unknown ones are created where client and broker both allow it."""
    services, version = context.services, context.api_version
    if request.topics and version < FIRST_VERSION_WITH_TOPIC_IDS and _asks_by_id(request):
        return MetadataResponse(
            topics=[_failed(ErrorCode.INVALID_REQUEST, topic.name or "") for topic in request.topics]
        )
    topics = _topics(context, request, every=request.topics is None or (version == 0 and not request.topics))
    if request.include_topic_authorized_operations:
        for topic in topics:
            if topic.error_code != ErrorCode.TOPIC_AUTHORIZATION_FAILED and topic.name is not None:
                topic.topic_authorized_operations = context.access.topic_operations(topic.name)
    host, port = context.connection.advertised
    broker = MetadataResponse.MetadataResponseBroker(node_id=services.node_id, host=host, port=port)
    return MetadataResponse(
        brokers=[broker],
        cluster_id=services.cluster_id,
        controller_id=services.node_id,
        topics=topics,
        cluster_authorized_operations=context.access.cluster_operations()
        if request.include_cluster_authorized_operations
        else NOT_ASKED,
    )


def _asks_by_id(request: MetadataRequest) -> bool:
    return any(topic.name is None or topic.topic_id != NO_ID for topic in request.topics or ())


def _topics(
    context: RequestContext, request: MetadataRequest, *, every: bool
) -> list[MetadataResponse.MetadataResponseTopic]:
    services, access = context.services, context.access
    if every:  # without those that the client may not see
        return [_known(services, topic) for topic in services.topics if access.topic(Operation.DESCRIBE, topic.name)]
    asked = request.topics or []
    ids = dict.fromkeys(topic.topic_id for topic in asked if topic.topic_id != NO_ID)
    if ids:  # as in Kafka: with one id in the request, names are not looked at
        return [_by_id(context, topic_id) for topic_id in ids]
    create = request.allow_auto_topic_creation and services.config.auto_create_topics_enable
    return [_by_name(context, name, create) for name in dict.fromkeys(topic.name or "" for topic in asked)]


def _by_id(context: RequestContext, topic_id: bytes) -> MetadataResponse.MetadataResponseTopic:
    topic = context.services.topics.get_by_id(topic_id)
    if topic is None:
        return _failed(ErrorCode.UNKNOWN_TOPIC_ID, None, topic_id)
    if not context.access.topic(Operation.DESCRIBE, topic.name):
        return _failed(ErrorCode.TOPIC_AUTHORIZATION_FAILED, None, topic_id)
    return _known(context.services, topic)


def _by_name(context: RequestContext, name: str, create: bool) -> MetadataResponse.MetadataResponseTopic:
    services, access = context.services, context.access
    topic = services.topics.get(name)
    if not access.topic(Operation.DESCRIBE, name):
        return _failed(ErrorCode.TOPIC_AUTHORIZATION_FAILED, name)
    if topic is not None:
        return _known(services, topic)
    if create and not (access.cluster(Operation.CREATE) or access.topic(Operation.CREATE, name)):
        return _failed(ErrorCode.TOPIC_AUTHORIZATION_FAILED, name)
    if not valid_name(name):
        return _failed(ErrorCode.INVALID_TOPIC_EXCEPTION, name)
    if not create:
        return _failed(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, name)
    try:
        return _known(services, services.topics.auto_create(name))
    except KafkaError as error:
        return _failed(error.code, name)


def _failed(code: ErrorCode, name: str | None, topic_id: bytes = NO_ID) -> MetadataResponse.MetadataResponseTopic:
    return MetadataResponse.MetadataResponseTopic(
        error_code=code, name=name, topic_id=topic_id, is_internal=name in INTERNAL_TOPICS, partitions=[]
    )


def _known(services: Services, topic: Topic) -> MetadataResponse.MetadataResponseTopic:
    nodes = [services.node_id]
    return MetadataResponse.MetadataResponseTopic(
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=topic.internal,
        partitions=[
            MetadataResponse.MetadataResponsePartition(
                partition_index=log.partition,
                leader_id=services.node_id,
                leader_epoch=log.leader_epoch,
                replica_nodes=nodes,
                isr_nodes=nodes,
                offline_replicas=[],
            )
            for log in topic.partitions
        ],
    )
