"""`make bench-million`: a million vectors that a producer sends, searched by ten clients at once: the table of what they cost.

    python -m benchmarks.vector_scale [--vectors 1000000] [--dimensions 384] [--clients 10] [--directory DIR] [--json]

Vectors are synthetic as embeddings are: unit length, around centres of which a few are frequent, with noise of which few directions
carry most; they arrive in random order. Truth is an exact scan with numpy over what was sent. CPU and memory are the vector worker's:
`RAM` counts all that it has resident more than an empty worker, pages of its mapped files included; `anonymous` what of that is its own: the
rest the kernel may take back. It is told after the build, after searches, and after a restart and as many searches; `peak` is the highest
ever, while a graph is built. What the kernel caches of files that are read, not mapped, counts for neither. Closed loop: every client sends
its next search when it has the answer to the last; they share the machine with the broker.
"""

import argparse
import asyncio
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import faiss
import numpy as np
import psutil
import uvloop
from rich.console import Console
from senselog_client import SenselogClient
from senselog_client.request import build_request

from benchmarks import librdkafka, search_path
from benchmarks.brokers import Broker, start_senselog, stop_senselog
from benchmarks.loads import percentile
from benchmarks.report import Result, show
from protocol.api_keys import ApiKey
from protocol.codec import decode_response
from protocol.headers import decode_response_header, encode_request_header
from vector.index.files import read_faiss
from vector.index.scan import singles
from vector.index.scoring import similarities
from vector.index.sealed import SealedSegment
from vector.index.search import cap_faiss_threads, fetch_count
from vector.index.segment_files import COLUMNS_SUFFIX, GRAPH_SUFFIX

TOPIC = "million"
NEIGHBOURS = 10
CHUNK = 20_000
"""Vectors made, sent and compared with the queries at a time."""
SETTLED_S = 15.0
"""After as long without a build there are none to come."""
POLL_S = 0.5
WAIT_S = 7200.0
SEARCHES_PER_CLIENT = 200
DIRECTIONS = 24
"""Noise falls off from direction to direction: its variance along the n-th is as 1 / (1 + n / DIRECTIONS), half of it is in 75 of 384."""
NOISE = 0.7
"""Against the distance of a centre from the origin."""


class Vectors:
    """The same vectors and queries for the same numbers; only the queries, float32[q, d], are kept."""

    def __init__(self, count: int, dimensions: int, queries: int, seed: int = 1) -> None:
        random = np.random.default_rng(seed)
        self.count = count
        self._seed = seed
        clusters = max(10, count // 500)
        self._centres = random.standard_normal((clusters, dimensions)).astype(np.float32)
        frequency = 1.0 / np.arange(10, clusters + 10) ** 0.5
        self._frequency = frequency / frequency.sum()
        scales = 1.0 / np.sqrt(1.0 + np.arange(dimensions) / DIRECTIONS)
        rotation = np.linalg.qr(random.standard_normal((dimensions, dimensions)))[0]
        spread = NOISE * np.sqrt(dimensions / np.sum(scales**2))
        self._noise = (spread * scales[:, None] * rotation).astype(np.float32)
        self.queries = self._around(queries, random)

    def _around(self, count: int, random: np.random.Generator) -> np.ndarray:
        rows = self._centres[random.choice(len(self._centres), count, p=self._frequency)]
        rows += random.standard_normal(rows.shape, dtype=np.float32) @ self._noise
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """First offset and float32[n, d], one after the other."""
        for start in range(0, self.count, CHUNK):
            random = np.random.default_rng((self._seed, start))
            yield start, self._around(min(CHUNK, self.count - start), random)


class Truth:
    """The nearest offsets of each query: int64[q, k], by comparing it with every vector."""

    def __init__(self, queries: np.ndarray) -> None:
        self._queries = queries
        self._scores = np.full((len(queries), NEIGHBOURS), -np.inf, dtype=np.float32)
        self.offsets = np.full((len(queries), NEIGHBOURS), -1, dtype=np.int64)

    def compare(self, start: int, rows: np.ndarray) -> None:
        scores = np.hstack([self._scores, self._queries @ rows.T])
        new = np.broadcast_to(np.arange(start, start + len(rows)), (len(self._queries), len(rows)))
        offsets = np.hstack([self.offsets, new])
        best = np.argpartition(-scores, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        self._scores = np.take_along_axis(scores, best, axis=1)
        self.offsets = np.take_along_axis(offsets, best, axis=1)

    def recall(self, found: dict[int, list[int]], within: np.ndarray | None = None) -> float:
        """Of the answers, by number of the query; with `within`, bool[vectors], of those true ones that are at such offsets."""
        right = wanted = 0
        for query, answer in found.items():
            truth = self.offsets[query]
            truth = truth if within is None else truth[within[truth]]
            right += len(set(truth.tolist()) & set(answer))
            wanted += len(truth)
        return right / wanted if wanted else float("nan")


@dataclass(frozen=True, slots=True)
class Use:
    """What the worker has used: CPU seconds, resident bytes, those of them that are its own, and the most that were ever resident."""

    cpu_s: float
    resident_bytes: int
    anonymous_bytes: int
    peak_bytes: int

    def ram(self, before: "Use", count: int) -> dict[str, float]:
        """Figures: bytes for each of `count` vectors, over those `before`."""
        return {
            "RAM bytes per vector": (self.resident_bytes - before.resident_bytes) / count,
            "of that anonymous": (self.anonymous_bytes - before.anonymous_bytes) / count,
        }


def use(broker: Broker) -> Use:
    """Of the vector worker, so far. Raises RuntimeError when there is none."""
    for child in psutil.Process(broker.pid).children():
        if any("vector.worker" in part for part in child.cmdline()):
            times = child.cpu_times()
            lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
            sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("Vm", "Rss"))}
            return Use(times.user + times.system, sizes["VmRSS:"], sizes["RssAnon:"], sizes["VmHWM:"])
    raise RuntimeError("the broker has no vector worker")


def load(broker: Broker, vectors: Vectors, truth: Truth) -> tuple[Use, Result]:
    """Sends all vectors and waits until they are indexed and every build is over; also what an empty worker uses."""
    configs = {"vector.embedding.model": "none", "vector.dimensions": str(vectors.queries.shape[1])}
    librdkafka.create_topic(broker.bootstrap, TOPIC, 1, **search_path.VECTORS, **configs)
    search_path.wait_indexed(broker, TOPIC, 0)
    before, started = use(broker), time.perf_counter()
    send = search_path.producer(broker, {"linger.ms": 5})
    for start, rows in vectors.chunks():
        truth.compare(start, rows)
        for number, row in enumerate(rows, start):
            while True:
                try:
                    send.produce(TOPIC, value=str(number), headers=[("senselog.vector", row.tobytes())])
                    break
                except BufferError:
                    send.poll(0.05)
            send.poll(0)
    send.flush()
    partition = wait_settled(broker, vectors.count)
    after = use(broker)
    cpu_s = after.cpu_s - before.cpu_s
    return before, Result(
        f"build {vectors.count:,} vectors",
        broker.name,
        {
            "vectors per CPU second": vectors.count / cpu_s,
            "CPU s": cpu_s,
            "vectors/s until all are indexed and built": vectors.count / (time.perf_counter() - started - SETTLED_S),
            "segments": float(len(partition["segments"])),
            **after.ram(before, vectors.count),
            "peak bytes per vector": (after.peak_bytes - before.resident_bytes) / vectors.count,
            "disk bytes per vector": partition["disk_bytes"] / vectors.count,
        },
    )


def wait_settled(broker: Broker, count: int) -> dict[str, Any]:
    """The partition's status once `count` records are indexed and nothing has been built for a while. Raises TimeoutError."""
    deadline = time.monotonic() + WAIT_S
    idle_since = time.monotonic()
    while time.monotonic() < deadline:
        partition: dict[str, Any] = search_path.status(broker, TOPIC)["partitions"][0]
        if partition["indexed_offset"] < count or partition["building"]:
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since >= SETTLED_S:
            return partition
        time.sleep(POLL_S)
    raise TimeoutError(f"not built after {WAIT_S} s")


def searches(broker: Broker, vectors: Vectors, truth: Truth, clients: int, empty: Use, when: str = "") -> Result:
    """All queries again and again by `clients` connections at once, as one search each; `empty`: what a worker uses without vectors."""
    options: dict[str, Any] = {"limit": NEIGHBOURS, "include": ()}
    frames = []
    for query in vectors.queries:
        message = bytes(build_request(TOPIC, [{"vector": query}], **options).encode(version=0))
        body = encode_request_header(ApiKey.VECTOR_SEARCH, 0, 1, "bench") + message
        frames.append(struct.pack(">i", len(body)) + body)
    uvloop.run(ask_all(broker, frames, clients, searches_each=20))  # pages are read, caches filled
    before, started, own_cpu_s = use(broker), time.perf_counter(), time.process_time()
    broker_cpu_s = broker.cpu_seconds()
    answers, millis = uvloop.run(ask_all(broker, frames, clients, searches_each=SEARCHES_PER_CLIENT))
    seconds, after, own_cpu_s = time.perf_counter() - started, use(broker), time.process_time() - own_cpu_s
    broker_cpu_s = broker.cpu_seconds() - broker_cpu_s
    return Result(
        f"search, {clients} client{'s' if clients > 1 else ''}{when}",
        broker.name,
        {
            "recall@10": truth.recall(answers),
            "p50 ms": percentile(millis, 0.5),
            "p99 ms": percentile(millis, 0.99),
            "searches/s": len(millis) / seconds,
            "worker CPU ms per search": (after.cpu_s - before.cpu_s) / len(millis) * 1e3,
            "broker CPU ms per search": broker_cpu_s / len(millis) * 1e3,
            "client CPU ms per search": own_cpu_s / len(millis) * 1e3,
            **after.ram(empty, vectors.count),
        },
    )


async def ask_all(
    broker: Broker, frames: list[bytes], clients: int, searches_each: int
) -> tuple[dict[int, list[int]], list[float]]:
    """Offsets found by number of the query, and the milliseconds of each search."""
    host, _, port = broker.bootstrap.rpartition(":")
    answers: dict[int, bytes] = {}
    millis: list[float] = []
    loop = asyncio.get_running_loop()
    queries = [[(turn * clients + number) % len(frames) for turn in range(searches_each)] for number in range(clients)]
    asked = [_Client(frames, one, answers, millis) for one in queries]
    for client in asked:
        await loop.create_connection(lambda client=client: client, host, int(port))  # type: ignore[misc]
    await asyncio.gather(*(client.done for client in asked))
    return {number: _offsets(data) for number, data in answers.items()}, millis


class _Client(asyncio.Protocol):
    """One connection that asks `queries` one after the other; little work, since it shares the machine with what is measured."""

    def __init__(self, frames: list[bytes], queries: list[int], answers: dict[int, bytes], millis: list[float]) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._frames = frames
        self._queries = iter(queries)
        self._answers = answers
        self._millis = millis
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name
        self._ask()

    def _ask(self) -> None:
        self._query = next(self._queries, -1)
        if self._query < 0:
            self._transport.close()
            self.done.set_result(None)
            return
        self._began = time.perf_counter()
        self._transport.write(self._frames[self._query])

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) >= 4 and len(self._received) == 4 + int.from_bytes(self._received[:4]):
            self._millis.append((time.perf_counter() - self._began) * 1e3)
            self._answers[self._query] = self._received[4:]
            self._received = b""
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the broker closed the connection"))


def _offsets(data: bytes) -> list[int]:
    _, position = decode_response_header(ApiKey.VECTOR_SEARCH, 0, memoryview(data))
    response: Any = decode_response(ApiKey.VECTOR_SEARCH, 0, data, position)
    if response.error_code:
        raise RuntimeError(f"a search failed: {response.error_code} {response.error_message}")
    return [hit.offset for hit in response.results[0].hits]


def restart(directory: Path, vectors: Vectors) -> tuple[Any, Broker, Result]:
    """Starts the stopped broker again: seconds until it is ready, and until it answers a search."""
    started = time.perf_counter()
    process, broker = start_senselog(directory, ("storage.sync=os",), pin=False)
    ready_s = time.perf_counter() - started
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
        hits = client.search(
            TOPIC,
            vector=vectors.queries[0],
            limit=NEIGHBOURS,
            latest=True,
            max_wait_ms=60_000,
            timeout_ms=60_000,
            include=(),
        )
        answered_s = time.perf_counter() - started
        if len(hits) != NEIGHBOURS:
            raise RuntimeError(f"{len(hits)} hits after the restart")
    figures = {"ready s": ready_s, "first answer s": answered_s}
    return process, broker, Result("restart", broker.name, figures)


def codes(directory: Path, vectors: Vectors, truth: Truth) -> Result:
    """Recall@10 of the stopped index by the sq8 codes of its graphs alone, and with the same candidates rescored in fp16."""
    cap_faiss_threads()
    files = sorted(directory.rglob(f"*{COLUMNS_SUFFIX}"))
    segments = [SealedSegment.open(file.parent, file.name.removesuffix(COLUMNS_SUFFIX)) for file in files]
    figures = {}
    graphs = [
        (segment, read_faiss(file.with_suffix(GRAPH_SUFFIX)))
        for segment, file in zip(segments, files, strict=True)
        if segment.graph_trust
    ]
    within = np.zeros(vectors.count, dtype=np.bool_)
    for segment, _ in graphs:
        within[segment.columns.offsets] = True
    for width in (64, 128):
        rough: dict[int, list[int]] = {}
        rescored: dict[int, list[int]] = {}
        for number, query in enumerate(vectors.queries):
            by_codes: list[tuple[float, int]] = []
            by_vectors: list[tuple[float, int]] = []
            for segment, graph in graphs:
                given = faiss.SearchParametersHNSW(efSearch=width)
                scores, nodes = (found[0] for found in graph.search(query[None], fetch_count(NEIGHBOURS), params=given))
                offsets = segment.columns.offsets[segment.postings_of(nodes)[1]].tolist()  # each vector is one record's
                exact = similarities(singles(segment.rows(nodes)), query, "cosine")
                by_codes += zip(scores.tolist(), offsets, strict=True)
                by_vectors += zip(exact.tolist(), offsets, strict=True)
            rough[number] = [offset for _, offset in sorted(by_codes, reverse=True)[:NEIGHBOURS]]
            rescored[number] = [offset for _, offset in sorted(by_vectors, reverse=True)[:NEIGHBOURS]]
        figures[f"recall@10 by sq8 alone, ef {width}"] = truth.recall(rough, within)
        figures[f"recall@10 rescored in fp16, ef {width}"] = truth.recall(rescored, within)
    figures["share of vectors in graphs"] = sum(segment.node_count for segment, _ in graphs) / vectors.count
    return Result("sq8 codes", "senselog", figures)


def main() -> int:
    """Builds, searches, restarts, and shows the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vector_scale", description=__doc__)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--directory", type=Path, help="where the data goes (about 5 KB a vector), and is removed")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    chosen = parser.parse_args()
    console = Console(stderr=True)
    vectors = Vectors(chosen.vectors, chosen.dimensions, chosen.queries)
    truth = Truth(vectors.queries)
    directory = Path(tempfile.mkdtemp(prefix="senselog-million-", dir=chosen.directory))
    process = None
    try:
        process, broker = start_senselog(directory, ("storage.sync=os",), pin=False)
        empty, built = load(broker, vectors, truth)
        results = [built]
        console.print(results[-1].figures)
        for clients in (1, chosen.clients):
            results.append(searches(broker, vectors, truth, clients, empty))
            console.print(results[-1].figures)
        stop_senselog(process)
        results.append(codes(directory, vectors, truth))
        process, broker, result = restart(directory, vectors)
        results.append(result)
        results.append(searches(broker, vectors, truth, chosen.clients, empty, " after the restart"))
    finally:
        if process is not None:
            stop_senselog(process)
        shutil.rmtree(directory, ignore_errors=True)
    show(results, title=f"{chosen.vectors:,} vectors of {chosen.dimensions} dimensions", as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
