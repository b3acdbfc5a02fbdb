"""IncrementalAlterConfigs (44): set, delete, append and subtract single keys (KIP-339)."""

from collections import Counter

from broker.configs.changes import change_configs, check_once
from broker.configs.definition import ConfigResource
from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.security.access import check_configs
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse

_Result = IncrementalAlterConfigsResponse.AlterConfigsResourceResponse


@api(ApiKey.INCREMENTAL_ALTER_CONFIGS, versions=(0, 1))
def handle(context: RequestContext, request: IncrementalAlterConfigsRequest) -> IncrementalAlterConfigsResponse:
    """Each resource on its own, all of its changes or none; durable and in force when the answer is sent."""
    times = Counter((resource.resource_type, resource.resource_name) for resource in request.resources)
    responses = []
    for resource in request.resources:
        kind, name = resource.resource_type, resource.resource_name
        changes = [(config.name, config.config_operation, config.value) for config in resource.configs]
        result = _Result(resource_type=kind, resource_name=name, error_message=None)
        try:
            check_once(times[kind, name])
            check_configs(context.access, Operation.ALTER_CONFIGS, kind, name)
            change_configs(context.services, kind, name, changes, validate_only=request.validate_only)
        except KafkaError as error:
            result.error_code, result.error_message = error.code, error.message
            if kind == ConfigResource.BROKER_LOGGER and error.code is ErrorCode.CLUSTER_AUTHORIZATION_FAILED:
                result.error_message = None  # as in Kafka
        responses.append(result)
    return IncrementalAlterConfigsResponse(responses=responses)
