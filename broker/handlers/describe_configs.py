"""DescribeConfigs (32): topics, the broker, its logger, groups, client metrics."""

from broker.configs.defaults import ALL_BROKERS
from broker.configs.definition import ConfigResource
from broker.configs.entries import (
    ConfigEntry,
    all_brokers_entries,
    broker_entries,
    client_metrics_entries,
    group_entries,
    logger_entries,
    topic_entries,
)
from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.security.access import check_configs
from broker.services import Services
from broker.topic_rules import check_name
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import DescribeConfigsRequest, DescribeConfigsResponse

_Result = DescribeConfigsResponse.DescribeConfigsResult
_Entry = DescribeConfigsResponse.DescribeConfigsResourceResult
_Synonym = DescribeConfigsResponse.DescribeConfigsSynonym


@api(ApiKey.DESCRIBE_CONFIGS, versions=(1, 4))
def handle(context: RequestContext, request: DescribeConfigsRequest) -> DescribeConfigsResponse:
    """Every key with value, source and type; null or no keys asked for means all of them."""
    return DescribeConfigsResponse(results=[_described(context, resource, request) for resource in request.resources])


def _described(
    context: RequestContext, resource: DescribeConfigsRequest.DescribeConfigsResource, request: DescribeConfigsRequest
) -> _Result:
    kind, name = resource.resource_type, resource.resource_name
    try:
        check_configs(context.access, Operation.DESCRIBE_CONFIGS, kind, name)
        entries = _entries(context.services, kind, name)
    except KafkaError as error:
        return _Result(error_code=error.code, error_message=error.message, resource_type=kind, resource_name=name)
    wanted = set(resource.configuration_keys or ())
    return _Result(
        resource_type=kind,
        resource_name=name,
        configs=[_shown(entry, request) for entry in entries if not wanted or entry.definition.name in wanted],
    )


def _shown(entry: ConfigEntry, request: DescribeConfigsRequest) -> _Entry:
    synonyms = [_Synonym(name=s.name, value=s.value, source=s.source) for s in entry.synonyms]
    return _Entry(
        name=entry.definition.name,
        value=entry.shown,
        read_only=entry.definition.read_only,
        config_source=entry.source,
        is_sensitive=entry.definition.sensitive,
        synonyms=synonyms if request.include_synonyms and not entry.definition.sensitive else [],
        config_type=entry.definition.type,
        documentation=entry.definition.documentation if request.include_documentation else None,
    )


def _entries(services: Services, kind: int, name: str) -> list[ConfigEntry]:
    topics = services.topics
    if kind == ConfigResource.TOPIC:
        check_name(name)
        topic = topics.get(name)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "")
        return topic_entries(topic.configs, topics.broker_defaults)
    if kind == ConfigResource.BROKER:
        if name == ALL_BROKERS:
            return all_brokers_entries(topics.resource_configs(ConfigResource.BROKER).get(ALL_BROKERS, {}))
        _check_node(services, name, f"expected {services.node_id} or empty string, but received")
        return broker_entries(services)
    if kind == ConfigResource.BROKER_LOGGER:
        if not name:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Broker id must not be empty")
        _check_node(services, name, f"expected {services.node_id} but received")
        return logger_entries()
    if kind == ConfigResource.GROUP:
        if not name:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Group name must not be empty")
        return group_entries(topics.resource_configs(ConfigResource.GROUP).get(name, {}), topics.broker_defaults)
    if kind == ConfigResource.CLIENT_METRICS:
        if not name:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Client metrics subscription name must not be empty")
        return client_metrics_entries(topics.resource_configs(ConfigResource.CLIENT_METRICS).get(name, {}))
    raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unsupported resource type: {kind}")


def _check_node(services: Services, name: str, expectation: str) -> None:
    if not name.lstrip("-").isdecimal():
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Broker id must be an integer, but it is: {name}")
    if name != str(services.node_id):
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unexpected broker id, {expectation} {name}")
