"""ListTransactions (66): transactional ids by state and producer; v1 by how long they run, v2 by a pattern (KIP-664, KIP-1152)."""

from broker.context import RequestContext
from broker.coordinator.topic_pattern import matching_topics
from broker.deferred import Deferred
from broker.operations import Operation
from broker.registry import api
from broker.transactions.transaction import Transaction, TransactionState
from protocol.api_keys import ApiKey
from protocol.errors import KafkaError
from protocol.messages import ListTransactionsRequest, ListTransactionsResponse

_STATES = {state.label: state for state in TransactionState}


@api(ApiKey.LIST_TRANSACTIONS, versions=(0, 2))
def handle(
    context: RequestContext, request: ListTransactionsRequest
) -> ListTransactionsResponse | Deferred[ListTransactionsResponse]:
    """Those that the client may describe and that pass every filter; errors: 16, 128."""
    transactions = context.services.transactions
    found = [one for one in transactions.transactions() if _passes(context, request, one)]
    if request.transactional_id_pattern:
        try:
            matching = matching_topics(request.transactional_id_pattern, [one.transactional_id for one in found])
        except KafkaError as error:
            return ListTransactionsResponse(error_code=error.code)
        found = [one for one in found if one.transactional_id in matching]
    response = ListTransactionsResponse(
        unknown_state_filters=[name for name in request.state_filters if name not in _STATES],
        transaction_states=[
            ListTransactionsResponse.TransactionState(
                transactional_id=one.transactional_id,
                producer_id=one.producer_id,
                transaction_state=one.state.label,
            )
            for one in found
        ],
    )
    answer: Deferred[ListTransactionsResponse] = Deferred()
    transactions.when_durable(
        [one.transactional_id for one in found],
        lambda error: answer.resolve(ListTransactionsResponse(error_code=error) if error else response),
    )
    return answer


def _passes(context: RequestContext, request: ListTransactionsRequest, transaction: Transaction) -> bool:
    if request.producer_id_filters and transaction.producer_id not in request.producer_id_filters:
        return False
    if request.state_filters and transaction.state.label not in request.state_filters:
        return False
    running_ms = context.services.clock.time_ms() - transaction.start_ms
    if request.duration_filter >= 0 and running_ms <= request.duration_filter:
        return False
    return context.access.transactional_id(Operation.DESCRIBE, transaction.transactional_id)
