"""What each door costs: the same searches through key 100, REST and gRPC, at 1 and 32 clients, and what the Python clients add to key 100.

A bare protocol client for each door, in one process of its own event loop, so that what is compared is the doors and not client
libraries; an answer counts once it holds ten hits. Queries are vectors, so that no model stands in the way. The Python clients share
this one process too, the synchronous ones with a thread each: at 32 clients their figures are those of one interpreter.
"""

import asyncio
import json
import statistics
import struct
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import grpc
import numpy as np
from senselog_client import AsyncSenselogClient, SenselogClient
from senselog_client.request import build_request
from senselog_client.v1 import vector_search_pb2 as messages
from senselog_client.v1.vector_search_pb2_grpc import VectorSearchStub

from benchmarks import search_path
from benchmarks.brokers import Broker
from benchmarks.report import Result
from protocol.codec import decode_response
from protocol.headers import decode_response_header, encode_request_header

DIMENSIONS, RECORDS, LIMIT = 384, 5_000, 10
CLIENTS = (1, 32)
_VECTOR_SEARCH = 100
Ask = Callable[[], Awaitable[int]]
"""One search; returns how many hits it had."""


def doors(broker: Broker, *, seconds: float) -> list[Result]:
    """p50 and p99 of every door, and searches a second, in rounds one after another."""
    topic = search_path.topic_name("doors")
    configs = {"vector.enabled": "true", "vector.embedding.model": f"hashing:{DIMENSIONS}"}
    search_path.librdkafka.create_topic(broker.bootstrap, topic, 1, **configs)
    send = search_path.producer(broker)
    for number in range(RECORDS):
        send.produce(
            topic,
            value=f"record {number} of the topic, with a hundred characters or so as log lines have them {number % 31}",
        )
    send.flush()
    search_path.wait_indexed(broker, topic, RECORDS)
    doors_and_client = (("key 100", _kafka), ("REST", _rest), ("gRPC", _rpc), ("asyncio client", _asyncio_client))
    results: list[Result] = []
    for clients in CLIENTS:
        results += [
            asyncio.run(_measure(name, connect, broker, topic, clients, seconds)) for name, connect in doors_and_client
        ]
        results.append(_measure_threads(broker, topic, clients, seconds))
    return results


async def _measure(
    name: str,
    connect: Callable[[AsyncExitStack, Broker, str], Awaitable[Ask]],
    broker: Broker,
    topic: str,
    clients: int,
    seconds: float,
) -> Result:
    latencies: list[float] = []
    async with AsyncExitStack() as stack:
        asks = [await connect(stack, broker, topic) for _ in range(clients)]
        for ask in asks:
            assert await ask() == LIMIT
        stop = time.monotonic() + seconds

        async def run(ask: Ask) -> None:
            while time.monotonic() < stop:
                started = time.perf_counter()
                assert await ask() == LIMIT
                latencies.append((time.perf_counter() - started) * 1e3)

        await asyncio.gather(*(run(ask) for ask in asks))
    return _result(name, broker, clients, seconds, latencies)


def _measure_threads(broker: Broker, topic: str, clients: int, seconds: float) -> Result:
    """The synchronous client, which blocks: each has a thread, and keeps its own time."""
    latencies: list[float] = []
    query = _query()
    with ExitStack() as stack:
        opened = [stack.enter_context(SenselogClient(bootstrap_servers=broker.bootstrap)) for _ in range(clients)]
        for client in opened:
            assert len(client.search(topic, vector=query, limit=LIMIT)) == LIMIT
        stop = time.monotonic() + seconds

        def run(client: SenselogClient) -> None:
            while time.monotonic() < stop:
                started = time.perf_counter()
                assert len(client.search(topic, vector=query, limit=LIMIT)) == LIMIT
                latencies.append((time.perf_counter() - started) * 1e3)

        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(run, opened))
    return _result("synchronous client", broker, clients, seconds, latencies)


def _result(name: str, broker: Broker, clients: int, seconds: float, latencies: list[float]) -> Result:
    latencies.sort()
    figures = {
        "searches/s": len(latencies) / seconds,
        "p50 ms": statistics.median(latencies),
        "p99 ms": latencies[int(0.99 * (len(latencies) - 1))],
    }
    return Result(f"{name}, {clients} client{'s' if clients > 1 else ''}", broker.name, figures)


def _query() -> np.ndarray:
    return np.random.default_rng(5).standard_normal(DIMENSIONS).astype(np.float32)


async def _open(stack: AsyncExitStack, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    stack.callback(writer.close)
    return reader, writer


async def _kafka(stack: AsyncExitStack, broker: Broker, topic: str) -> Ask:
    reader, writer = await _open(stack, broker.bootstrap)
    message = bytes(build_request(topic, [{"vector": _query()}], limit=LIMIT).encode(version=0))
    frame = encode_request_header(_VECTOR_SEARCH, 0, 1, "bench") + message

    async def ask() -> int:
        writer.write(struct.pack(">i", len(frame)) + frame)
        data = await reader.readexactly(struct.unpack(">i", await reader.readexactly(4))[0])
        _, position = decode_response_header(_VECTOR_SEARCH, 0, memoryview(data))
        response: Any = decode_response(_VECTOR_SEARCH, 0, data, position)
        return len(response.results[0].hits)

    return ask


async def _rest(stack: AsyncExitStack, broker: Broker, topic: str) -> Ask:
    assert broker.http is not None
    reader, writer = await _open(stack, broker.http)
    body = json.dumps({"query": {"vector": _query().tolist()}, "limit": LIMIT}).encode()
    head = f"POST /v1/topics/{topic}/search HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def ask() -> int:
        writer.write(request)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b" 200 " in answer.split(b"\r\n", 1)[0], answer
        length = int(answer.split(b"content-length: ")[1].split(b"\r\n", 1)[0])
        return len(json.loads(await reader.readexactly(length))["results"])

    return ask


async def _rpc(stack: AsyncExitStack, broker: Broker, topic: str) -> Ask:
    # A channel of one's own: channels to the same address share a connection unless told otherwise.
    channel = await stack.enter_async_context(
        grpc.aio.insecure_channel(broker.grpc, options=[("grpc.use_local_subchannel_pool", 1)])
    )
    search = VectorSearchStub(channel).Search  # type: ignore[no-untyped-call]
    request = messages.SearchRequest(
        topic=messages.Topic(name=topic),
        query=messages.Query(vector=messages.Vector(values=_query().tolist())),
        options=messages.SearchOptions(limit=LIMIT),
    )

    async def ask() -> int:
        return len((await search(request, timeout=30)).hits)

    return ask


async def _asyncio_client(stack: AsyncExitStack, broker: Broker, topic: str) -> Ask:
    client = await stack.enter_async_context(AsyncSenselogClient(bootstrap_servers=broker.bootstrap))
    query = _query()

    async def ask() -> int:
        return len(await client.search(topic, vector=query, limit=LIMIT))

    return ask
