"""ListConfigResources (74): what has configs; kafka-configs.sh asks for it (KIP-1142)."""

from broker.configs.definition import ConfigResource
from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.services import Services
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import ListConfigResourcesRequest, ListConfigResourcesResponse


@api(ApiKey.LIST_CONFIG_RESOURCES, versions=(0, 1))
def handle(context: RequestContext, request: ListConfigResourcesRequest) -> ListConfigResourcesResponse:
    """Version 0 knows client metrics only; from version 1 no types asked for means all."""
    if not context.access.cluster(Operation.DESCRIBE_CONFIGS):
        return ListConfigResourcesResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    if context.api_version == 0:
        kinds = [ConfigResource.CLIENT_METRICS]
    elif set(request.resource_types) <= set(ConfigResource):
        kinds = [kind for kind in ConfigResource if kind in request.resource_types or not request.resource_types]
    else:
        return ListConfigResourcesResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
    return ListConfigResourcesResponse(
        config_resources=[
            ListConfigResourcesResponse.ConfigResource(resource_name=name, resource_type=kind)
            for kind in kinds
            for name in _names(context.services, kind)
        ]
    )


def _names(services: Services, kind: ConfigResource) -> list[str]:
    if kind is ConfigResource.TOPIC:
        return services.topics.names()
    if kind in (ConfigResource.BROKER, ConfigResource.BROKER_LOGGER):
        return [str(services.node_id)]
    return list(services.topics.resource_configs(kind))
