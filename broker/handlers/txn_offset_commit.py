"""TxnOffsetCommit (28): offsets that count once the producer's transaction is committed. v3 members; v5 adds the group itself."""

from broker.context import RequestContext
from broker.coordinator.group_state import Committer
from broker.coordinator.offsets import metadata_fits
from broker.coordinator.records import CommittedOffset
from broker.deferred import Deferred
from broker.operations import Operation
from broker.producer_ids import ProducerIdAndEpoch
from broker.registry import api
from broker.transactions.transaction import EPOCH_BUMPING
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import TxnOffsetCommitRequest, TxnOffsetCommitResponse

ABORTABLE_FROM = 4
ADDS_GROUP_FROM = 5

_Partition = TxnOffsetCommitResponse.TxnOffsetCommitResponsePartition
_Accepted = list[tuple[_Partition, str, CommittedOffset]]


@api(ApiKey.TXN_OFFSET_COMMIT, versions=(0, 5))
def handle(
    context: RequestContext, request: TxnOffsetCommitRequest
) -> TxnOffsetCommitResponse | Deferred[TxnOffsetCommitResponse]:
    """Errors per partition: 3, 12, 16, 22, 24, 25, 29, 30, 42, 47, 48 (120 from v4 on), 49, 51, 53, 82.

    Fenced by the group's member and generation, never by its state: a rebalance must not end a transaction.
    """
    accepted: _Accepted = []
    refused = _refused(context, request)
    response = TxnOffsetCommitResponse(
        topics=[
            TxnOffsetCommitResponse.TxnOffsetCommitResponseTopic(
                name=topic.name,
                partitions=[
                    _checked(context, topic.name, partition, refused, accepted) for partition in topic.partitions
                ],
            )
            for topic in request.topics
            if topic.partitions
        ]
    )
    if not accepted:
        return response
    answer: Deferred[TxnOffsetCommitResponse] = Deferred()

    def respond(error: ErrorCode) -> None:
        for partition, _, _ in accepted:
            partition.error_code = error
        answer.resolve(response)

    producer = ProducerIdAndEpoch(request.producer_id, request.producer_epoch)
    error = _enter(context, request, producer)
    if error:
        respond(error)
        return answer
    committer = Committer(
        group_id=request.group_id,
        member_id=request.member_id,
        group_instance_id=request.group_instance_id,
        generation_id=request.generation_id,
        api_version=context.api_version,
        producer=producer,
    )
    offsets = [(topic, partition.partition_index, committed) for partition, topic, committed in accepted]
    context.services.groups.offsets.commit(committer, offsets).then(respond)
    return answer


def _refused(context: RequestContext, request: TxnOffsetCommitRequest) -> ErrorCode:
    """What holds for the whole request."""
    if not context.access.transactional_id(Operation.WRITE, request.transactional_id):
        return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    if not context.access.group(Operation.READ, request.group_id):
        return ErrorCode.GROUP_AUTHORIZATION_FAILED
    return ErrorCode.NONE


def _checked(
    context: RequestContext,
    name: str,
    partition: TxnOffsetCommitRequest.TxnOffsetCommitRequestPartition,
    refused: ErrorCode,
    accepted: _Accepted,
) -> _Partition:
    """The answer for one partition; without an error of its own it is added to `accepted`."""
    services, number = context.services, partition.partition_index
    topic = services.topics.get(name)
    error = refused
    if not error and not context.access.topic(Operation.READ, name):
        error = ErrorCode.TOPIC_AUTHORIZATION_FAILED
    elif not error and (topic is None or not 0 <= number < len(topic.partitions)):
        error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    elif not error and not metadata_fits(partition.committed_metadata, services.config.offset_metadata_max_bytes):
        error = ErrorCode.OFFSET_METADATA_TOO_LARGE
    answer = _Partition(partition_index=number, error_code=error)
    if not error and topic is not None:
        committed = CommittedOffset(
            offset=partition.committed_offset,
            leader_epoch=partition.committed_leader_epoch,
            metadata=partition.committed_metadata or "",
            commit_timestamp_ms=services.clock.time_ms(),
            topic_id=topic.topic_id,
        )
        accepted.append((answer, name, committed))
    return answer


def _enter(context: RequestContext, request: TxnOffsetCommitRequest, producer: ProducerIdAndEpoch) -> ErrorCode:
    """Makes the group part of the transaction (v5+), or asks whether it is; why it cannot."""
    transactions, version = context.services.transactions, context.api_version
    try:
        if version >= ADDS_GROUP_FROM:
            transactions.add_group(request.transactional_id, producer, request.group_id, EPOCH_BUMPING)
            return ErrorCode.NONE
        code = transactions.verify_group(request.transactional_id, producer, request.group_id)
    except KafkaError as error:
        if error.code is ErrorCode.PRODUCER_FENCED:
            return ErrorCode.INVALID_PRODUCER_EPOCH
        if error.code is ErrorCode.CONCURRENT_TRANSACTIONS and version < ADDS_GROUP_FROM:
            return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS  # retriable for clients that do not expect the other here
        return error.code
    if code is ErrorCode.TRANSACTION_ABORTABLE and version < ABORTABLE_FROM:
        return ErrorCode.INVALID_TXN_STATE
    return code
