"""The asyncio client, on aiokafka's own connections. Needs `senselog-client[async]`."""

import asyncio
import time
import uuid
from collections.abc import Iterable, Mapping
from io import BytesIO
from types import TracebackType
from typing import Any, ClassVar, Self, Unpack, cast

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaConnectionError, NodeNotReadyError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Schema

from senselog_client.errors import NotSupported
from senselog_client.messages import API_KEY, VectorSearchRequest, VectorSearchResponse
from senselog_client.request import Example, Record, SearchOptions, Vector, build_request, single_query
from senselog_client.result import SearchResult, Status, parse_results, parse_status
from senselog_client.sync import (
    ATTEMPTS_MAX,
    INDEX_LOADING,
    LOADING_POLL_S,
    NOT_SENSELOG,
    RECONNECT_S,
    TRANSPORT_GRACE_MS,
)


class _WireResponse(Response):  # type: ignore[misc]
    """Hands the body to the one decoder both clients share."""

    API_KEY = API_KEY
    API_VERSION = 0
    SCHEMA = Schema()

    @classmethod
    def decode(cls, data: BytesIO | bytes) -> Any:
        return VectorSearchResponse.decode(data if isinstance(data, bytes) else data.read(), version=0)


class _WireRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = API_KEY
    API_VERSION = 0
    RESPONSE_TYPE = _WireResponse
    SCHEMA = Schema()
    FLEXIBLE_VERSION: ClassVar[bool] = True

    def __init__(self, message: VectorSearchRequest) -> None:
        super().__init__()
        self.message = message

    def encode(self) -> bytes:
        return bytes(self.message.encode(version=0))


class _Request(Request[_WireRequest]):  # type: ignore[misc]
    API_KEY = API_KEY

    def __init__(self, message: VectorSearchRequest) -> None:
        self.message = message

    def build(self, request_struct_class: type[_WireRequest]) -> _WireRequest:
        return request_struct_class(self.message)


class AsyncSenselogClient:
    """Searches topics by meaning. Use it as `async with`, or `await start()` and `await stop()`.

    Takes aiokafka's connection settings (`bootstrap_servers`, `security_protocol`, `ssl_context` …). Its connection
    errors (`aiokafka.errors.KafkaError`) pass through unchanged.
    """

    def __init__(self, *, bootstrap_servers: str | list[str] = "localhost:9092", **config: Any) -> None:
        defaults = {"client_id": "senselog-client"}
        self._config = defaults | config | {"bootstrap_servers": bootstrap_servers}
        self._client: AIOKafkaClient | None = None

    async def start(self) -> None:
        """Connects."""
        client = AIOKafkaClient(**self._config)
        try:
            await client.bootstrap()
        except BaseException:
            await client.close()
            raise
        self._client = client

    async def stop(self) -> None:
        """Closes the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def search(
        self,
        topic: str | uuid.UUID,
        text: str | None = None,
        *,
        vector: Vector | None = None,
        record: Record | None = None,
        positive: Iterable[Example] = (),
        negative: Iterable[Example] = (),
        **options: Unpack[SearchOptions],
    ) -> SearchResult:
        """Finds the records nearest to a text, a vector, a record `(partition, offset)`, or to examples.

        The options are SearchOptions'. Raises SearchError with the broker's code and message.
        """
        query = single_query(text, vector, record, positive, negative)
        return (await self.search_batch(topic, [query], **options))[0]

    async def search_batch(
        self, topic: str | uuid.UUID, queries: Iterable[str | Mapping[str, Any]], **options: Unpack[SearchOptions]
    ) -> list[SearchResult]:
        """Several searches of one topic in one request; each query a text or a dict of `search`'s query arguments."""
        mappings = [{"text": query} if isinstance(query, str) else query for query in queries]
        return parse_results(await self._send(build_request(topic, mappings, **options)))

    async def status(self, topic: str | uuid.UUID, *, timeout_ms: int = 2000) -> Status:
        """The model of a topic's index and how far each partition is indexed. Raises SearchError."""
        return parse_status(await self._send(build_request(topic, [], timeout_ms=timeout_ms)))

    async def _send(self, message: VectorSearchRequest) -> VectorSearchResponse:
        if self._client is None:
            raise RuntimeError("the client is not started: use `async with`, or await start()")
        timeout_ms = message.timeout_ms + message.max_wait_ms + TRANSPORT_GRACE_MS
        deadline = time.monotonic() + message.max_wait_ms / 1000
        failures = 0
        while True:
            node_id = self._client.get_random_node()
            try:
                # Not wait_for: in Python 3.11 that loses a cancellation that comes together with the answer.
                async with asyncio.timeout(timeout_ms / 1000):
                    response = await self._client.send(node_id, _Request(message))
            except IncompatibleBrokerVersion:
                raise NotSupported(35, NOT_SENSELOG) from None
            except (KafkaConnectionError, NodeNotReadyError):
                failures += 1
                if failures == ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(RECONNECT_S * failures)
                continue
            if response.error_code != INDEX_LOADING or time.monotonic() >= deadline:
                return cast("VectorSearchResponse", response)
            await asyncio.sleep(LOADING_POLL_S)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
