"""Sampled recall is that of the graph against the exact scan."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.unit.vector.index.model import build_all, content_hash
from vector.index.partition_index import PartitionIndex
from vector.index.query import Candidate, IndexQuery
from vector.index.settings import IndexSettings, Run
from vector.recall import QUERIES_KEPT, SampledRecall, sample_recall, stored_queries


class Index:
    """Finds `missing` of the ten exact hits too few when it may walk its graph."""

    indexed_offset = 100

    def __init__(self, missing: int) -> None:
        self.missing = missing

    def search(self, query: IndexQuery) -> list[Candidate]:
        hits = [Candidate(0, number, 0, 1 - number / 100, 0, 0) for number in range(30)]
        return hits[: query.limit] if query.exact else [*hits[self.missing :]][: query.limit]

    def vectors_at(self, offsets: list[int]) -> dict[int, np.ndarray]:
        return {offset: np.ones(4, dtype=np.float32) for offset in offsets if offset % 2}


@pytest.mark.parametrize("missing", [0, 3, 10])
def test_recall_is_the_share_of_exact_hits_that_the_graph_finds(missing: int) -> None:
    index = Index(missing)
    queries = stored_queries(index, random.Random(1))
    assert queries
    outcomes = sample_recall(index, queries)
    assert outcomes == [pytest.approx(1 - missing / 10)] * len(queries)


def test_the_mean_of_the_latest_is_kept() -> None:
    recall = SampledRecall()
    assert recall.value is None
    recall.add([0.0] * QUERIES_KEPT)
    recall.add([1.0] * QUERIES_KEPT)
    assert recall.value == 1.0


def test_an_index_with_a_graph_is_sampled(tmp_path: Path) -> None:
    """Over a real one, whose graph finds what is there."""
    settings = IndexSettings(dimensions=8, growing_rows_max=600, exact_matches_max=50)
    index = PartitionIndex.open(tmp_path, settings)
    assert not index.has_graph
    vectors = np.random.default_rng(1).standard_normal((1000, 8)).astype(np.float32)
    index.append(
        Run(
            offsets=np.arange(1000, dtype=np.int64),
            timestamps_ms=np.zeros(1000, dtype=np.int64),
            hashes=[content_hash(number) for number in range(1000)],
            vectors=vectors,
            flags=np.zeros(1000, dtype=np.uint8),
            skipped=Counter(),
            failed=0,
            next_offset=1000,
        )
    )
    build_all(index)
    assert index.has_graph
    outcomes = sample_recall(index, stored_queries(index, random.Random(2)))
    assert outcomes
    assert min(outcomes) > 0.8
    index.close()
