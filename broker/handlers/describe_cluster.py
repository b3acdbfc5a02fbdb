"""DescribeCluster (60): one node."""

from broker.context import RequestContext
from broker.operations import NOT_ASKED
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import DescribeClusterRequest, DescribeClusterResponse

BROKERS, CONTROLLERS = 1, 2


@api(ApiKey.DESCRIBE_CLUSTER, versions=(0, 2))
def handle(context: RequestContext, request: DescribeClusterRequest) -> DescribeClusterResponse:
    """Of the endpoint types only brokers can be asked for here (KIP-919)."""
    services = context.services
    if request.endpoint_type == CONTROLLERS:
        return DescribeClusterResponse(
            error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE,
            error_message="The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
        )
    if request.endpoint_type != BROKERS:
        return DescribeClusterResponse(
            error_code=ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
            error_message=f"Unsupported endpoint type {request.endpoint_type}",
        )
    host, port = context.connection.advertised
    broker = DescribeClusterResponse.DescribeClusterBroker(broker_id=services.node_id, host=host, port=port)
    return DescribeClusterResponse(
        endpoint_type=BROKERS,
        cluster_id=services.cluster_id,
        controller_id=services.node_id,
        brokers=[broker],
        cluster_authorized_operations=context.access.cluster_operations()
        if request.include_cluster_authorized_operations
        else NOT_ASKED,
    )
