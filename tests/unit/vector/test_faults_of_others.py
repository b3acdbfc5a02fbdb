"""Faults seen in other search engines on logs and streams, each a test of its own (research: chronik.md part 4, vector-search.md part 8)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.errors import KafkaError
from protocol.record_batch import Record
from tests.unit.vector.index.model import Record as IndexRecord
from tests.unit.vector.index.model import build_all, content_vector, run_of
from tests.unit.vector.test_search_run import SETTINGS, VECTOR, Topic, place, topic_of
from vector.arrays import Float32
from vector.index.partition_index import PartitionIndex
from vector.index.query import IndexQuery
from vector.index.scoring import similarities, stored_form
from vector.index.settings import IndexSettings

COPIES, OTHERS = 300, 40


@pytest.fixture(scope="module")
def topic() -> Iterator[Topic]:
    """Two partitions; content 3 (disk and error) 300 times, and 40 records of the others, every tenth with key b"rare"."""
    log: list[Any] = [(number % 2, b"copy", b'{"n": %d}' % number, (3,)) for number in range(COPIES)]
    log += [
        (n % 2, b"rare" if n % 10 == 0 else b"other", b'{"n": %d}' % (COPIES + n), (n % 11,)) for n in range(OTHERS)
    ]
    with topic_of(log, 50) as topic:
        yield topic


def keys(topic: Topic, rows: list[tuple[Any, ...]]) -> set[bytes | None]:
    return {topic.logs[row[0]][row[1]].key for row in rows}


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_no_leg_forgets_the_filter(topic: Topic, mode: str) -> None:
    """Chronik merged fresh hits and BM25 hits in without the filter, and never read nested conditions and timestamps."""
    wanted = {"mode": mode, "queries": [{"text": "disk errors"}], "limit": 1000}
    rows, _ = topic.search(filter='{"key": {"eq": "rare"}}', **wanted)
    assert rows
    assert keys(topic, rows) == {b"rare"}
    rows, _ = topic.search(filter='{"must": [{"should": [{"timestamp": {"lt": 1001}}]}]}', **wanted)
    assert rows
    assert {topic.logs[row[0]][row[1]].timestamp_ms for row in rows} == {1000}


def test_a_narrow_filter_still_fills_the_answer(topic: Topic) -> None:
    """pgvector and Chronik filter what the graph happened to return: one hit although dozens match."""
    rows, _ = topic.search(filter='{"must": [{"path": "$.n", "range": {"gte": 310, "lt": 314}}]}', exact=False)
    assert len(rows) == 4


def test_copies_of_one_line_do_not_fill_the_answer(topic: Topic) -> None:
    """168,000 stale duplicates made 478 of 480 queries return the same record."""
    rows, _ = topic.search(limit=11, collapse="text")
    contents = [topic.contents[place(row)] for row in rows]
    assert len(set(contents)) == len(contents) == 11
    assert sum(row[8] + 1 for row in rows) == COPIES + OTHERS


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_partitions_are_merged_best_first(topic: Topic, mode: str) -> None:
    """Chronik's cluster merge kept the worst of every node."""
    query = {"mode": mode, "queries": [{"text": "disk errors"}]}
    whole, _ = topic.search(limit=1000, **query)
    assert [row[3] for row in whole] == sorted((row[3] for row in whole), reverse=True)
    best, _ = topic.search(limit=5, collapse="text", **query)
    assert best[0][3] == pytest.approx(whole[0][3])
    assert len({row[0] for row in whole}) == 2


@pytest.mark.parametrize("text", ["DISK Errors", "  disk\terrors ", "disks error"])
def test_case_blanks_and_endings_find_the_same(topic: Topic, text: str) -> None:
    """Hits vanished for every query with a capital letter or an outer blank."""
    expected, _ = topic.search(mode="text", queries=[{"text": "disk error"}], limit=500)
    assert topic.search(mode="text", queries=[{"text": text}], limit=500)[0] == expected


def test_hybrid_search_has_both_legs(topic: Topic) -> None:
    """The text leg of a hybrid search was an empty list."""
    rows, _ = topic.search(mode="hybrid", queries=[{"text": "disk errors"}], collapse="text", limit=11)
    assert any(row[6] is not None for row in rows)
    assert any(row[7] is not None for row in rows)


def test_a_threshold_is_on_the_similarity_also_of_a_fused_score(topic: Topic) -> None:
    """min_score before or after the fusion, on whatever the score was: here it is always the similarity."""
    near, _ = topic.search(limit=1000)
    least = sorted({row[4] for row in near})[-2]
    rows, _ = topic.search(mode="hybrid", queries=[{"text": "disk errors"}], min_similarity=least, limit=1000)
    assert {place(row) for row in rows} == {place(row) for row in near if row[4] >= least}


def test_the_score_of_a_hit_is_the_similarity_of_what_is_stored(topic: Topic) -> None:
    """A distance called a score, sorted the other way round: orthogonal was a perfect match."""
    rows, _ = topic.search(limit=1000, vectors=True)
    for row in rows[:20]:
        stored = np.frombuffer(row[10], dtype="<f4")
        unit: Float32 = stored_form(VECTOR[None], topic.indexes[0].settings)
        assert row[4] == pytest.approx(float(similarities(stored[None], unit[0], "cosine")[0]), abs=1e-3)
        assert -1.0 <= row[4] <= 1.0


def test_records_that_are_no_text_or_no_json_are_no_error(topic: Topic) -> None:
    """One record that could not be parsed failed the whole index."""
    for value in (b"\xff\xfe{", b'{"n": ', b"[" * 5000, b'{"n": NaN}'):
        number = len(topic.logs[0])
        topic.append(0, Record(number, 1000, b"odd", value, []), (5,))
    rows, _ = topic.search(filter='{"key": {"eq": "odd"}, "must_not": [{"path": "$.n", "exists": true}]}')
    assert len(rows) == 4


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_query_without_a_direction_is_refused(topic: Topic, bad: float) -> None:
    """A zero vector ranked first, NaN returned nothing, each without an error."""
    vector = np.full(6, bad, dtype=np.float32)
    index = topic.indexes[0]
    with pytest.raises(KafkaError, match="vector"):
        index.search(IndexQuery(vector, 10))


def test_nothing_is_missing_while_a_segment_is_sealed() -> None:
    """No results right after an insert, or for minutes at every seal."""
    log: list[Any] = [(0, b"k", b"{}", (n % 12,)) for n in range(60)]
    with topic_of(log, 1000) as topic:
        index, query = topic.indexes[0], IndexQuery(VECTOR, 100)
        expected = index.search(query)
        assert len(expected) == 60
        built = 0
        while (task := index.plan()) is not None:
            assert index.search(query) == expected
            segment = index.build(task)
            assert index.search(query) == expected
            index.swap(task, segment)
            assert index.search(query) == expected
            built += 1
        assert built


def test_an_index_that_was_opened_from_its_files_takes_appends(tmp_path: Path) -> None:
    """FAISS aborts the process when a memory-mapped index is added to; others lost what came after a restart."""
    for start in range(0, 100, 10):
        index = PartitionIndex.open(tmp_path, SETTINGS)
        assert len(index.search(IndexQuery(VECTOR, 1000))) == start
        index.append(run_of([IndexRecord(n, n, (n,)) for n in range(start, start + 10)], start + 10, SETTINGS))
        build_all(index)
        assert len(index.search(IndexQuery(VECTOR, 1000))) == start + 10
        index.close()


def test_what_retention_removed_is_found_by_no_way_of_asking() -> None:
    """Old vectors never went away: FAISS HNSW cannot delete, other engines had no expiry."""
    with topic_of([(0, b"k", b'{"n": %d}' % n, (n % 12,)) for n in range(80)], 10) as topic:
        topic.indexes[0].drop_below(33)
        for exact in (False, True):
            for mode in ("vector", "text", "hybrid"):
                for condition in (None, '{"key": {"eq": "k"}}', '{"must_not": [{"path": "$.n", "eq": 50}]}'):
                    rows, _ = topic.search(
                        mode=mode, exact=exact, filter=condition, limit=1000, queries=[{"text": "disk errors"}]
                    )
                    assert rows
                    assert min(row[1] for row in rows) >= 33


def test_the_largest_dot_product_comes_first(tmp_path: Path) -> None:
    """Scores were negated per partition and sorted the other way round afterwards: the worst half was returned."""
    settings = IndexSettings(6, metric="dot", growing_rows_max=10, exact_matches_max=5)
    records = [IndexRecord(n, n, (n,)) for n in range(60)]
    index = PartitionIndex.open(tmp_path, settings)
    for start in range(0, 60, 10):
        index.append(run_of(records[start : start + 10], start + 10, settings))
        build_all(index)
    products = sorted((float(content_vector(n, 6) @ VECTOR) for n in range(60)), reverse=True)
    found = [hit.similarity for hit in index.search(IndexQuery(VECTOR, 10))]
    assert found == pytest.approx(products[:10], abs=1e-2)
    index.close()
