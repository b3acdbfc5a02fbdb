"""`make bench-vectors`: the same vectors and searches in Senselog, over Kafka's wire, and in embedded vector databases; with recall.

Vectors are producer-sent: 200 clusters of 150, stored in cluster order, so that a range of offsets is a region of meaning, and
asked from any cluster: the hardest case for a graph with a filter. Truth is an exact scan with numpy. One client, one query at a
time; the databases are libraries in a process of their own, without a wire between.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from senselog_client import SenselogClient

from benchmarks import librdkafka, search_path
from benchmarks.brokers import Broker, senselog
from benchmarks.loads import percentile, topic_name
from benchmarks.report import Result, show

CLUSTERS = 200
NEIGHBOURS = 10
SHARES = (1.0, 0.5, 0.1, 0.01, 0.001)
DATABASES = ("chroma", "lancedb")


@dataclass(frozen=True, slots=True)
class Load:
    """`rows` float32[n, d] and `queries` float32[q, d] of unit length; `ranges` int64[share, q, 2]: the offsets of each search."""

    rows: np.ndarray
    queries: np.ndarray
    ranges: np.ndarray

    def truth(self, place: int) -> list[set[int]]:
        """The nearest offsets of each query within its range, by an exact scan."""
        answers = []
        for query, (first, until) in zip(self.queries, self.ranges[place].tolist(), strict=True):
            scores = self.rows[first:until] @ query
            count = min(NEIGHBOURS, until - first)
            answers.append({first + int(row) for row in np.argpartition(-scores, count - 1)[:count]})
        return answers


def make_load(vectors: int, dimensions: int, queries: int, seed: int) -> Load:
    """Unit vectors around 200 random centres, in cluster order; queries around the same centres, ranges anywhere."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((CLUSTERS, dimensions)).astype(np.float32)

    def around(labels: np.ndarray) -> np.ndarray:
        found = centres[labels] + 0.5 * random.standard_normal((len(labels), dimensions)).astype(np.float32)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)

    rows = around(np.sort(np.arange(vectors) % CLUSTERS))
    ranges = np.zeros((len(SHARES), queries, 2), dtype=np.int64)
    for place, share in enumerate(SHARES):
        width = max(int(vectors * share), 1)
        ranges[place, :, 0] = random.integers(0, vectors - width + 1, queries)
        ranges[place, :, 1] = ranges[place, :, 0] + width
    return Load(rows, around(random.integers(0, CLUSTERS, queries)), ranges)


def figures(name: str, load: Load, place: int, found: Sequence[Sequence[int]], millis: list[float]) -> Result:
    """Recall against the exact scan beside the latencies; raises RuntimeError for an answer with a hit outside of its range."""
    wanted = load.truth(place)
    for hits, (first, until) in zip(found, load.ranges[place].tolist(), strict=True):
        if not all(first <= hit < until for hit in hits):
            raise RuntimeError(f"{name}: a hit outside of the offsets {first} to {until}")
    right = sum(len(set(hits) & truth) for hits, truth in zip(found, wanted, strict=True))
    return Result(
        f"search, {SHARES[place]:.1%} of the offsets",
        name,
        {
            "recall@10": right / sum(map(len, wanted)),
            "answers of full length": float(np.mean([len(a) == len(b) for a, b in zip(found, wanted, strict=True)])),
            "p50 ms": percentile(millis, 0.5),
            "p99 ms": percentile(millis, 0.99),
        },
    )


def senselog_results(broker: Broker, load: Load) -> list[Result]:
    """Loads through librdkafka with the vectors in a header, searches through the client library."""
    topic = topic_name("vectors")
    configs = {"vector.embedding.model": "none", "vector.dimensions": str(load.rows.shape[1])}
    librdkafka.create_topic(broker.bootstrap, topic, 1, **search_path.VECTORS, **configs)
    send = search_path.producer(broker)
    started = time.perf_counter()
    for number, row in enumerate(load.rows):
        send.produce(topic, value=str(number), headers=[("senselog.vector", row.tobytes())])
        send.poll(0)
    send.flush()
    search_path.wait_indexed(broker, topic, len(load.rows))
    results = [Result("load", "senselog", {"vectors/s": len(load.rows) / (time.perf_counter() - started)})]
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
        for place in range(len(SHARES)):
            found, millis = [], []
            for query, (first, until) in zip(load.queries, load.ranges[place].tolist(), strict=True):
                within = None if until - first == len(load.rows) else {"min_offset": first, "max_offset": until - 1}
                began = time.perf_counter()
                answer = client.search(topic, vector=query, limit=NEIGHBOURS, filter=within, include=())
                millis.append((time.perf_counter() - began) * 1e3)
                found.append([hit.offset for hit in answer])
            results.append(figures("senselog", load, place, found, millis))
    return results


def database_results(name: str, python: Path, load: Load, directory: Path) -> list[Result]:
    """One embedded database in a process of its own, with the interpreter that has it."""
    file = directory / "load.npz"
    np.savez(file, rows=load.rows, queries=load.queries, ranges=load.ranges, shares=np.array(SHARES))
    command = [
        str(python),
        str(Path(__file__).with_name("vector_databases.py")),
        name,
        str(file),
        str(directory / name),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer = json.loads(done.stdout)
    results = [Result("load", name, {"vectors/s": len(load.rows) / answer["load_seconds"]})]
    for place, one in enumerate(answer["answers"]):
        results.append(figures(name, load, place, one["found"], one["millis"]))
    return results


def main() -> int:
    """Runs all of them and shows their figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside_vectors", description=__doc__)
    parser.add_argument("--vectors", type=int, default=30_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200, help="searches for each share of the offsets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--databases", type=Path, help="the Python of an environment with chromadb and lancedb")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    chosen = parser.parse_args()
    console = Console(stderr=True)
    load = make_load(chosen.vectors, chosen.dimensions, chosen.queries, chosen.seed)
    console.print("Senselog …")
    with senselog(("storage.sync=os",), pin=False) as broker:
        results = senselog_results(broker, load)
    for name in DATABASES if chosen.databases else ():
        console.print(f"{name} …")
        with tempfile.TemporaryDirectory(prefix="vectors-bench-") as directory:
            results += database_results(name, chosen.databases, load, Path(directory))
    show(results, title="Vectors", as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
