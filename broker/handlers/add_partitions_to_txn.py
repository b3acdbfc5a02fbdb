"""AddPartitionsToTxn (24): v0-3 what one producer is about to write to; v4+ many producers', or only whether they have said so.

Kafka's brokers alone send v4 and v5 to each other; some clients do so too, and are checked like all others.
"""

from collections.abc import Iterable, Mapping, Sequence

from broker.context import RequestContext
from broker.deferred import Deferred
from broker.operations import Operation
from broker.producer_ids import ProducerIdAndEpoch
from broker.registry import api
from broker.transactions.transaction import CLASSIC, EPOCH_BUMPING, Partition
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import AddPartitionsToTxnRequest, AddPartitionsToTxnResponse

BATCHED_FROM = 4
# Before, clients know INVALID_PRODUCER_EPOCH alone.
PRODUCER_FENCED_FROM = 2

_Topics = Iterable[AddPartitionsToTxnRequest.AddPartitionsToTxnTopic]
_TopicResult = AddPartitionsToTxnResponse.AddPartitionsToTxnTopicResult


@api(ApiKey.ADD_PARTITIONS_TO_TXN, versions=(0, 5))
def handle(context: RequestContext, request: AddPartitionsToTxnRequest) -> Deferred[AddPartitionsToTxnResponse]:
    """All of a transaction's partitions, or none: OPERATION_NOT_ATTEMPTED where another one was wrong."""
    if context.api_version >= BATCHED_FROM:
        return _batched(context, request)
    answer: Deferred[AddPartitionsToTxnResponse] = Deferred()
    transactional_id, topics = request.v3_and_below_transactional_id, request.v3_and_below_topics
    producer = ProducerIdAndEpoch(request.v3_and_below_producer_id, request.v3_and_below_producer_epoch)
    codes = _add(context, transactional_id, producer, topics, CLASSIC)

    def respond(error: ErrorCode) -> None:
        results = _results(topics, _unless(error, codes))
        answer.resolve(AddPartitionsToTxnResponse(results_by_topic_v3_and_below=results))

    context.services.transactions.when_durable([transactional_id], respond)
    return answer


def _batched(context: RequestContext, request: AddPartitionsToTxnRequest) -> Deferred[AddPartitionsToTxnResponse]:
    answer: Deferred[AddPartitionsToTxnResponse] = Deferred()
    if not context.access.cluster(Operation.CLUSTER_ACTION):
        answer.resolve(AddPartitionsToTxnResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED))
        return answer
    results = []
    for transaction in request.transactions:
        producer = ProducerIdAndEpoch(transaction.producer_id, transaction.producer_epoch)
        act = _verify if transaction.verify_only else _add
        codes = act(context, transaction.transactional_id, producer, transaction.topics, EPOCH_BUMPING)
        results.append((transaction, codes))

    def respond(error: ErrorCode) -> None:
        answer.resolve(
            AddPartitionsToTxnResponse(
                results_by_transaction=[
                    AddPartitionsToTxnResponse.AddPartitionsToTxnResult(
                        transactional_id=transaction.transactional_id,
                        topic_results=_results(transaction.topics, _unless(error, codes)),
                    )
                    for transaction, codes in results
                ]
            )
        )

    context.services.transactions.when_durable([one.transactional_id for one in request.transactions], respond)
    return answer


def _add(
    context: RequestContext, transactional_id: str, producer: ProducerIdAndEpoch, topics: _Topics, client_version: int
) -> dict[Partition, ErrorCode]:
    partitions = _partitions(topics)
    codes = _checked(context, transactional_id, partitions)
    if any(codes.values()):
        return {partition: code or ErrorCode.OPERATION_NOT_ATTEMPTED for partition, code in codes.items()}
    try:
        context.services.transactions.add_partitions(transactional_id, producer, partitions, client_version)
    except KafkaError as error:
        return dict.fromkeys(partitions, _known(context, error.code))
    return codes


def _verify(
    context: RequestContext, transactional_id: str, producer: ProducerIdAndEpoch, topics: _Topics, _client_version: int
) -> dict[Partition, ErrorCode]:
    partitions = _partitions(topics)
    codes = _checked(context, transactional_id, partitions)
    if any(codes.values()):
        return codes
    try:
        return context.services.transactions.verify(transactional_id, producer, partitions)
    except KafkaError as error:
        return dict.fromkeys(partitions, error.code)


def _checked(
    context: RequestContext, transactional_id: str, partitions: Sequence[Partition]
) -> dict[Partition, ErrorCode]:
    """What is wrong with each partition before the coordinator is asked; v4+ needs CLUSTER_ACTION and nothing else."""
    by_broker = context.api_version >= BATCHED_FROM
    if not by_broker and not context.access.transactional_id(Operation.WRITE, transactional_id):
        return dict.fromkeys(partitions, ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    codes = {}
    for topic, number in partitions:
        code = ErrorCode.NONE
        if not by_broker and not context.access.topic(Operation.WRITE, topic):
            code = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        else:
            known = context.services.topics.get(topic)
            if known is None or not 0 <= number < len(known.partitions):
                code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        codes[topic, number] = code
    return codes


def _known(context: RequestContext, code: ErrorCode) -> ErrorCode:
    fenced = code is ErrorCode.PRODUCER_FENCED and context.api_version < PRODUCER_FENCED_FROM
    return ErrorCode.INVALID_PRODUCER_EPOCH if fenced else code


def _partitions(topics: _Topics) -> list[Partition]:
    return [(topic.name, number) for topic in topics for number in topic.partitions]


def _unless(error: ErrorCode, codes: Mapping[Partition, ErrorCode]) -> Mapping[Partition, ErrorCode]:
    return {partition: code or error for partition, code in codes.items()} if error else codes


def _results(topics: _Topics, codes: Mapping[Partition, ErrorCode]) -> list[_TopicResult]:
    return [
        _TopicResult(
            name=topic.name,
            results_by_partition=[
                AddPartitionsToTxnResponse.AddPartitionsToTxnPartitionResult(
                    partition_index=number, partition_error_code=codes[topic.name, number]
                )
                for number in topic.partitions
            ],
        )
        for topic in topics
    ]
