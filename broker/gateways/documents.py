"""What every route says of itself in the OpenAPI document: its errors, and that it takes no parameters it does not name."""

from typing import Any, Literal

from fastapi import Depends, Request
from pydantic import BaseModel, Field

from protocol.errors import ErrorCode, KafkaError


class ErrorDetail(BaseModel):
    code: str = Field(examples=["UNKNOWN_TOPIC"])
    message: str = Field(examples=["there is no topic 'logs'"])
    retriable: bool
    details: Any = Field(None, description="kafka_code of an error that is Kafka's; the fields of a bad body")


class ErrorAnswer(BaseModel):
    """Every answer that is none."""

    error: ErrorDetail


class Health(BaseModel):
    status: Literal["ok"]


class Readiness(Health):
    search: Literal["off", "loading", "ready"]


_MEANING = {
    400: "A parameter or field that does not exist, does not fit or is over its limit; the message names it",
    401: "No or wrong credentials",
    403: "Not granted to this user",
    404: "No such topic, partition, record or model",
    408: "The body did not arrive in time",
    409: "Not in this state: it exists already, or has no vectors",
    413: "Larger than the limit",
    422: "A vector with NaN or infinity, or of another dimension than the index",
    429: "Over a quota, or too many requests at once; see Retry-After",
    503: "Not now: the index loads, the model or the storage does not answer; see Retry-After",
    504: "Not in the time given",
}
_ALWAYS = (400, 401, 403, 408, 413, 429, 503)


def errors(*more: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route: the errors any route can answer, and these."""
    return {status: {"model": ErrorAnswer, "description": _MEANING[status]} for status in sorted({*_ALWAYS, *more})}


def _no_parameters(request: Request) -> None:
    """As with a field of the body: a condition silently ignored gives wrong answers."""
    for name in request.query_params:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"{name[:100]!r}: unknown query parameter; there are none here")


NO_PARAMETERS = Depends(_no_parameters)
