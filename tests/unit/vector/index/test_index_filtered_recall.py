"""Recall under every kind of filter, at every selectivity: clusters stored in cluster order, most texts repeated, half of the log gone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.index_recall import clustered
from tests.unit.vector.index.model import build_all, content_hash
from vector.filter.parse import parse_filter
from vector.filter.record_fields import record_fields
from vector.index.fields import fields_of
from vector.index.partition_index import PartitionIndex
from vector.index.query import IndexQuery
from vector.index.settings import Counter, IndexSettings, Run

COUNT, DIMENSIONS, START = 24_000, 32, 12_000
SELECTIVITIES = (0.5, 0.1, 0.01, 0.001)


def fields(offset: int) -> dict[str, Any]:
    """Each record passes the filter of a selectivity by a scattered number in [0, 1)."""
    share = offset * 2654435761 % 2**32 / 2**32
    names = [f"s{selectivity}" for selectivity in SELECTIVITIES if share < selectivity]
    value = f'{{"share": {share}, "tags": [{", ".join(f"{chr(34)}{name}{chr(34)}" for name in names)}]}}'
    return {"key": f"{share:.6f}".encode(), "value": value.encode(), "headers": [(name, b"1") for name in names]}


def conditions(kind: str, selectivity: float) -> dict[str, Any]:
    return {
        "header": {"must": [{"header": f"s{selectivity}", "exists": True}]},
        "path range": {"must": [{"path": "$.share", "range": {"lt": selectivity}}]},
        "path any": {"must": [{"path": "$.tags", "any": [f"s{selectivity}", "nothing"]}]},
        "must not": {"must_not": [{"path": "$.share", "range": {"gte": selectivity}}]},
        "key": {"should": [{"key": {"prefix": f"0.{n:03d}"}} for n in range(max(1, round(200 * selectivity)))]},
        "offsets": {"offset": {"gte": START + 3000, "lt": START + 3000 + int(12_000 * selectivity)}},
    }[kind]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PartitionIndex, np.ndarray]]:
    """80 % of the records repeat a text; a search is made between runs, too, while the index grows."""
    random = np.random.default_rng(5)
    rows = clustered(COUNT // 5, DIMENSIONS, 0.5, random)
    contents = np.sort(np.concatenate([np.arange(len(rows)), random.integers(0, len(rows), COUNT - len(rows))]))
    index = PartitionIndex.open(
        tmp_path_factory.mktemp("filtered") / "index",
        IndexSettings(DIMENSIONS, growing_rows_max=1000, exact_matches_max=200),
    )
    for start in range(0, COUNT, 500):
        offsets = np.arange(start, start + 500)
        some = contents[start : start + 500]
        index.append(
            Run(
                offsets=offsets,
                timestamps_ms=offsets,
                hashes=[content_hash(int(content)) for content in some],
                vectors=rows[some],
                flags=np.zeros(500, dtype=np.uint8),
                skipped=Counter(),
                failed=0,
                next_offset=start + 500,
                fields=fields_of([record_fields(**fields(offset)) for offset in range(start, start + 500)]),
            )
        )
        if start % 2000 == 0:
            assert len(index.search(IndexQuery(rows[0], 7, condition=parse_filter({"key": {"prefix": "0."}})))) == 7
            build_all(index)
    index.drop_below(START)
    yield index, rows
    index.close()


@pytest.mark.parametrize("selectivity", SELECTIVITIES)
@pytest.mark.parametrize("kind", ["header", "path range", "path any", "must not", "key", "offsets"])
def test_recall_of_filtered_searches(index: tuple[PartitionIndex, np.ndarray], kind: str, selectivity: float) -> None:
    """returned = min(limit, matches), and recall@10 >= 0.98 by similarity against an exact scan."""
    searched, rows = index
    wanted = parse_filter(conditions(kind, selectivity))
    matching = len(searched.search(IndexQuery(rows[0], COUNT, condition=wanted, exact=True)))
    assert matching
    found = expected = 0
    for query in rows[:: len(rows) // 40]:
        hits = searched.search(IndexQuery(query, 10, condition=wanted))
        exact = searched.search(IndexQuery(query, 10, condition=wanted, exact=True))
        assert len(hits) == len(exact) == min(10, matching)
        found += sum(hit.similarity >= exact[-1].similarity for hit in hits)
        expected += len(exact)
    assert found / expected >= 0.98
