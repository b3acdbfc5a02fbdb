"""Both clients over real sockets, against a broker of a few lines that answers by the server's own codec."""

import asyncio
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from senselog_client import AsyncSenselogClient, IndexLoading, NotSupported, SenselogClient

from protocol import codec, messages
from protocol.api_keys import ApiKey
from protocol.headers import decode_request_header, encode_response_header

Response = messages.VectorSearchResponse
VERSIONS = {ApiKey.API_VERSIONS: 3, ApiKey.METADATA: 9, ApiKey.VECTOR_SEARCH: 0}
RECORDS = [b"the disk is full", b"user logged in", "ünïcode".encode()]


class TinyBroker:
    """Speaks ApiVersions, Metadata and key 100; remembers the searches. Runs in a thread of its own."""

    def __init__(self, keys: tuple[ApiKey, ...] = tuple(VERSIONS)) -> None:
        self.keys = keys
        self.searches: list[messages.VectorSearchRequest] = []
        self.error_code = 0
        self.loading = 0
        """How many searches to answer with "loading"."""
        self.drop = 0
        """How many connections to close at their next search."""
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.server = asyncio.run_coroutine_threadsafe(starting, self.loop).result(10)
        self.port = self.server.sockets[0].getsockname()[1]

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack(">i", await reader.readexactly(4))
                answer = self._answer(await reader.readexactly(length))
                if answer is None:
                    break
                writer.write(struct.pack(">i", len(answer)) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, frame: bytes) -> bytes | None:
        header = decode_request_header(memoryview(frame))
        key, version = ApiKey(header.api_key), header.api_version
        if key is ApiKey.API_VERSIONS and version > VERSIONS[key]:
            version, response = 0, messages.ApiVersionsResponse(error_code=35, api_keys=[self._version(key)])
        else:
            request = codec.decode_request(key, version, memoryview(frame), header.body_position)
            found = {
                ApiKey.API_VERSIONS: self._api_versions,
                ApiKey.METADATA: self._metadata,
                ApiKey.VECTOR_SEARCH: self._search,
            }[key](request)
            if found is None:
                return None
            response = found
        body = codec.encode_response(key, version, response)
        return encode_response_header(key, version, header.correlation_id) + b"".join(bytes(part) for part in body)

    def _version(self, key: ApiKey) -> messages.ApiVersionsResponse.ApiVersion:
        return messages.ApiVersionsResponse.ApiVersion(api_key=key, min_version=0, max_version=VERSIONS[key])

    def _api_versions(self, _: object) -> messages.ApiVersionsResponse:
        return messages.ApiVersionsResponse(api_keys=[self._version(key) for key in self.keys])

    def _metadata(self, _: object) -> messages.MetadataResponse:
        node = messages.MetadataResponse.MetadataResponseBroker(node_id=1, host="127.0.0.1", port=self.port)
        return messages.MetadataResponse(brokers=[node], controller_id=1, cluster_id="tiny")

    def _search(self, request: messages.VectorSearchRequest) -> messages.VectorSearchResponse | None:
        self.searches.append(request)
        if self.drop:
            self.drop -= 1
            return None
        if self.loading:
            self.loading -= 1
            return Response(error_code=14, error_message="the index is loading")
        hits = [Response.Hit(offset=offset, value=value, score=0.5) for offset, value in enumerate(RECORDS)]
        return Response(
            error_code=self.error_code,
            error_message="the index is loading" if self.error_code else None,
            model="hashing",
            dimensions=64,
            complete=True,
            results=[Response.Result(hits=hits[: request.limit]) for _ in request.queries],
            partition_states=[Response.PartitionState(partition=0, last_stable_offset=3, indexed_offset=2)],
        )

    def stop(self) -> None:
        async def end() -> None:
            self.server.close()
            open_connections = asyncio.all_tasks() - {asyncio.current_task()}
            for task in open_connections:
                task.cancel()
            await asyncio.gather(*open_connections, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def start() -> Iterator[Callable[..., TinyBroker]]:
    brokers = []

    def start(*keys: ApiKey) -> TinyBroker:
        brokers.append(TinyBroker(keys or tuple(VERSIONS)))
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.stop()


def test_search_batch_and_status(start: Callable[..., TinyBroker]) -> None:
    broker = start()
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
        result = client.search("logs", "disk", limit=2, latest=True, max_wait_ms=50)
        assert [hit.value for hit in result] == RECORDS[:2]
        assert (result.model, result.lag, result.complete) == ("hashing", 1, True)
        assert [len(found) for found in client.search_batch("logs", ["a", {"vector": [1.0]}])] == [3, 3]
        assert client.status("logs").freshness[0].indexed_offset == 2
    first, batch, status = broker.searches
    assert (first.topic_name, first.queries[0].text, first.limit, first.latest, first.max_wait_ms) == (
        "logs",
        "disk",
        2,
        True,
        50,
    )
    assert [query.vector for query in batch.queries] == [None, b"\x00\x00\x80?"]
    assert status.queries == []


async def test_the_asynchronous_client_does_the_same(start: Callable[..., TinyBroker]) -> None:
    broker = start()
    async with AsyncSenselogClient(bootstrap_servers=broker.bootstrap) as client:
        result = await client.search("logs", "disk", limit=2)
        assert [hit.value for hit in result] == RECORDS[:2]
        found = await asyncio.gather(*(client.search("logs", f"question {number}") for number in range(10)))
        assert all(len(result) == 3 for result in found)
        assert (await client.status("logs")).dimensions == 64
    assert len(broker.searches) == 12


def test_errors_carry_the_brokers_message(start: Callable[..., TinyBroker]) -> None:
    broker = start()
    broker.error_code = 14
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client, pytest.raises(IndexLoading, match="is loading"):
        client.search("logs", "disk")


async def test_whoever_waits_for_freshness_waits_for_an_index_that_loads(start: Callable[..., TinyBroker]) -> None:
    broker = start()
    broker.loading = 3
    async with AsyncSenselogClient(bootstrap_servers=broker.bootstrap) as client:
        assert len(await client.search("logs", "disk", max_wait_ms=20_000)) == 3
    broker.loading = 3
    with SenselogClient(bootstrap_servers=broker.bootstrap) as other:
        assert len(await asyncio.to_thread(other.search, "logs", "disk", max_wait_ms=20_000)) == 3
    assert len(broker.searches) == 8


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_lost_connection_is_opened_again(start: Callable[..., TinyBroker], asynchronous: bool) -> None:
    broker = start()
    if asynchronous:
        async with AsyncSenselogClient(bootstrap_servers=broker.bootstrap) as client:
            await client.search("logs", "disk")
            broker.drop = 1
            assert len(await client.search("logs", "disk")) == 3
    else:
        with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
            await asyncio.to_thread(client.search, "logs", "disk")
            broker.drop = 1
            assert len(await asyncio.to_thread(client.search, "logs", "disk")) == 3
    assert len(broker.searches) == 3


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_another_broker_is_no_senselog(start: Callable[..., TinyBroker], asynchronous: bool) -> None:
    broker = start(ApiKey.API_VERSIONS, ApiKey.METADATA)
    with pytest.raises(NotSupported, match="is it Senselog"):
        if asynchronous:
            async with AsyncSenselogClient(bootstrap_servers=broker.bootstrap) as client:
                await client.search("logs", "disk")
        else:
            with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
                await asyncio.to_thread(client.search, "logs", "disk")
    assert broker.searches == []


async def test_an_unstarted_client_says_so() -> None:
    with pytest.raises(RuntimeError, match="not started"):
        await AsyncSenselogClient().search("logs", "x")
