"""ConsumerGroupHeartbeat (68): joins a consumer group, keeps the session, tells a member what it has, lets it go (KIP-848).

v0 lets the broker choose the member id; v1 has the client choose it (KIP-1082) and adds subscriptions by regular expression.
"""

from functools import partial

from broker.context import RequestContext
from broker.coordinator.consumer_member import AWAY_EPOCH, JOINS_EPOCH, LEAVES_EPOCH
from broker.coordinator.group_state import JoiningClient
from broker.coordinator.names import is_too_long
from broker.deferred import Deferred
from broker.features import GROUP_VERSION
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse

MEMBER_ID_FROM = 1


@api(ApiKey.CONSUMER_GROUP_HEARTBEAT, versions=(0, 1))
def handle(
    context: RequestContext, request: ConsumerGroupHeartbeatRequest
) -> ConsumerGroupHeartbeatResponse | Deferred[ConsumerGroupHeartbeatResponse]:
    """Errors: 25, 35, 42, 69, 81, 82, 110, 111, 112, 128 as in Kafka; 16 when the group's state cannot be written."""
    if not context.services.features.level(GROUP_VERSION):
        code = ErrorCode.UNSUPPORTED_VERSION
        return ConsumerGroupHeartbeatResponse(error_code=code, error_message=code.text)
    if not context.access.group(Operation.READ, request.group_id):
        return ConsumerGroupHeartbeatResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED, error_message=None)
    if not all(context.access.topic(Operation.DESCRIBE, name) for name in request.subscribed_topic_names or ()):
        return ConsumerGroupHeartbeatResponse(error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED, error_message=None)
    try:
        _check(context, request)
    except KafkaError as error:
        return ConsumerGroupHeartbeatResponse(error_code=error.code, error_message=error.message)
    client = JoiningClient(
        context.client_id or "",
        "/" + context.client_host,
        context.api_version,
        partial(context.access.topic, Operation.DESCRIBE),
    )
    return context.services.groups.consumer_heartbeat(request, client)


def _check(context: RequestContext, request: ConsumerGroupHeartbeatRequest) -> None:
    """What is wrong with the request whatever the group; raises KafkaError with Kafka's texts."""
    epoch = request.member_epoch
    if context.api_version >= MEMBER_ID_FROM or epoch > JOINS_EPOCH or epoch == LEAVES_EPOCH:
        _require(request.member_id != "", "MemberId can't be empty.")
    _require(request.group_id != "", "GroupId can't be empty.")
    _require(request.instance_id != "", "InstanceId can't be empty.")
    _require(request.rack_id != "", "RackId can't be empty.")
    if epoch == JOINS_EPOCH:
        _require(request.rebalance_timeout_ms != -1, "RebalanceTimeoutMs must be provided in first request.")
        _require(request.topic_partitions == [], "TopicPartitions must be empty when (re-)joining.")
        subscribes = request.subscribed_topic_names is not None or request.subscribed_topic_regex is not None
        text = "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining."
        _require(subscribes, text)
    elif epoch == AWAY_EPOCH:
        _require(request.instance_id is not None, "InstanceId can't be null.")
    _require(epoch >= AWAY_EPOCH, "MemberEpoch is invalid.")
    supported = context.services.config.group_consumer_assignors
    if request.server_assignor is not None and request.server_assignor not in supported:
        reason = (
            f"ServerAssignor {request.server_assignor} is not supported. Supported assignors: {', '.join(supported)}"
        )
        raise KafkaError(ErrorCode.UNSUPPORTED_ASSIGNOR, reason)
    names = (request.group_id, request.member_id, request.instance_id, request.rack_id, request.subscribed_topic_regex)
    _require(not any(is_too_long(name or "") for name in names), "A name or expression is too long to be stored.")


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise KafkaError(ErrorCode.INVALID_REQUEST, text)
