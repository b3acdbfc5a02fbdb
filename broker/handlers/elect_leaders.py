"""ElectLeaders (43): the only node leads every partition already."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.services import Services
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import ElectLeadersRequest, ElectLeadersResponse

PREFERRED, UNCLEAN = 0, 1

_Topic = ElectLeadersResponse.ReplicaElectionResult
_Partition = ElectLeadersResponse.PartitionResult


@api(ApiKey.ELECT_LEADERS, versions=(0, 2))
def handle(context: RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse:
    """Null means every partition: then only those elected are listed, which are none."""
    services, asked = context.services, request.topic_partitions
    if request.election_type not in (PREFERRED, UNCLEAN):
        message = f"Unknown election type {request.election_type}"
        failed = [
            _Topic(topic=topic.topic, partition_result=_all(topic.partitions, ErrorCode.INVALID_REQUEST, message))
            for topic in asked or ()
        ]
        code = ErrorCode.NONE if asked == [] else ErrorCode.INVALID_REQUEST
        return ElectLeadersResponse(error_code=code, replica_election_results=failed)
    if not context.access.cluster(Operation.ALTER):
        code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        failed = [
            _Topic(topic=topic.topic, partition_result=_all(topic.partitions, code, code.text)) for topic in asked or ()
        ]
        return ElectLeadersResponse(error_code=code, replica_election_results=failed)
    if asked is None:
        every = [_Topic(topic=name, partition_result=[]) for name in services.topics.names()]
        return ElectLeadersResponse(replica_election_results=every)
    return ElectLeadersResponse(replica_election_results=[_elected(services, topic) for topic in asked])


def _all(partitions: list[int], code: ErrorCode, message: str) -> list[_Partition]:
    return [_Partition(partition_id=number, error_code=code, error_message=message) for number in partitions]


def _elected(services: Services, asked: ElectLeadersRequest.TopicPartitions) -> _Topic:
    topic = services.topics.get(asked.topic)
    results = []
    for number in asked.partitions:
        code, message = ErrorCode.ELECTION_NOT_NEEDED, "Leader election not needed for topic partition."
        if topic is None:
            code, message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such topic as {asked.topic}"
        elif not 0 <= number < len(topic.partitions):
            code, message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such partition as {asked.topic}-{number}"
        results.append(_Partition(partition_id=number, error_code=code, error_message=message))
    return _Topic(topic=asked.topic, partition_result=results)
