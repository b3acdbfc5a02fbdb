"""InitProducerId (22): ids for idempotent producers."""

from broker.context import RequestContext
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import InitProducerIdRequest, InitProducerIdResponse

NONE = -1


@api(ApiKey.INIT_PRODUCER_ID, versions=(0, 5))
def handle(context: RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse:
    """A new id with epoch 0. Transactions do not exist yet: a transactional id is refused with an error that ends the producer."""
    if request.transactional_id == "" or (request.producer_id == NONE) != (request.producer_epoch == NONE):
        return _failed(ErrorCode.INVALID_REQUEST)
    if request.transactional_id is not None:
        return _failed(ErrorCode.UNSUPPORTED_VERSION)
    try:
        return InitProducerIdResponse(producer_id=context.services.producer_ids.next(), producer_epoch=0)
    except OSError:
        return _failed(ErrorCode.COORDINATOR_NOT_AVAILABLE)  # retriable: space may come back


def _failed(code: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=code, producer_id=NONE, producer_epoch=NONE)
