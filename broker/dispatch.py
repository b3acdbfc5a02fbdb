"""From a request frame to its handler and back: the one place where bytes become messages."""

import asyncio
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import CoroutineType, MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import structlog

from broker.context import CloseConnection, RequestContext, RequestHead
from broker.deferred import Deferred
from broker.metrics import LATENCY_SAMPLE_EVERY
from broker.net import Client
from broker.registry import Api
from broker.security.quotas import NO_QUOTAS, Quotas
from broker.services import Services
from broker.throttle import Throttle
from protocol.api_keys import ApiKey
from protocol.codec import flexible, request_decoder, response_encoder
from protocol.connection import Buffer, PendingResponse
from protocol.errors import ErrorCode, MalformedMessage
from protocol.headers import decode_request_header
from protocol.messages import ApiVersionsResponse, FetchResponse, message_class

_unpack_header = struct.Struct(">Ii").unpack_from  # API key and version as one number, correlation id
_KEY_AND_VERSION = struct.Struct(">hh")
_RESPONSE_HEADER = struct.Struct(">ii")
CLIENT_ID_LENGTH_POSITION = 8
CORRELATION_ID_BYTES = 4

Shortcut: TypeAlias = Callable[[memoryview, int, Client, Callable[[], None] | None], bool]
"""Takes a request (frame, correlation id, client, what to call once it is answered) past the codec, or leaves it: False."""

logger = structlog.get_logger(__name__)


class Route:
    """What dispatch needs of one (API, version), looked up once."""

    __slots__ = (
        "decode", "encode", "handle", "has_error_code", "key", "name", "overlapping", "response_header", "shortcut",
        "version",
    )  # fmt: skip

    def __init__(self, api: Api, version: int, shortcut: Shortcut | None = None) -> None:
        self.shortcut = shortcut
        self.key = int(api.key)
        self.name = api.key.name
        self.handle = api.handle
        self.version = version
        self.decode = request_decoder(api.key, version)
        self.encode = response_encoder(api.key, version)
        # ApiVersions answers with header v0 in every version, so that an old client can read it (KIP-511).
        self.response_header = b"\0" if flexible(api.key, version) and api.key != ApiKey.API_VERSIONS else b""
        self.overlapping = api.key == ApiKey.PRODUCE
        self.has_error_code = "error_code" in message_class(f"{api.key.message_name}Response").FIELDS


class Incoming(NamedTuple):
    """A request on its way to who answers it."""

    route: Route
    correlation_id: int
    context: RequestContext
    request: Any


class _Pending(PendingResponse):
    """A request whose response comes later."""

    __slots__ = ("_client", "_correlation_id", "_dispatcher", "_route", "_started", "_throttle")

    def __init__(
        self,
        client: Client,
        dispatcher: "Dispatcher",
        route: Route,
        correlation_id: int,
        started: float,
        throttle: Throttle | None = None,
    ) -> None:
        super().__init__(client.connection, route.overlapping)
        self._client = client
        self._dispatcher = dispatcher
        self._route = route
        self._correlation_id = correlation_id
        self._started = started
        self._throttle = throttle

    def respond(self, message: Any) -> None:
        """Encodes and queues the response; None: this request has none. Raises nothing: logs, storage call it."""
        throttle = self._throttle
        try:
            if throttle is not None:
                buffers = self._dispatcher.encode_throttled(
                    self._route, self._correlation_id, message, self._client, throttle
                )
            elif message is None:
                buffers = ()
            else:
                buffers = self._dispatcher.encode(self._route, self._correlation_id, message)
        except Exception:
            self._dispatcher.give_up(self._route, self._client)
            return
        self.complete(buffers)
        if self._started and message is not None:
            self._dispatcher.observe(self._route, self._started)


class Dispatcher:
    """Decodes requests, calls their handlers, encodes responses."""

    def __init__(
        self,
        services: Services,
        apis: Mapping[int, Api],
        loop: asyncio.AbstractEventLoop,
        shortcuts: Mapping[tuple[int, int], Shortcut] = MappingProxyType({}),
        quotas: Quotas = NO_QUOTAS,
    ) -> None:
        """`shortcuts` by API key and version."""
        self._services = services
        self._apis = apis
        self._shortcuts = shortcuts
        self._loop = loop
        self._quotas = quotas
        self._metrics = services.metrics
        self._routes: dict[int, Route] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def dispatch(self, frame: memoryview, client: Client) -> None:
        """Handles one request; raises CloseConnection when it cannot be answered."""
        try:
            key_and_version, correlation_id = _unpack_header(frame)
            route = self._routes.get(key_and_version) or self._route(key_and_version)
            if route is None:
                self._send_unsupported_version(frame, correlation_id, client)
                return
            requests = self._metrics.requests
            count = requests[route.key] = requests[route.key] + 1
            started = 0.0 if count % LATENCY_SAMPLE_EVERY else self._loop.time()
            shortcut = route.shortcut
            if (
                shortcut is not None
                and not self._quotas.active
                and shortcut(frame, correlation_id, client, partial(self.observe, route, started) if started else None)
            ):
                return
            head = client.request_head
            if (
                head is None
                or head.route is not route
                or frame[CLIENT_ID_LENGTH_POSITION : head.body_position] != head.data
            ):
                head = client.request_head = self._read_head(route, frame, client)
            request = route.decode(frame, head.body_position, len(frame))[0]
        except (MalformedMessage, struct.error, IndexError) as error:
            raise CloseConnection(f"malformed request: {error}") from None
        try:
            if self._quotas.active:
                throttle = Throttle(self._quotas, self._services.clock, head.context, route.key, len(frame))
                result = route.handle(head.context, request)
                throttle.handled()
                self._respond(route, correlation_id, result, client, started, throttle)
            else:
                self._respond(route, correlation_id, route.handle(head.context, request), client, started)
        except CloseConnection:
            raise
        except Exception:
            logger.exception("handler failed", api=route.name, version=route.version, client=client.client_host)
            raise CloseConnection(f"{route.name} v{route.version} failed") from None

    def read(self, frame: memoryview, client: Client) -> Incoming | None:
        """Decodes a request that is answered in place of its handler; None: an ApiVersions of an unknown version, and answered.

        Raises CloseConnection.
        """
        try:
            key_and_version, correlation_id = _unpack_header(frame)
            route = self._routes.get(key_and_version) or self._route(key_and_version)
            if route is None:
                self._send_unsupported_version(frame, correlation_id, client)
                return None
            self._metrics.requests[route.key] += 1
            head = self._read_head(route, frame, client)
            request = route.decode(frame, head.body_position, len(frame))[0]
        except (MalformedMessage, struct.error, IndexError) as error:
            raise CloseConnection(f"malformed request: {error}") from None
        return Incoming(route, correlation_id, head.context, request)

    def answer(self, incoming: Incoming, message: Any, client: Client) -> None:
        """Sends the response to what `read` returned."""
        self._respond(incoming.route, incoming.correlation_id, message, client, 0.0)

    def _read_head(self, route: Route, frame: memoryview, client: Client) -> RequestHead:
        header = decode_request_header(frame)
        context = RequestContext(
            self._services, route.version, header.client_id, client.client_host, client, client.access
        )
        data = bytes(frame[CLIENT_ID_LENGTH_POSITION : header.body_position])
        return RequestHead(route, data, header.body_position, context)

    def _respond(
        self,
        route: Route,
        correlation_id: int,
        result: Any,
        client: Client,
        started: float,
        throttle: Throttle | None = None,
    ) -> None:
        connection = client.connection
        if isinstance(result, Deferred):
            pending = _Pending(client, self, route, correlation_id, started, throttle)
            connection.enqueue(pending)
            result.then(pending.respond)
        elif isinstance(result, CoroutineType):
            pending = _Pending(client, self, route, correlation_id, started, throttle)
            connection.enqueue(pending)
            task = self._loop.create_task(self._await(pending, route, result, client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif result is not None or throttle is not None:
            if throttle is None:
                buffers = self.encode(route, correlation_id, result)
            else:
                buffers = self.encode_throttled(route, correlation_id, result, client, throttle)
            if connection.pending:
                connection.expect(route.overlapping).complete(buffers)
            else:
                connection.send(buffers)
            if started:
                self.observe(route, started)

    async def _await(
        self, pending: _Pending, route: Route, work: "CoroutineType[Any, Any, Any]", client: Client
    ) -> None:
        try:
            message = await work
        except Exception:
            self.give_up(route, client)
        else:
            pending.respond(message)

    def give_up(self, route: Route, client: Client) -> None:
        """A request that fails unexpectedly, which the log must explain, ends its connection."""
        logger.exception("handler failed", api=route.name, version=route.version, client=client.client_host)
        client.close("handler failed")

    def encode(self, route: Route, correlation_id: int, message: Any) -> Sequence[Buffer]:
        """The response's whole frame."""
        if route.has_error_code and message.error_code:
            self._metrics.errors[route.key, message.error_code] += 1
        body = route.encode(message)
        if len(body) == 1:
            data = body[0]
            size = CORRELATION_ID_BYTES + len(route.response_header) + len(data)
            return (_RESPONSE_HEADER.pack(size, correlation_id) + route.response_header + data,)
        size = CORRELATION_ID_BYTES + len(route.response_header) + sum(map(len, body))
        return (_RESPONSE_HEADER.pack(size, correlation_id) + route.response_header, *body)

    def encode_throttled(
        self, route: Route, correlation_id: int, message: Any, client: Client, throttle: Throttle
    ) -> Sequence[Buffer]:
        """The response, and the client muted for as long as the quotas say; None: acks=0, there is no response."""
        buffers = () if message is None else self.encode(route, correlation_id, message)
        told_ms = getattr(message, "throttle_time_ms", 0)
        wait_ms = throttle.wait_ms(sum(map(len, buffers)), told_ms)
        if not wait_ms:
            return buffers
        client.mute(wait_ms)
        if message is None or not hasattr(message, "throttle_time_ms"):
            return buffers
        if throttle.empties:
            message = FetchResponse(session_id=message.session_id)
        message.throttle_time_ms = wait_ms
        return self.encode(route, correlation_id, message)

    def observe(self, route: Route, started: float) -> None:
        self._metrics.observe_latency(route.key, self._loop.time() - started)

    async def stop(self) -> None:
        """Cancels requests that are still worked on."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _route(self, key_and_version: int) -> Route | None:
        """Raises CloseConnection for what we do not speak; None: ApiVersions in a version that we do not know."""
        key, version = _KEY_AND_VERSION.unpack(key_and_version.to_bytes(4, "big"))
        api = self._apis.get(key)
        if api is None:
            raise CloseConnection(f"unknown API key {key}")
        if not api.min_version <= version <= api.max_version:
            if key == ApiKey.API_VERSIONS:
                return None
            raise CloseConnection(f"unsupported {api.key.name} v{version}")
        route = Route(api, version, self._shortcuts.get((key, version)))
        self._routes[key_and_version] = route
        return route

    def _send_unsupported_version(self, frame: memoryview, correlation_id: int, client: Client) -> None:
        """KIP-511: the body is not parsed; the answer is in version 0 and lists ApiVersions alone."""
        api = self._apis[ApiKey.API_VERSIONS]
        header_end = CLIENT_ID_LENGTH_POSITION + 2 + max(int.from_bytes(frame[8:10], "big", signed=True), 0)
        if header_end >= len(frame):
            raise CloseConnection("malformed header of ApiVersions")  # no tags, though every later version has them
        row = ApiVersionsResponse.ApiVersion(
            api_key=api.key, min_version=api.advertised_from, max_version=api.max_version
        )
        message = ApiVersionsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=[row])
        client.connection.send(self.encode(Route(api, 0), correlation_id, message))
