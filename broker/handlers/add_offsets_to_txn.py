"""AddOffsetsToTxn (25): a producer is about to commit offsets of a group as part of its transaction."""

from broker.context import RequestContext
from broker.deferred import Deferred
from broker.operations import Operation
from broker.producer_ids import ProducerIdAndEpoch
from broker.registry import api
from broker.transactions.transaction import CLASSIC
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import AddOffsetsToTxnRequest, AddOffsetsToTxnResponse

# Before, clients know INVALID_PRODUCER_EPOCH alone.
PRODUCER_FENCED_FROM = 2


@api(ApiKey.ADD_OFFSETS_TO_TXN, versions=(0, 4))
def handle(
    context: RequestContext, request: AddOffsetsToTxnRequest
) -> AddOffsetsToTxnResponse | Deferred[AddOffsetsToTxnResponse]:
    """Errors: 16, 30, 42, 49, 51, 53, 90 (47 before v2)."""
    if not context.access.transactional_id(Operation.WRITE, request.transactional_id):
        return AddOffsetsToTxnResponse(error_code=ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    if not context.access.group(Operation.READ, request.group_id):
        return AddOffsetsToTxnResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    transactions = context.services.transactions
    producer = ProducerIdAndEpoch(request.producer_id, request.producer_epoch)
    try:
        transactions.add_group(request.transactional_id, producer, request.group_id, CLASSIC)
    except KafkaError as error:
        fenced = error.code is ErrorCode.PRODUCER_FENCED and context.api_version < PRODUCER_FENCED_FROM
        return AddOffsetsToTxnResponse(error_code=ErrorCode.INVALID_PRODUCER_EPOCH if fenced else error.code)
    answer: Deferred[AddOffsetsToTxnResponse] = Deferred()
    transactions.when_durable(
        [request.transactional_id], lambda error: answer.resolve(AddOffsetsToTxnResponse(error_code=error))
    )
    return answer
