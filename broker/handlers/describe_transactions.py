"""DescribeTransactions (65): the state of transactional ids (KIP-664)."""

from broker.context import RequestContext
from broker.deferred import Deferred
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import DescribeTransactionsRequest, DescribeTransactionsResponse

_State = DescribeTransactionsResponse.TransactionState
_Topic = DescribeTransactionsResponse.TopicData


@api(ApiKey.DESCRIBE_TRANSACTIONS, versions=(0, 0))
def handle(context: RequestContext, request: DescribeTransactionsRequest) -> Deferred[DescribeTransactionsResponse]:
    """Each id on its own; errors: 16, 42, 53, 105. Topics that the client may not see are left out."""
    states = [_described(context, transactional_id) for transactional_id in request.transactional_ids]
    answer: Deferred[DescribeTransactionsResponse] = Deferred()

    def respond(error: ErrorCode) -> None:
        known = [_State(transactional_id=one.transactional_id, error_code=error) for one in states] if error else states
        answer.resolve(DescribeTransactionsResponse(transaction_states=known))

    context.services.transactions.when_durable(request.transactional_ids, respond)
    return answer


def _described(context: RequestContext, transactional_id: str) -> _State:
    if not context.access.transactional_id(Operation.DESCRIBE, transactional_id):
        return _State(transactional_id=transactional_id, error_code=ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    if not transactional_id:
        return _State(error_code=ErrorCode.INVALID_REQUEST)
    transaction = context.services.transactions.transaction(transactional_id)
    if transaction is None:
        return _State(transactional_id=transactional_id, error_code=ErrorCode.TRANSACTIONAL_ID_NOT_FOUND)
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(transaction.partitions):
        if context.access.topic(Operation.DESCRIBE, topic):
            by_topic.setdefault(topic, []).append(partition)
    return _State(
        transactional_id=transactional_id,
        transaction_state=transaction.state.label,
        transaction_timeout_ms=transaction.timeout_ms,
        transaction_start_time_ms=transaction.start_ms,
        producer_id=transaction.producer_id,
        producer_epoch=transaction.producer_epoch,
        topics=[_Topic(topic=topic, partitions=partitions) for topic, partitions in by_topic.items()],
    )
