"""The REST application: search, topics, records, indexes, health and metrics, with its own documentation."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from broker.gateways.answer import render
from broker.gateways.answer_shape import SearchAnswer
from broker.gateways.authentication import NO_CREDENTIALS, HttpAuthentication, access_of, unauthorized
from broker.gateways.body import SearchBody
from broker.gateways.documents import NO_PARAMETERS, ErrorAnswer, Health, Readiness, errors
from broker.gateways.errors import error_response, invalid, kafka_error_response
from broker.gateways.limit import RequestLimits
from broker.gateways.records import record_routes
from broker.gateways.topics import TopicPath, topic_routes
from broker.gateways.translate import search_request
from broker.gateways.vectors import vector_routes
from broker.security.access import ANONYMOUS
from protocol.errors import KafkaError

if TYPE_CHECKING:
    from broker.services import Services

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_READINESS = (
    "503 after a storage failure. It stays 200 while an index loads, because producing never waits for search; `search` says "
    "how that is: `off` (no topic has vectors), `loading`, `ready` (every partition with vectors can be searched)."
)
_CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}
_MESSAGES = {
    "extra_forbidden": "unknown field",
    "missing": "missing",
    "model_attributes_type": "expected a JSON object",
    "model_type": "expected a JSON object",
    "dict_type": "expected a JSON object",
}


def build_app(services: "Services") -> FastAPI:
    """Every route over one broker's services. Nothing is loaded from other hosts, /docs included."""
    app: FastAPI = FastAPIOffline(
        title="Senselog",
        summary="Search Kafka topics by meaning",
        version=_version(),
        docs_url="/docs",
        redoc_url=None,
        static_url="/docs/assets",
        favicon_url="data:,",
    )
    app.add_middleware(RequestLimits)
    app.add_middleware(HttpAuthentication, services=services)
    _handle_errors(app, services)
    _add_search(app, services)
    for routes in (topic_routes, record_routes, vector_routes):
        app.include_router(routes(services))
    _add_operations(app, services)
    return app


def _version() -> str:
    try:
        return version("senselog")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0"


def _handle_errors(app: FastAPI, services: "Services") -> None:
    def log(request: Request, error: str) -> None:
        client = request.client.host if request.client else None
        services.refusals.warning("request refused", client=client, path=request.url.path, error=error)

    @app.exception_handler(KafkaError)
    async def kafka_error(request: Request, error: KafkaError) -> Response:
        log(request, str(error))
        response = kafka_error_response(error)
        if response.status_code == 403 and access_of(request).principal == ANONYMOUS:
            return unauthorized(f"{error.message} {NO_CREDENTIALS}")
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid_body(request: Request, error: RequestValidationError) -> Response:
        details = [_detail(found) for found in error.errors()]
        content_type = request.headers.get("content-type", "")
        if details[0]["field"] == "" and "json" not in content_type:
            # Not read as JSON on purpose: a form on any web page could send that to a broker on localhost.
            details[0]["message"] = "send JSON with the header Content-Type: application/json"
        log(request, "{field}: {message}".format(**details[0]))
        return invalid(details)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "ERROR")
        return error_response(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}")

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        return error_response(500, "INTERNAL", f"an unexpected {type(error).__name__}; the broker's log has more")


def _detail(found: Any) -> dict[str, str]:
    """One of pydantic's findings, without its echo of the input, which may be no JSON (NaN) or very long."""
    parts = [str(part) for part in found["loc"][1:]]  # the first is "body"
    kind = found["type"]
    if kind == "json_invalid":
        return {"field": "", "message": f"not JSON: {found['ctx']['error']}", "type": kind}
    message = _MESSAGES.get(kind, str(found["msg"]).removeprefix("Value error, "))
    return {"field": ".".join(parts), "message": message, "type": kind}


def _add_search(app: FastAPI, services: "Services") -> None:
    @app.post(
        "/v1/topics/{topic}/search",
        tags=["search"],
        summary="Search a topic by meaning",
        responses={200: {"model": SearchAnswer}, **errors(404, 409, 422, 504)},
        dependencies=[NO_PARAMETERS],
    )
    async def search(topic: TopicPath, body: SearchBody, request: Request) -> JSONResponse:
        response = await services.search.search(search_request(topic, body), access_of(request))
        return JSONResponse(render(topic, response, batch=body.queries is not None))


def _add_operations(app: FastAPI, services: "Services") -> None:
    failed: dict[int | str, dict[str, Any]] = {503: {"model": ErrorAnswer, "description": "Storage has failed"}}
    metrics_text: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

    @app.get(
        "/healthz",
        tags=["operations"],
        summary="Is the process well? 503 after a storage failure",
        response_model=Health,
        responses=failed,
    )
    async def health() -> JSONResponse:
        return _health(services)

    @app.get(
        "/readyz",
        tags=["operations"],
        summary="Can it take requests?",
        description=_READINESS,
        response_model=Readiness,
        responses=failed,
    )
    async def ready() -> JSONResponse:
        return _health(services, search=services.search.readiness)

    @app.get(
        "/metrics",
        tags=["operations"],
        summary="Metrics in Prometheus's text format",
        response_class=PlainTextResponse,
        responses=metrics_text,
    )
    async def metrics() -> Response:
        return Response(services.metrics.exposition(), media_type=_PROMETHEUS)


def _health(services: "Services", **more: str) -> JSONResponse:
    """The gateway starts last, after recovery and the Kafka listener: reachable and not failed means ready."""
    failure = services.logs.failed
    if failure is not None:
        return error_response(503, "STORAGE_ERROR", f"storage failed: {failure}", retriable=True)
    return JSONResponse({"status": "ok", **more})
