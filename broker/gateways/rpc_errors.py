"""Kafka's errors as gRPC's: a status, and google.rpc details that say which field, which Kafka code, and when to try again."""

from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from broker.gateways.errors import error_body, status_of
from protocol.errors import ErrorCode, KafkaError

DOMAIN = "senselog"
DETAILS_KEY = "grpc-status-details-bin"
RETRY_DELAY_S = 1
_BY_NAME = {
    "OFFSET_OUT_OF_RANGE": grpc.StatusCode.OUT_OF_RANGE,
    "TOPIC_ALREADY_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
}
_BY_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


async def abort(context: Any, error: KafkaError) -> NoReturn:
    """Ends the call with the error, in the words of REST."""
    status, name = status_of(error)
    code = _BY_NAME.get(name) or _BY_STATUS.get(status, grpc.StatusCode.INTERNAL)
    rich = status_pb2.Status(code=code.value[0], message=error.message, details=_details(error, code))
    await context.abort(code, error.message, ((DETAILS_KEY, rich.SerializeToString()),))
    raise AssertionError("abort returns to nobody")


def _details(error: KafkaError, code: grpc.StatusCode) -> list[AnyMessage]:
    body = error_body(error)
    metadata = {"kafka_code": str(int(error.code)), "retriable": str(body["retriable"]).lower()}
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=body["code"], domain=DOMAIN, metadata=metadata)]
    field, separator, reason = error.message.partition(": ")
    if code is grpc.StatusCode.INVALID_ARGUMENT and separator and error.code is not ErrorCode.INVALID_CONFIG:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=reason)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if body["retriable"]:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = RETRY_DELAY_S
        details.append(retry)
    packed = []
    for detail in details:
        message = AnyMessage()
        message.Pack(detail)
        packed.append(message)
    return packed
