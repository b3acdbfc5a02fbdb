"""Kafka's error codes as HTTP statuses, and the one shape of every error body."""

from typing import Any

from fastapi.responses import JSONResponse

from protocol.errors import ErrorCode, KafkaError
from vector.request import VectorsNotEnabled

_RETRY_AFTER_S = 1

_STATUS: dict[ErrorCode, tuple[int, str]] = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: (404, "UNKNOWN_TOPIC"),
    ErrorCode.UNKNOWN_TOPIC_ID: (404, "UNKNOWN_TOPIC"),
    ErrorCode.INVALID_TOPIC_EXCEPTION: (400, "INVALID_TOPIC"),
    ErrorCode.TOPIC_ALREADY_EXISTS: (409, "TOPIC_ALREADY_EXISTS"),
    ErrorCode.INVALID_PARTITIONS: (400, "INVALID_PARTITIONS"),
    ErrorCode.INVALID_RECORD: (400, "INVALID_RECORD"),
    ErrorCode.INVALID_TIMESTAMP: (400, "INVALID_TIMESTAMP"),
    ErrorCode.OFFSET_OUT_OF_RANGE: (400, "OFFSET_OUT_OF_RANGE"),
    ErrorCode.MESSAGE_TOO_LARGE: (413, "MESSAGE_TOO_LARGE"),
    ErrorCode.RECORD_LIST_TOO_LARGE: (413, "MESSAGE_TOO_LARGE"),
    ErrorCode.REQUEST_TIMED_OUT: (504, "TIMEOUT"),
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS: (503, "INDEX_LOADING"),
    ErrorCode.COORDINATOR_NOT_AVAILABLE: (503, "EMBEDDER_UNAVAILABLE"),
    ErrorCode.TOPIC_AUTHORIZATION_FAILED: (403, "NOT_AUTHORIZED"),
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED: (403, "NOT_AUTHORIZED"),
    ErrorCode.GROUP_AUTHORIZATION_FAILED: (403, "NOT_AUTHORIZED"),
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (403, "NOT_AUTHORIZED"),
    ErrorCode.INVALID_CONFIG: (400, "INVALID_CONFIG"),
    ErrorCode.INVALID_REQUEST: (400, "INVALID_ARGUMENT"),
    ErrorCode.POLICY_VIOLATION: (400, "OVER_LIMIT"),
    ErrorCode.KAFKA_STORAGE_ERROR: (503, "STORAGE_ERROR"),
    ErrorCode.OFFSET_NOT_AVAILABLE: (504, "FRESHNESS_TIMEOUT"),
    ErrorCode.THROTTLING_QUOTA_EXCEEDED: (429, "THROTTLED"),
    ErrorCode.RESOURCE_NOT_FOUND: (404, "NOT_FOUND"),
}


def error_response(
    status: int, code: str, message: str, *, retriable: bool = False, details: Any = None
) -> JSONResponse:
    """`{"error": {"code", "message", "retriable", "details"}}`."""
    body = {"error": _error(code, message, retriable=retriable, details=details)}
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if status in (429, 503) else None
    return JSONResponse(body, status, headers)


def _error(code: str, message: str, *, retriable: bool, details: Any) -> dict[str, Any]:
    return {"code": code, "message": message, "retriable": retriable, "details": details}


def kafka_error_response(error: KafkaError, **details: Any) -> JSONResponse:
    """The status search-api.md names for a Kafka error; 500 for one that nobody should meet."""
    status, _ = status_of(error)
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if status in (429, 503) else None
    return JSONResponse({"error": error_body(error, **details)}, status, headers)


def error_body(error: KafkaError, **details: Any) -> dict[str, Any]:
    """What stands under `error` for a Kafka error."""
    status, code = status_of(error)
    # A topic that does not exist is retriable to a Kafka client waiting for metadata, but not to a caller of REST.
    retriable = error.retriable and status != 404
    return _error(code, error.message, retriable=retriable, details={"kafka_code": int(error.code), **details})


def status_of(error: KafkaError) -> tuple[int, str]:
    """(HTTP status, the name that REST and gRPC give the error)."""
    if isinstance(error, VectorsNotEnabled):
        return 409, "VECTOR_DISABLED"
    if error.code is ErrorCode.INVALID_REQUEST and error.message.startswith("vector: "):
        if "infinite" in error.message:
            return 422, "NON_FINITE_VECTOR"
        if "dimensions" in error.message:
            return 422, "DIMENSION_MISMATCH"
    return _STATUS.get(error.code, (500, error.code.name))


def invalid(fields: list[dict[str, str]]) -> JSONResponse:
    """A body that does not fit; 422 for vectors that are one in form but hold NaN or infinity."""
    first = fields[0]
    message = f"{first['field']}: {first['message']}" if first["field"] else first["message"]
    status, code = (422, "NON_FINITE_VECTOR") if first["type"] == "finite_number" else (400, "INVALID_ARGUMENT")
    details = {"kafka_code": int(ErrorCode.INVALID_REQUEST), "fields": fields}
    return error_response(status, code, message, details=details)
