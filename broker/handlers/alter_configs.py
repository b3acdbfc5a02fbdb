"""AlterConfigs (33): the given configs replace all; older clients use it instead of IncrementalAlterConfigs."""

from collections import Counter

from broker.configs.changes import check_once, replace_configs
from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.security.access import check_configs
from protocol.api_keys import ApiKey
from protocol.errors import KafkaError
from protocol.messages import AlterConfigsRequest, AlterConfigsResponse

_Result = AlterConfigsResponse.AlterConfigsResourceResponse


@api(ApiKey.ALTER_CONFIGS, versions=(0, 2))
def handle(context: RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse:
    """Each resource on its own; durable and in force when the answer is sent."""
    times = Counter((resource.resource_type, resource.resource_name) for resource in request.resources)
    responses = []
    for resource in request.resources:
        kind, name = resource.resource_type, resource.resource_name
        configs = [(config.name, config.value) for config in resource.configs]
        result = _Result(resource_type=kind, resource_name=name, error_message=None)
        try:
            check_once(times[kind, name])
            check_configs(context.access, Operation.ALTER_CONFIGS, kind, name)
            replace_configs(context.services, kind, name, configs, validate_only=request.validate_only)
        except KafkaError as error:
            result.error_code, result.error_message = error.code, error.message
        responses.append(result)
    return AlterConfigsResponse(responses=responses)
