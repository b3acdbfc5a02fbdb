"""The synchronous client, on kafka-python's own connections."""

import time
import uuid
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self, Unpack, cast

from kafka.errors import IncompatibleBrokerVersion, KafkaConfigurationError, KafkaConnectionError, NodeNotReadyError
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager

from senselog_client.errors import NotSupported
from senselog_client.messages import VectorSearchRequest, VectorSearchResponse
from senselog_client.request import Example, Record, SearchOptions, Vector, build_request, single_query
from senselog_client.result import SearchResult, Status, parse_results, parse_status

# A search is read-only, so it may be repeated when the connection was lost (a broker that restarted, an idle close).
ATTEMPTS_MAX = 3
RECONNECT_S = 0.1
# Whoever waits for freshness also waits for an index that is just being opened.
INDEX_LOADING = 14
LOADING_POLL_S = 0.05
# Beyond the broker's own timeout_ms: time for the answer to travel.
TRANSPORT_GRACE_MS = 10_000
NOT_SENSELOG = "the broker does not speak VectorSearch (API key 100): is it Senselog?"


class SenselogClient:
    """Searches topics by meaning. Thread-safe; close it, or use it as a context manager.

    Takes kafka-python's connection settings (`bootstrap_servers`, `security_protocol`, `sasl_mechanism`, `ssl_cafile` …).
    Its connection errors (`kafka.errors.KafkaError`) pass through unchanged.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str | list[str] = "localhost:9092",
        bootstrap_timeout_ms: int = 10_000,
        **config: Any,
    ) -> None:
        unknown = set(config) - set(KafkaConnectionManager.DEFAULT_CONFIG)
        if unknown:
            raise KafkaConfigurationError(f"unknown setting {sorted(unknown)[0]!r}")
        # kafka-python's own default of 1 MB is too small for a thousand hits with values.
        defaults = {"client_id": "senselog-client", "receive_message_max_bytes": 100_000_000}
        self._client = KafkaNetClient(bootstrap_servers=bootstrap_servers, **(defaults | config))
        self._manager = self._client._manager  # noqa: SLF001 -- what KafkaAdminClient itself does
        self._net = self._manager._net  # noqa: SLF001
        self._net.start()
        try:
            self._manager.bootstrap(bootstrap_timeout_ms)
        except BaseException:
            self.close()
            raise

    def search(
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
        return self.search_batch(topic, [query], **options)[0]

    def search_batch(
        self, topic: str | uuid.UUID, queries: Iterable[str | Mapping[str, Any]], **options: Unpack[SearchOptions]
    ) -> list[SearchResult]:
        """Several searches of one topic in one request; each query a text or a dict of `search`'s query arguments."""
        mappings = [{"text": query} if isinstance(query, str) else query for query in queries]
        return parse_results(self._send(build_request(topic, mappings, **options)))

    def status(self, topic: str | uuid.UUID, *, timeout_ms: int = 2000) -> Status:
        """The model of a topic's index and how far each partition is indexed. Raises SearchError."""
        return parse_status(self._send(build_request(topic, [], timeout_ms=timeout_ms)))

    def _send(self, request: VectorSearchRequest) -> VectorSearchResponse:
        timeout_ms = request.timeout_ms + request.max_wait_ms + TRANSPORT_GRACE_MS
        deadline = time.monotonic() + request.max_wait_ms / 1000
        failures = 0
        while True:
            try:
                response = self._manager.run(self._round_trip, request, timeout_ms)
            except IncompatibleBrokerVersion:
                raise NotSupported(35, NOT_SENSELOG) from None
            except (KafkaConnectionError, NodeNotReadyError):
                failures += 1
                if failures == ATTEMPTS_MAX:
                    raise
                time.sleep(RECONNECT_S * failures)
                continue
            if response.error_code != INDEX_LOADING or time.monotonic() >= deadline:
                return cast("VectorSearchResponse", response)
            time.sleep(LOADING_POLL_S)

    async def _round_trip(self, request: VectorSearchRequest, timeout_ms: int) -> VectorSearchResponse:
        return cast("VectorSearchResponse", await self._manager.send(request, request_timeout_ms=timeout_ms))

    def close(self) -> None:
        """Closes the connections and the I/O thread."""
        self._client.close()
        self._net.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
