"""Faults of other engines that a partition's index could have, each a test of its own (vector-search.md parts 5, 7, 8, chronik.md part 4)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from tests.unit.vector.index.model import Record, build_all, content_hash, run_of
from vector.index import sealed
from vector.index.partition_index import PartitionIndex
from vector.index.query import IndexQuery
from vector.index.sealed import SealedSegment
from vector.index.settings import IndexSettings, Metric

SETTINGS = IndexSettings(6, growing_rows_max=20, exact_matches_max=4, segment_rows_max=200)
VECTOR = np.array([3, 1, -1, 0, 2, 1], dtype=np.float32)
EVERYTHING = IndexQuery(VECTOR, 1000)
RECORDS = [Record(offset, offset, (offset,), 0) for offset in range(100)]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[PartitionIndex]:
    """100 contents in sealed segments and a growing one, merges done."""
    index = PartitionIndex.open(tmp_path / "index", SETTINGS)
    for start in range(0, 100, 10):
        index.append(run_of(RECORDS[start : start + 10], start + 10, SETTINGS))
        build_all(index)
    yield index
    index.close()


def offsets(index: PartitionIndex, query: IndexQuery = EVERYTHING) -> list[int]:
    return [hit.offset for hit in index.search(query)]


def test_equal_texts_are_one_node_of_the_graph(tmp_path: Path) -> None:
    """Qdrant 10239, Lucene 13611, FAISS 1097: a thousand equal points link to one another alone, and the graph falls apart."""
    index = PartitionIndex.open(tmp_path, SETTINGS)
    copies = [Record(offset, offset, (offset % 30,), 0) for offset in range(600)]
    for start in range(0, 600, 50):
        index.append(run_of(copies[start : start + 50], start + 50, SETTINGS))
        build_all(index)
    assert all(segment["vectors"] <= 30 for segment in index.status()["segments"])
    assert len(offsets(index)) == 600
    assert len(index.search(replace(EVERYTHING, collapse=True))) == 30
    index.close()


def test_order_is_total_so_that_pages_repeat_nothing(index: PartitionIndex) -> None:
    """Qdrant 9523, Weaviate 3198: records of equal score came on two pages, or on none."""
    everything = offsets(index)
    for limit in range(1, 100, 7):
        assert offsets(index, replace(EVERYTHING, limit=limit)) == everything[:limit]


def test_a_search_is_as_wide_as_it_says(index: PartitionIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS: SearchParametersHNSW without efSearch is 16 wide, whatever the index was set to; and Chronik's `ef` was never read."""
    widths = []
    real = faiss.SearchParametersHNSW
    monkeypatch.setattr(
        "vector.index.sealed.faiss.SearchParametersHNSW",
        lambda **given: widths.append(given["efSearch"]) or real(**given),  # type: ignore[func-returns-value]
    )
    segment = next(one for one in index._segments if isinstance(one, SealedSegment) and one.graph_bytes)
    sealed._width.cache_clear()
    segment.graph(VECTOR, 5, 64)
    segment.graph(VECTOR, 100, 64)
    assert widths == [64, 100]


def test_no_search_has_a_selector_in_a_graph() -> None:
    """FAISS 5504 and 4727: `bounded_queue=False` ignores the selector, and a narrow one ends the walk too early. Here graphs are asked
    without one (ADR 5)."""
    source = Path(SealedSegment.graph.__code__.co_filename).read_text()
    assert "bounded_queue" not in source
    assert "sel" not in SealedSegment.graph.__code__.co_names


def test_a_sealed_segment_is_never_added_to(index: PartitionIndex) -> None:
    """FAISS: `add` to an index opened by memory mapping aborts the process. What is sealed has no append."""
    assert not hasattr(SealedSegment, "append")
    before = [segment["vectors"] for segment in index.status()["segments"] if segment["kind"] == "sealed"]
    index.append(run_of([Record(100, 100, (5,), 0)], 101, SETTINGS))
    after = [segment["vectors"] for segment in index.status()["segments"] if segment["kind"] == "sealed"]
    assert after == before
    assert 100 in offsets(index)


def test_faiss_has_one_thread_for_each_that_searches(index: PartitionIndex) -> None:
    """FAISS 2731, 2502: every thread that searches owned a pool of all cores."""
    index.search(EVERYTHING)
    assert faiss.omp_get_max_threads() == 1


def test_a_restart_opens_graphs_and_builds_none(index: PartitionIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chronik rebuilt every graph at start, before its ports were open, and answered in part without saying so."""
    before = offsets(index)
    index.close()

    def no_build(*_: object) -> None:
        raise AssertionError("a graph was built")

    monkeypatch.setattr("vector.index.build.build_graph", no_build)
    again = PartitionIndex.open(index.directory, SETTINGS)
    assert again.indexed_offset == 100
    assert offsets(again) == before
    assert again.has_graph
    again.close()


def test_known_contents_are_not_asked_of_the_model_again(index: PartitionIndex) -> None:
    """onyx 14176, haystack 11763: the same text was paid for again and again, after restarts most of all."""
    index.close()
    again = PartitionIndex.open(index.directory, SETTINGS)
    assert len(again.known_vectors([content_hash(record.offset) for record in RECORDS])) == 100
    again.close()


def test_places_that_faiss_leaves_empty_are_no_hits(index: PartitionIndex) -> None:
    """Where fewer are found than were asked for, FAISS answers -1, which is a place in every array of Python's."""
    segment = next(one for one in index._segments if isinstance(one, SealedSegment) and one.graph_bytes)
    nodes, _, _ = segment.graph(VECTOR, 10 * segment.node_count, 64)
    assert 0 < len(nodes) <= segment.node_count
    assert set(nodes.tolist()) <= set(range(segment.node_count))
    mask = np.zeros(segment.node_count, dtype=bool)
    mask[[1, 3]] = True
    assert set(segment.exact(VECTOR, mask, 50).tolist()) == {1, 3}


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_every_metric_is_the_same_after_a_restart(metric: Metric, tmp_path: Path) -> None:
    """FAISS derives anew whether higher is better when it reads a file; whoever read it wrong had the farthest first."""
    settings = replace(SETTINGS, metric=metric)
    index = PartitionIndex.open(tmp_path, settings)
    for start in range(0, 100, 10):
        index.append(run_of(RECORDS[start : start + 10], start + 10, settings))
        build_all(index)
    queries = [replace(EVERYTHING, limit=limit, exact=exact) for limit in (5, 1000) for exact in (True, False)]
    before = [index.search(query) for query in queries]
    assert all(hits[0].similarity > hits[-1].similarity for hits in before)
    index.close()
    again = PartitionIndex.open(tmp_path, settings)
    assert again.has_graph
    assert [again.search(query) for query in queries] == before
    again.close()
