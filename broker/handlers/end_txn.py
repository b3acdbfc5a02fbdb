"""EndTxn (26): commits or aborts a transaction; from v5 on its producer gets the next epoch (KIP-890)."""

from broker.context import RequestContext
from broker.deferred import Deferred
from broker.operations import Operation
from broker.producer_ids import ProducerIdAndEpoch
from broker.registry import api
from broker.transactions.transaction import CLASSIC, EPOCH_BUMPING
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import EndTxnRequest, EndTxnResponse

# Before, clients know INVALID_PRODUCER_EPOCH alone.
PRODUCER_FENCED_FROM = 2
EPOCH_BUMPING_FROM = 5


@api(ApiKey.END_TXN, versions=(0, 5))
def handle(context: RequestContext, request: EndTxnRequest) -> EndTxnResponse | Deferred[EndTxnResponse]:
    """All markers are durable before the answer leaves. Errors: 16, 42, 48, 49, 51, 53, 90 (47 before v2)."""
    if not context.access.transactional_id(Operation.WRITE, request.transactional_id):
        return EndTxnResponse(error_code=ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    transactions = context.services.transactions
    producer = ProducerIdAndEpoch(request.producer_id, request.producer_epoch)
    client_version = EPOCH_BUMPING if context.api_version >= EPOCH_BUMPING_FROM else CLASSIC
    try:
        producer = transactions.end(
            request.transactional_id, producer, commit=request.committed, client_version=client_version
        )
    except KafkaError as error:
        fenced = error.code is ErrorCode.PRODUCER_FENCED and context.api_version < PRODUCER_FENCED_FROM
        return EndTxnResponse(error_code=ErrorCode.INVALID_PRODUCER_EPOCH if fenced else error.code)
    response = EndTxnResponse(producer_id=producer.producer_id, producer_epoch=producer.producer_epoch)
    answer: Deferred[EndTxnResponse] = Deferred()
    transactions.when_durable(
        [request.transactional_id],
        lambda error: answer.resolve(EndTxnResponse(error_code=error) if error else response),
    )
    return answer
