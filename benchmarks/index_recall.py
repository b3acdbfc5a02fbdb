"""The vector index alone: recall, latency, build rate and memory at each filter selectivity, beside exact search in the same run.

    python -m benchmarks.index_recall [--vectors 100000] [--dimensions 384] [--duplicates 0.8] [--json]

Vectors are synthetic clusters, stored in cluster order, so that an offset range is also a region of meaning: the hardest case
for a graph with a filter. Truth is an exact scan with numpy over the same stored vectors. Latencies are of one thread.
"""

import argparse
import json
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from vector.index.partition_index import PartitionIndex
from vector.index.query import Candidate, IndexQuery
from vector.index.scoring import stored_form
from vector.index.settings import IndexSettings, Run

RUN_RECORDS = 1000
NEIGHBOURS = 10
SELECTIVITIES = (1.0, 0.5, 0.1, 0.01, 0.001)


def clustered(vectors: int, dimensions: int, spread: float, random: np.random.Generator) -> np.ndarray:
    """float32[n, d], unit length, about 100 vectors a cluster, in cluster order. `spread`: noise against centre, 1 = equal."""
    centres = random.standard_normal((max(1, vectors // 100), dimensions)).astype(np.float32)
    label = np.sort(random.integers(0, len(centres), vectors))
    rows = centres[label] + np.float32(spread) * random.standard_normal((vectors, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def records(vectors: int, duplicates: float, random: np.random.Generator) -> np.ndarray:
    """Content of each record: every content once, in order, and between them repeats of ten hot ones and of recent ones."""
    repeats = int(vectors * duplicates / (1 - duplicates))
    places = np.sort(random.integers(1, vectors + 1, repeats))
    hot = random.integers(0, vectors, 10)
    recent = (places * random.random(repeats)).astype(np.int64)
    chosen = np.where(random.random(repeats) < 0.5, hot[random.integers(0, 10, repeats)], recent)
    return np.insert(np.arange(vectors), places, chosen)


def load(index: PartitionIndex, rows: np.ndarray, contents: np.ndarray) -> tuple[float, float]:
    """Appends all records, builds all segments; seconds of each."""
    hashes = [int(content).to_bytes(16, "big") for content in range(len(rows))]
    appending = building = 0.0
    for start in range(0, len(contents), RUN_RECORDS):
        chunk = contents[start : start + RUN_RECORDS]
        end = start + len(chunk)
        offsets = np.arange(start, end, dtype=np.int64)
        names = [hashes[content] for content in chunk]
        began = time.perf_counter()
        index.append(Run(offsets, offsets, names, rows[chunk], np.zeros(len(chunk), np.uint8), Counter(), 0, end))
        appending += time.perf_counter() - began
        began = time.perf_counter()
        while (task := index.plan()) is not None:
            index.swap(task, index.build(task))
        building += time.perf_counter() - began
    index.checkpoint()
    return appending, building


def timed(
    search: Callable[[IndexQuery], list[Candidate]], queries: list[IndexQuery]
) -> tuple[list[list[Candidate]], np.ndarray]:
    """Answers and milliseconds of each."""
    answers, millis = [], []
    for query in queries:
        began = time.perf_counter()
        answers.append(search(query))
        millis.append((time.perf_counter() - began) * 1e3)
    return answers, np.array(millis)


def measure(
    index: PartitionIndex, rows: np.ndarray, contents: np.ndarray, selectivity: float, count: int
) -> dict[str, Any]:
    """Recall@10 over distinct contents and by the score of records, latency of the index and of its exact search."""
    random = np.random.default_rng(7)
    total = len(contents)
    width = max(1, int(total * selectivity))
    queries, exact, recalls, short = [], [], [], 0
    for _ in range(count):
        first = int(random.integers(0, total - width + 1))
        near = rows[random.integers(0, len(rows))] + np.float32(0.5 / np.sqrt(rows.shape[1])) * random.standard_normal(
            rows.shape[1]
        )
        query = IndexQuery(near.astype(np.float32), NEIGHBOURS, first, first + width, collapse=True)
        queries.append(query)
        exact.append(IndexQuery(query.vector, NEIGHBOURS, first, first + width, collapse=True, exact=True))
    answers, millis = timed(index.search, queries)
    _, exact_millis = timed(index.search, exact)
    stored = stored_form(rows, index.settings)
    for query, answer in zip(queries, answers, strict=True):
        scores = np.full(len(rows), -np.inf, dtype=np.float32)
        inside = np.unique(contents[query.offset_from : query.offset_until])
        scores[inside] = stored[inside] @ (query.vector / np.linalg.norm(query.vector))
        wanted = min(NEIGHBOURS, len(inside))
        truth = set(np.argpartition(-scores, wanted - 1)[:wanted].tolist())
        found = {int(contents[hit.offset]) for hit in answer}
        recalls.append(len(truth & found) / wanted)
        short += len(answer) != wanted
    return {
        "selectivity": selectivity,
        "recall_at_10": round(float(np.mean(recalls)), 4),
        "answers_too_short": short,
        "p50_ms": round(float(np.median(millis)), 3),
        "p99_ms": round(float(np.percentile(millis, 99)), 3),
        "exact_p50_ms": round(float(np.median(exact_millis)), 3),
        "exact_over_index": round(float(np.median(exact_millis) / np.median(millis)), 2),
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    random = np.random.default_rng(arguments.seed)
    rows = clustered(arguments.vectors, arguments.dimensions, arguments.spread, random)
    contents = records(len(rows), arguments.duplicates, random)
    with tempfile.TemporaryDirectory() as folder:
        settings = IndexSettings(arguments.dimensions, storage=arguments.storage)
        index = PartitionIndex.open(Path(folder) / "index", settings)
        appending, building = load(index, rows, contents)
        began = time.perf_counter()
        index.close()
        index = PartitionIndex.open(Path(folder) / "index", settings)
        reopening = time.perf_counter() - began
        results = [measure(index, rows, contents, selectivity, arguments.queries) for selectivity in SELECTIVITIES]
        status = index.status()
        index.close()
    sealed = [segment for segment in status["segments"] if segment["kind"] == "sealed"]
    sealed_vectors = sum(segment["vectors"] for segment in sealed)
    growing_bytes = sum(segment["bytes"] for segment in status["segments"] if segment["kind"] != "sealed")
    return {
        "machine": {"cpu": platform.processor() or platform.machine(), "python": platform.python_version(), "faiss": faiss.__version__},
        "vectors": len(rows), "records": len(contents), "dimensions": arguments.dimensions, "storage": arguments.storage,
        "append_records_per_s": round(len(contents) / appending),
        "build_vectors_per_s": round(len(rows) / building) if building else None,
        "reopen_s": round(reopening, 3),
        "ram_bytes_per_sealed_vector": round((status["memory_bytes"] - growing_bytes) / max(1, sealed_vectors)),
        "disk_bytes_per_sealed_vector": round(status["disk_bytes"] / max(1, sealed_vectors)),
        "segments": status["segments"],
        "searches": status["searches"],
        "results": results,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=50_000, help="distinct contents")
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--duplicates", type=float, default=0.0, help="share of records whose content was seen before")
    parser.add_argument(
        "--spread", type=float, default=0.5, help="noise within a cluster against the distance of clusters"
    )
    parser.add_argument("--storage", choices=["sq8", "fp16", "fp32"], default="sq8")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = run(arguments)
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    print({name: value for name, value in result.items() if name not in ("results", "segments")})
    for segment in result["segments"]:
        print(segment)
    columns = list(result["results"][0])
    print("  ".join(f"{name:>17}" for name in columns))
    for line in result["results"]:
        print("  ".join(f"{line[name]:>17}" for name in columns))


if __name__ == "__main__":
    main()
