"""DescribeLogDirs (35): the sizes of partitions in the one data directory."""

import shutil

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.services import Services
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import DescribeLogDirsRequest, DescribeLogDirsResponse


@api(ApiKey.DESCRIBE_LOG_DIRS, versions=(1, 5))
def handle(context: RequestContext, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse:
    """Null topics means all; what is unknown is left out, as in Kafka."""
    if not context.access.cluster(Operation.DESCRIBE):
        return DescribeLogDirsResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    services = context.services
    space = shutil.disk_usage(services.config.data_dir)
    directory = DescribeLogDirsResponse.DescribeLogDirsResult(
        log_dir=str(services.config.data_dir),
        topics=[_topic(services, name, numbers) for name, numbers in _asked(services, request).items() if numbers],
        total_bytes=space.total,
        usable_bytes=space.free,
    )
    return DescribeLogDirsResponse(results=[directory])


def _asked(services: Services, request: DescribeLogDirsRequest) -> dict[str, list[int]]:
    if request.topics is None:
        return {topic.name: list(range(len(topic.partitions))) for topic in services.topics}
    wanted: dict[str, set[int]] = {}
    for asked in request.topics:
        topic = services.topics.get(asked.topic)
        known = range(0 if topic is None else len(topic.partitions))
        wanted.setdefault(asked.topic, set()).update(number for number in asked.partitions if number in known)
    return {name: sorted(numbers) for name, numbers in wanted.items()}


def _topic(services: Services, name: str, numbers: list[int]) -> DescribeLogDirsResponse.DescribeLogDirsTopic:
    topic = services.topics.get(name)
    assert topic is not None
    return DescribeLogDirsResponse.DescribeLogDirsTopic(
        name=name,
        partitions=[
            DescribeLogDirsResponse.DescribeLogDirsPartition(
                partition_index=number, partition_size=topic.partitions[number].size_bytes
            )
            for number in numbers
        ],
    )
