"""DescribeQuorum (55): who agrees on the cluster's metadata. One node agrees with itself; kafka-metadata-quorum.sh asks (KIP-595)."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import DescribeQuorumRequest, DescribeQuorumResponse

METADATA_TOPIC = "__cluster_metadata"
LISTENER = "CONTROLLER"

_Topic = DescribeQuorumResponse.TopicData
_Partition = DescribeQuorumResponse.PartitionData
_Asked = DescribeQuorumRequest.TopicData


@api(ApiKey.DESCRIBE_QUORUM, versions=(0, 2))
def handle(context: RequestContext, request: DescribeQuorumRequest) -> DescribeQuorumResponse:
    """Answers for partition 0 of the metadata topic alone, as Kafka does; whatever else is asked is UNKNOWN_TOPIC_OR_PARTITION."""
    if not context.access.cluster(Operation.DESCRIBE):
        code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        return DescribeQuorumResponse(error_code=code, error_message=code.text)
    asked = [(topic.topic_name, part.partition_index) for topic in request.topics for part in topic.partitions]
    if asked != [(METADATA_TOPIC, 0)] or len(request.topics) > 1:
        return DescribeQuorumResponse(topics=[_unknown(topic) for topic in request.topics])
    services = context.services
    voter = DescribeQuorumResponse.ReplicaState(
        replica_id=services.node_id,
        log_end_offset=services.topics.revision,
        last_fetch_timestamp=services.clock.time_ms(),
        last_caught_up_timestamp=services.clock.time_ms(),
    )
    partition = _Partition(
        leader_id=services.node_id, high_watermark=services.topics.revision, current_voters=[voter], observers=[]
    )
    host, port = context.connection.advertised
    node = DescribeQuorumResponse.Node(
        node_id=services.node_id,
        listeners=[DescribeQuorumResponse.Listener(name=LISTENER, host=host, port=port)],
    )
    return DescribeQuorumResponse(topics=[_Topic(topic_name=METADATA_TOPIC, partitions=[partition])], nodes=[node])


def _unknown(topic: _Asked) -> _Topic:
    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return _Topic(
        topic_name=topic.topic_name,
        partitions=[
            _Partition(partition_index=asked.partition_index, error_code=code, error_message=code.text)
            for asked in topic.partitions
        ],
    )
