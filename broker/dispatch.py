"""From a request frame to its handler and back: the one place where bytes become messages."""

import asyncio
import struct
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import structlog

from broker.context import CloseConnection, RequestContext
from broker.deferred import Deferred
from broker.metrics import LATENCY_SAMPLE_EVERY
from broker.net import Client
from broker.registry import Api
from broker.services import Services
from protocol.api_keys import ApiKey
from protocol.codec import decode_request, encode_response, flexible
from protocol.connection import Buffer, PendingResponse
from protocol.errors import ErrorCode, MalformedMessage
from protocol.headers import decode_request_header
from protocol.messages import ApiVersionsResponse

_HEADER = struct.Struct(">hhih")
_RESPONSE_HEADER = struct.Struct(">ii")
CLIENT_ID_POSITION = 10

logger = structlog.get_logger(__name__)


class _Route:
    """What dispatch needs of one (API, version), looked up once."""

    __slots__ = ("api", "flexible", "overlapping", "response_header", "version")

    def __init__(self, api: Api, version: int) -> None:
        self.api = api
        self.version = version
        self.flexible = flexible(api.key, version)
        # ApiVersions answers with header v0 in every version, so that an old client can read it (KIP-511).
        self.response_header = b"\0" if self.flexible and api.key != ApiKey.API_VERSIONS else b""
        self.overlapping = api.key == ApiKey.PRODUCE


class _Request:
    """A request whose response comes later."""

    __slots__ = ("correlation_id", "dispatcher", "pending", "route", "started")

    def __init__(
        self, dispatcher: "Dispatcher", route: _Route, correlation_id: int, pending: PendingResponse, started: float
    ) -> None:
        self.dispatcher = dispatcher
        self.route = route
        self.correlation_id = correlation_id
        self.pending = pending
        self.started = started

    def respond(self, message: Any) -> None:
        """Encodes and queues the response; None: this request has none."""
        if message is None:
            self.pending.complete(())
        else:
            self.pending.complete(self.dispatcher.encode(self.route, self.correlation_id, message))
        if self.started:
            self.dispatcher.observe(self.route, self.started)


class Dispatcher:
    """Decodes requests, calls their handlers, encodes responses."""

    def __init__(self, services: Services, apis: Mapping[int, Api], loop: asyncio.AbstractEventLoop) -> None:
        self._services = services
        self._apis = apis
        self._loop = loop
        self._metrics = services.metrics
        self._routes: dict[int, _Route] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0

    def dispatch(self, frame: memoryview, client: Client) -> None:
        """Handles one request; raises CloseConnection when it cannot be answered."""
        if len(frame) < CLIENT_ID_POSITION:
            raise CloseConnection(f"a frame of {len(frame)} bytes is no request")
        key, version, correlation_id, client_id_length = _HEADER.unpack_from(frame)
        route = self._routes.get(key << 16 | version & 0xFFFF) or self._route(key, version)
        if route is None:
            self._send_unsupported_version(frame, correlation_id, client)
            return
        self._metrics.requests[key] += 1
        self._count += 1
        started = 0.0 if self._count % LATENCY_SAMPLE_EVERY else self._loop.time()
        try:
            position = CLIENT_ID_POSITION + client_id_length if client_id_length > 0 else CLIENT_ID_POSITION
            if route.flexible:
                position = position + 1 if not frame[position] else decode_request_header(frame).body_position
            raw_client_id = frame[CLIENT_ID_POSITION : CLIENT_ID_POSITION + max(client_id_length, 0)]
            if client.client_id_cache[0] != raw_client_id or client_id_length < 0:
                self._cache_client_id(client, raw_client_id, client_id_length)
            request = decode_request(route.api.key, version, frame, position)
        except (MalformedMessage, struct.error, IndexError, UnicodeDecodeError) as error:
            raise CloseConnection(f"malformed {route.api.key.name} v{version}: {error}") from None
        context = RequestContext(self._services, version, client.client_id_cache[1], client.client_host, client)
        try:
            result = route.api.handle(context, request)
        except CloseConnection:
            raise
        except Exception:
            logger.exception("handler failed", api=route.api.key.name, version=version, client=client.client_host)
            raise CloseConnection(f"{route.api.key.name} v{version} failed") from None
        self._respond(route, correlation_id, result, client, started)

    def _respond(self, route: _Route, correlation_id: int, result: Any, client: Client, started: float) -> None:
        connection = client.connection
        if isinstance(result, Deferred):
            request = _Request(self, route, correlation_id, connection.expect(route.overlapping), started)
            result.then(request.respond)
        elif isinstance(result, Coroutine):
            request = _Request(self, route, correlation_id, connection.expect(route.overlapping), started)
            task = self._loop.create_task(self._await(request, result, client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif result is not None:
            buffers = self.encode(route, correlation_id, result)
            if connection.has_pending:
                connection.expect(route.overlapping).complete(buffers)
            else:
                connection.send(buffers)
            if started:
                self.observe(route, started)

    async def _await(self, request: _Request, work: Coroutine[Any, Any, Any], client: Client) -> None:
        try:
            request.respond(await work)
        except Exception:
            logger.exception("handler failed", api=request.route.api.key.name, client=client.client_host)
            client.close("handler failed")

    def encode(self, route: _Route, correlation_id: int, message: Any) -> Sequence[Buffer]:
        """The response's whole frame."""
        code = getattr(message, "error_code", 0)
        if code:
            self._metrics.errors[route.api.key, code] += 1
        body = encode_response(route.api.key, route.version, message)
        size = 4 + len(route.response_header)
        for buffer in body:
            size += len(buffer)
        head = _RESPONSE_HEADER.pack(size, correlation_id) + route.response_header
        if len(body) == 1:
            return (head + body[0],)
        return (head, *body)

    def observe(self, route: _Route, started: float) -> None:
        self._metrics.observe_latency(route.api.key, self._loop.time() - started)

    async def stop(self) -> None:
        """Cancels requests that are still worked on."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _route(self, key: int, version: int) -> _Route | None:
        """Raises CloseConnection for what we do not speak; None: ApiVersions in a version that we do not know."""
        api = self._apis.get(key)
        if api is None:
            raise CloseConnection(f"unknown API key {key}")
        if not api.min_version <= version <= api.max_version:
            if key == ApiKey.API_VERSIONS:
                return None
            raise CloseConnection(f"unsupported {api.key.name} v{version}")
        route = self._routes[key << 16 | version & 0xFFFF] = _Route(api, version)
        return route

    def _send_unsupported_version(self, frame: memoryview, correlation_id: int, client: Client) -> None:
        """KIP-511: the body is not parsed; the answer is in version 0 and lists ApiVersions alone."""
        api = self._apis[ApiKey.API_VERSIONS]
        client_id_length = _HEADER.unpack_from(frame)[3]
        if CLIENT_ID_POSITION + max(client_id_length, 0) >= len(frame):
            raise CloseConnection("malformed header of ApiVersions")  # no tags, though every later version has them
        row = ApiVersionsResponse.ApiVersion(
            api_key=api.key, min_version=api.advertised_from, max_version=api.max_version
        )
        message = ApiVersionsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=[row])
        client.connection.send(self.encode(_Route(api, 0), correlation_id, message))

    def _cache_client_id(self, client: Client, raw: memoryview, length: int) -> None:
        data = bytes(raw)
        if len(data) < length:
            raise MalformedMessage(f"client id of {length} bytes in {len(data)}")
        client.client_id_cache = (data, data.decode("utf-8", "replace") if length >= 0 else None)
