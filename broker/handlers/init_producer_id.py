"""InitProducerId (22): ids for idempotent producers, and who takes over a transactional id."""

from broker.context import RequestContext
from broker.deferred import Deferred
from broker.operations import Operation
from broker.producer_ids import ProducerIdAndEpoch
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import InitProducerIdRequest, InitProducerIdResponse

NONE = -1
# Before, clients know INVALID_PRODUCER_EPOCH alone.
PRODUCER_FENCED_FROM = 4


@api(ApiKey.INIT_PRODUCER_ID, versions=(0, 5))
def handle(
    context: RequestContext, request: InitProducerIdRequest
) -> InitProducerIdResponse | Deferred[InitProducerIdResponse]:
    """With a transactional id the next epoch of its producer, or a new id with epoch 0. An open transaction is aborted."""
    if request.transactional_id == "" or (request.producer_id == NONE) != (request.producer_epoch == NONE):
        return _failed(ErrorCode.INVALID_REQUEST)
    if request.transactional_id is not None:
        return _init(context, request, request.transactional_id)
    access = context.access
    if not (access.cluster(Operation.IDEMPOTENT_WRITE) or access.any_topic(Operation.WRITE)):
        return _failed(ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    try:
        return InitProducerIdResponse(producer_id=context.services.producer_ids.next(), producer_epoch=0)
    except OSError:
        return _failed(ErrorCode.COORDINATOR_NOT_AVAILABLE)  # retriable: space may come back


def _init(
    context: RequestContext, request: InitProducerIdRequest, transactional_id: str
) -> InitProducerIdResponse | Deferred[InitProducerIdResponse]:
    if not context.access.transactional_id(Operation.WRITE, transactional_id):
        return _failed(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    expected = None
    if request.producer_id != NONE:
        expected = ProducerIdAndEpoch(request.producer_id, request.producer_epoch)
    transactions = context.services.transactions
    try:
        producer = transactions.init_producer_id(transactional_id, request.transaction_timeout_ms, expected)
    except KafkaError as error:
        fenced = error.code is ErrorCode.PRODUCER_FENCED and context.api_version < PRODUCER_FENCED_FROM
        return _failed(ErrorCode.INVALID_PRODUCER_EPOCH if fenced else error.code)
    response = InitProducerIdResponse(producer_id=producer.producer_id, producer_epoch=producer.producer_epoch)
    answer: Deferred[InitProducerIdResponse] = Deferred()
    transactions.when_durable([transactional_id], lambda error: answer.resolve(_failed(error) if error else response))
    return answer


def _failed(code: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=code, producer_id=NONE, producer_epoch=NONE)
