"""Embedded vector databases under the same load as Senselog: run by `benchmarks.beside_vectors` in a virtual environment of their own.

    python vector_databases.py chroma|lancedb LOAD.npz DIRECTORY

Prints JSON: by share of the offsets the found offsets of each query and the milliseconds it took; and the seconds to load.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

NEIGHBOURS = 10
ROWS_PER_CALL = 5_000

Search = Callable[[np.ndarray, int, int], list[int]]
"""(query float32[d], first offset, offset behind the last) -> offsets found, best first."""


def chroma(rows: np.ndarray, directory: Path) -> Search:
    """Chroma with its defaults (HNSW, cosine) and a metadata filter."""
    import chromadb

    client = chromadb.PersistentClient(str(directory))
    collection = client.create_collection("bench", metadata={"hnsw:space": "cosine"})
    for start in range(0, len(rows), ROWS_PER_CALL):
        offsets = range(start, min(start + ROWS_PER_CALL, len(rows)))
        collection.add(
            ids=[str(offset) for offset in offsets],
            embeddings=rows[start : start + ROWS_PER_CALL],
            metadatas=[{"offset": offset} for offset in offsets],
        )

    def search(query: np.ndarray, first: int, until: int) -> list[int]:
        within = {"$and": [{"offset": {"$gte": first}}, {"offset": {"$lt": until}}]}
        where = None if until - first == len(rows) else within
        found = collection.query(query_embeddings=[query], n_results=NEIGHBOURS, where=where, include=[])
        return [int(name) for name in found["ids"][0]]

    return search


def lancedb(rows: np.ndarray, directory: Path) -> Search:
    """LanceDB with HNSW over scalar-quantised vectors, a scalar index on the offset, and its default pre-filter."""
    import lancedb as lance
    import pyarrow as pa

    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    data = pa.table({"offset": np.arange(len(rows)), "vector": vectors})
    table = lance.connect(str(directory)).create_table("bench", data)
    table.create_index(metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1)
    table.create_scalar_index("offset")

    def search(query: np.ndarray, first: int, until: int) -> list[int]:
        asked = table.search(query).distance_type("cosine").limit(NEIGHBOURS).select(["offset"])
        if until - first < len(rows):
            asked = asked.where(f"offset >= {first} AND offset < {until}")
        return [row["offset"] for row in asked.to_list()]

    return search


def main() -> None:
    """Loads, searches, prints."""
    name, load, directory = sys.argv[1:]
    with np.load(load) as arrays:
        rows, queries, ranges, shares = arrays["rows"], arrays["queries"], arrays["ranges"], arrays["shares"]
    started = time.perf_counter()
    search = {"chroma": chroma, "lancedb": lancedb}[name](rows, Path(directory))
    load_seconds = time.perf_counter() - started
    answers = []
    for place in range(len(shares)):
        found, millis = [], []
        for query, (first, until) in zip(queries, ranges[place].tolist(), strict=True):
            began = time.perf_counter()
            found.append(search(query, first, until))
            millis.append((time.perf_counter() - began) * 1e3)
        answers.append({"found": found, "millis": millis})
    sys.stdout.write(json.dumps({"load_seconds": load_seconds, "answers": answers}))


if __name__ == "__main__":
    main()
