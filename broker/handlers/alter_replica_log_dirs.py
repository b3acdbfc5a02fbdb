"""AlterReplicaLogDirs (34): there is one data directory, so partitions are where they can be."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse

_Topic = AlterReplicaLogDirsResponse.AlterReplicaLogDirTopicResult
_Partition = AlterReplicaLogDirsResponse.AlterReplicaLogDirPartitionResult


@api(ApiKey.ALTER_REPLICA_LOG_DIRS, versions=(1, 2))
def handle(context: RequestContext, request: AlterReplicaLogDirsRequest) -> AlterReplicaLogDirsResponse:
    """Moving to the data directory is done already; other directories do not exist."""
    results: dict[str, list[_Partition]] = {}
    for directory in request.dirs:
        for topic in directory.topics:
            for number in topic.partitions:
                code = _moved(context, directory.path, topic.name, number)
                results.setdefault(topic.name, []).append(_Partition(partition_index=number, error_code=code))
    return AlterReplicaLogDirsResponse(
        results=[_Topic(topic_name=name, partitions=partitions) for name, partitions in results.items()]
    )


def _moved(context: RequestContext, path: str, name: str, number: int) -> ErrorCode:
    if not context.access.cluster(Operation.ALTER):
        return ErrorCode.CLUSTER_AUTHORIZATION_FAILED
    if path != str(context.services.config.data_dir):
        return ErrorCode.LOG_DIR_NOT_FOUND
    try:
        context.services.topics.log(name, number)
    except KafkaError as error:
        return error.code
    return ErrorCode.NONE
