"""`make bench-backends`: embedding models beside one another: how fast each is on short log lines, how well it ranks SciFact."""

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from rich.console import Console

from benchmarks.report import Result, show
from benchmarks.search_path import log_lines, ndcg, scifact
from vector.arrays import Float32
from vector.embed.local import model_directory
from vector.embed.port import Embedder, EmbedSettings, Kind
from vector.embed.registry import open_embedder

BACKENDS = ("local:all-MiniLM-L6-v2", "sentence-transformers:all-MiniLM-L6-v2", "hashing")
"""int8 on ONNX Runtime; fp32 on torch; no model at all, as the floor of both figures."""
SHORT_CHARACTERS_MAX = 120
"""A short log line: about 50 tokens; longer ones are cut."""


def backends(*, lines: int, documents: int, console: Console) -> list[Result]:
    """Each backend on the same `lines` distinct log lines, with all cores, and on SciFact with its first `documents` documents."""
    texts = list(dict.fromkeys(line.decode(errors="replace")[:SHORT_CHARACTERS_MAX] for line in log_lines()))
    texts = texts[:: max(len(texts) // lines, 1)][:lines]
    results = []
    for name in BACKENDS:
        console.print(f"{name} …")
        embedder = open_embedder(name, 0, EmbedSettings(model_directory=str(model_directory())))
        _embed(embedder, texts[: embedder.texts_per_call], "passage")  # loads what the first call loads
        started, cpu = time.perf_counter(), time.process_time()
        _embed(embedder, texts, "passage")
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        figures = {
            "distinct texts/s, all cores": len(texts) / seconds,
            "texts per CPU second": len(texts) / cpu,
            f"SciFact nDCG@10 ({documents} documents)": _retrieval(embedder, documents),
        }
        results.append(Result(f"embedding by {name}", "no broker", figures))
        embedder.close()
    _beside(results)
    return results


def _beside(results: list[Result]) -> None:
    """How many times as fast as torch in fp32, per CPU second."""
    torch = results[1].figures["texts per CPU second"]
    for result in results:
        result.figures["times torch fp32"] = result.figures["texts per CPU second"] / torch


def _embed(embedder: Embedder, texts: Sequence[str], kind: Kind) -> Float32:
    """float32[n, d], in calls as large as the backend takes, and as many of them at once."""
    size = embedder.texts_per_call
    calls = [texts[start : start + size] for start in range(0, len(texts), size)]
    with ThreadPoolExecutor(embedder.calls_at_once) as pool:
        return np.concatenate(list(pool.map(lambda call: embedder.embed(call, kind), calls)))


def _retrieval(embedder: Embedder, documents: int) -> float:
    """nDCG@10 of the test queries by exact search; those whose relevant documents are all left out are left out, too."""
    corpus, queries, judgements = scifact()
    corpus = corpus[:documents]
    names = [document["_id"] for document in corpus]
    kept = set(names)
    wanted = [query for query in queries if kept & judgements.get(query["_id"], {}).keys()]
    passages = _embed(embedder, [f"{document['title']} {document['text']}" for document in corpus], "passage")
    asked = _embed(embedder, [query["text"] for query in wanted], "query")
    scores = asked @ passages.T
    ranked = np.argsort(-scores, axis=1)[:, :10]
    values = []
    for query, row in zip(wanted, ranked, strict=True):
        relevant = {name: score for name, score in judgements[query["_id"]].items() if name in kept}
        values.append(ndcg([names[index] for index in row], relevant))
    return float(np.mean(values))


def main() -> int:
    """Runs all of them and shows their figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backends", description=__doc__)
    parser.add_argument("--lines", type=int, default=2_000, help="distinct log lines to embed")
    parser.add_argument("--documents", type=int, default=5_183, help="documents of SciFact to rank (all: 5183)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    chosen = parser.parse_args()
    results = backends(lines=chosen.lines, documents=chosen.documents, console=Console(stderr=True))
    show(results, title="Embedding backends", as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
