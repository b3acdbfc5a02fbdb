"""Recall against an exact scan, on clusters stored in cluster order: the case in which a filtered graph lies."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.index_recall import clustered, load, measure, records
from vector.arrays import Float32, Int64
from vector.index import build
from vector.index.partition_index import PartitionIndex
from vector.index.planner import MERGE_MIN
from vector.index.query import IndexQuery
from vector.index.sealed import SealedSegment
from vector.index.search import _ask_graph, fetch_count
from vector.index.segment import Trust
from vector.index.selection import Matches
from vector.index.settings import IndexSettings


@pytest.fixture(scope="module", params=[0.0, 0.8], ids=["distinct", "80 % duplicates"])
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PartitionIndex, np.ndarray, np.ndarray]]:
    random = np.random.default_rng(3)
    rows = clustered(6000, 48, 0.5, random)
    contents = records(len(rows), request.param, random)
    settings = IndexSettings(48, growing_rows_max=2000, exact_matches_max=500)
    index = PartitionIndex.open(tmp_path_factory.mktemp("recall") / "index", settings)
    load(index, rows, contents)
    yield index, rows, contents
    index.close()


@pytest.mark.parametrize("selectivity", [1.0, 0.5, 0.1, 0.01, 0.001])
def test_recall_at_every_selectivity(loaded: tuple[PartitionIndex, np.ndarray, np.ndarray], selectivity: float) -> None:
    """recall@10 >= 0.98, and as many hits as there are matches."""
    index, rows, contents = loaded
    result = measure(index, rows, contents, selectivity, 60)
    assert result["recall_at_10"] >= 0.98
    assert result["answers_too_short"] == 0


def test_graphs_were_used(loaded: tuple[PartitionIndex, np.ndarray, np.ndarray]) -> None:
    """The recall above is not that of exact scans alone."""
    index, rows, contents = loaded
    before = index.status()["searches"]["graph"]
    measure(index, rows, contents, 1.0, 30)
    assert index.status()["searches"]["graph"] > before


def test_a_graph_that_was_added_to_finds_as_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a log whose meaning changes as it grows, in which what is added to a graph is always something new."""
    made: list[int] = []
    make = build.build_graph
    monkeypatch.setattr(build, "build_graph", lambda vectors, settings: (made.append(1), make(vectors, settings))[1])
    random = np.random.default_rng(3)
    rows = clustered(MERGE_MIN * 2000, 48, 0.5, random)
    contents = records(len(rows), 0.0, random)
    settings = IndexSettings(48, growing_rows_max=1000, exact_matches_max=1000)
    index = PartitionIndex.open(tmp_path, settings)
    load(index, rows, contents)
    segments = index.status()["segments"]
    assert [segment["vectors"] for segment in segments] == [len(rows), 0]
    assert len(made) == 1
    for selectivity in (1.0, 0.5, 0.1):
        assert measure(index, rows, contents, selectivity, 60)["recall_at_10"] >= 0.98
    index.close()


def test_texts_whose_first_records_retention_removed_are_found_by_the_graph(tmp_path: Path) -> None:
    """Of a few texts repeated for long, then others: all nodes outlive the rebuild, but those texts' nodes come in another order."""
    random = np.random.default_rng(5)
    rows = clustered(3000, 48, 0.5, random)
    hot = np.arange(16)
    repeated = np.tile(hot, 100)
    contents = np.concatenate([repeated, hot[::-1], np.arange(len(hot), len(rows))])
    settings = IndexSettings(48, growing_rows_max=2500, exact_matches_max=500)
    index = PartitionIndex.open(tmp_path, settings)
    load(index, rows, contents)
    index.drop_below(len(repeated))
    while (task := index.plan()) is not None:
        assert task.plan.reason == "rebuild"
        index.swap(task, index.build(task))
    before = index.status()["searches"]["graph"]
    for row in rows[hot]:
        query = IndexQuery(row, limit=10)
        assert index.search(query)[0] == index.search(replace(query, exact=True))[0]
    assert index.status()["searches"]["graph"] > before
    index.close()


def test_a_farther_kind_of_query_is_believed_no_deeper_than_a_nearer_one() -> None:
    """One near a cluster and far enough to count as between two was, and half of what a filter left of it was wrong."""
    near, far = ((128, 40), (256, 80), (1024, 160)), ((512, 160),)
    assert build._both(far, near) == ((512, 80), (1024, 160))
    assert build._both(((64, 320),), near) == near
    assert build._both((), near) == ()


@pytest.mark.parametrize("wrong_by", [0.0, 0.02])
def test_several_graphs_are_rescored_no_deeper_than_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_by: float
) -> None:
    """And as deep as that only where codes are wrong. The hits are those of an exact scan."""
    random = np.random.default_rng(4)
    rows = clustered(6000, 48, 0.5, random)
    index = PartitionIndex.open(tmp_path, IndexSettings(48, growing_rows_max=2000, exact_matches_max=500))
    load(index, rows, random.permutation(len(rows)))
    assert [bool(segment["graph_trust"]) for segment in index.status()["segments"][:3]] == [True] * 3
    rescored: list[int] = []
    read = SealedSegment.rows
    monkeypatch.setattr(SealedSegment, "rows", lambda view, nodes: (rescored.append(len(nodes)), read(view, nodes))[1])
    ask = SealedSegment.graph

    def ask_wrong(view: SealedSegment, vector: Float32, count: int, ef: int) -> tuple[Int64, Float32, float]:
        nodes, scores, near = ask(view, vector, count, ef)
        return nodes, scores + random.uniform(-wrong_by, wrong_by, len(scores)).astype(np.float32), near

    monkeypatch.setattr(SealedSegment, "graph", ask_wrong)
    queries, by_graphs, right, read_in_all = rows[::200], 0, 0, 0
    for row in queries:
        scans = index.status()["searches"]["exact"]
        rescored.clear()
        found = index.search(IndexQuery(row, limit=10))
        if index.status()["searches"]["exact"] == scans:
            by_graphs += 1
            assert sum(rescored) <= fetch_count(10)
            read_in_all += sum(rescored)
        exact = index.search(IndexQuery(row, limit=10, exact=True))
        right += len({hit.offset for hit in found} & {hit.offset for hit in exact})
    assert by_graphs > len(queries) / 2
    assert right >= 0.99 * 10 * len(queries)
    assert (read_in_all > 0.9 * fetch_count(10) * by_graphs) == (wrong_by > 0)
    index.close()


def test_a_sealed_vector_costs_at_most_700_bytes_of_memory_at_384_dimensions(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rows = clustered(1500, 384, 0.5, random)
    index = PartitionIndex.open(tmp_path, IndexSettings(384, growing_rows_max=1500, exact_matches_max=500))
    empty = index.memory_bytes
    load(index, rows, records(len(rows), 0.0, random))
    assert index.status()["segments"][0]["graph_trust"]
    assert (index.memory_bytes - empty) / len(rows) <= 700
    index.close()


class OneGraph:
    """A view whose graph finds the right cluster from a width on; trusted for near queries at 64, for far ones at 1,024."""

    graph_trust = (Trust(0.6, ((64, 10), (256, 80))), Trust(0.3, ((1024, 160),)))

    def __init__(self, right_from: int, closeness: float) -> None:
        self.right_from = right_from
        self.closeness = closeness
        self.widths: list[int] = []

    def graph(self, vector: Float32, count: int, ef: int) -> tuple[Int64, Float32, float]:
        del vector
        self.widths.append(ef)
        near = self.closeness if ef >= self.right_from else 0.1
        return np.arange(count), np.linspace(1, 0, count, dtype=np.float32), near


@pytest.mark.parametrize(
    ("right_from", "closeness", "widths"),
    [
        (0, 0.7, [64]),
        (100, 0.7, [64, 256]),  # it had only ended in the wrong cluster
        (0, 0.4, [64, 256, 1024]),
        (500, 0.7, [64, 256, 1024]),
        (0, 0.2, [64, 256, 1024]),
        (5000, 0.7, [64, 256, 1024]),
    ],
)
def test_a_graph_is_asked_wider_step_by_step(right_from: int, closeness: float, widths: list[int]) -> None:
    """A walk that ended in the wrong cluster is found out by a little more width; how near the query is says whom to believe."""
    view = OneGraph(right_from, closeness)
    found = _ask_graph(view, Matches(None, 1000, 1000), 10, -1, np.ones(4, dtype=np.float32))  # type: ignore[arg-type]
    assert view.widths == widths
    least = 0.6 if right_from <= widths[-1] < 1024 else 0.3
    assert (found is not None) == (right_from <= widths[-1] and closeness >= least)
    assert found is None or len(found[0]) == fetch_count(10)
