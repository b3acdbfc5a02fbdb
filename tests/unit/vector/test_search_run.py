"""Collapse and pages over two partitions, against one long exact answer and a plain look at the records."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.errors import KafkaError
from protocol.record_batch import Record
from tests.unit.vector.filter.model import data, values
from tests.unit.vector.index.model import build_all, content_hash, content_vector
from vector.cursor import Cursor, decode_cursor, encode_cursor
from vector.filter.record_fields import all_values, record_fields
from vector.index import fields as columns
from vector.index.fusion import fuse
from vector.index.hits import RecordHit
from vector.index.partition_index import PartitionIndex
from vector.index.settings import IndexSettings, Run
from vector.query_points import Point
from vector.request import collapse_column
from vector.search_run import Snapshot, read_cursors, run_search
from vector.shard import Shard
from vector.shards import AskShard, Shards

SETTINGS = IndexSettings(6, growing_rows_max=6, exact_matches_max=4, segment_rows_max=30, seal_rows_min=1, texts=True)
WORDS = ("disk", "error", "user")
TOPIC = b"t" * 16
VECTOR = np.ones(6, dtype=np.float32)


def text_of(content: int) -> str:
    """Three words for each content: those of its bits, the others its own."""
    words = [word if content >> bit & 1 else f"nothing{content}x{bit}" for bit, word in enumerate(WORDS)]
    return f"{words[0]} {words[1].upper()}, {words[2]}s"


@dataclass
class Topic:
    """Partitions with their records; a record has one text or several pieces."""

    indexes: dict[int, PartitionIndex]
    logs: dict[int, list[Record]]
    contents: dict[tuple[int, int], tuple[int, ...]]
    workers: tuple[tuple[int, ...], ...] = ((0, 1),)
    """Which partitions each worker has."""

    def append(self, partition: int, record: Record, contents: tuple[int, ...]) -> None:
        self.logs[partition].append(record)
        self.contents[partition, record.offset] = contents
        count = len(contents)
        self.indexes[partition].append(
            Run(
                offsets=np.full(count, record.offset),
                timestamps_ms=np.full(count, record.timestamp_ms),
                hashes=[content_hash(content) for content in contents],
                vectors=np.array([content_vector(content, 6) for content in contents], dtype=np.float32),
                flags=np.zeros(count, dtype=np.uint8),
                skipped=Counter(),
                failed=0,
                next_offset=record.offset + 1,
                texts={content_hash(content): text_of(content) for content in contents if content != 11},
                fields=columns.fields_of([record_fields(record.key, record.value, record.headers, entries_max=2)]),
            )
        )

    def read(self, partition: int, offsets: Sequence[int]) -> Mapping[int, Record]:
        return {offset: self.logs[partition][offset] for offset in offsets}

    def search(self, **given: Any) -> tuple[list[tuple[Any, ...]], bytes | None]:
        message = {
            "queries": [{"vector": VECTOR.tobytes()}], "limit": 10, "min_similarity": None, "filter": None, "collapse": None,
            "partitions": [{"partition": p, "from": -1, "until": -1, "log_start": 0} for p in self.indexes],
            "from_timestamp": -1, "until_timestamp": -1, "exact": True, "ef": -1, "vectors": False, "cursor": None,
            "mode": "vector", "fusion": "rrf", "vector_weight": 0.5,
        } | given  # fmt: skip
        snapshot = Snapshot(TOPIC, 1, {p: index.indexed_offset for p, index in self.indexes.items()})
        mode = message["mode"]
        point = Point(None if mode == "text" else VECTOR, None if mode == "vector" else message["queries"][0]["text"])
        cursors = read_cursors(message, snapshot)
        shards = [
            Shard({p: self.indexes[p] for p in of_worker}, message, cursors[0].up_to, self.read)
            for of_worker in self.workers
        ]
        (result,) = run_search(
            Shards(shards[0], [asked_over_a_channel(one) for one in shards[1:]]), [point], message, cursors
        )
        return result


def asked_over_a_channel(shard: Shard) -> AskShard:
    """Another worker's: what goes there and comes back is msgpack."""

    def ask(method: str, arguments: tuple[Any, ...]) -> "Future[Any]":
        future: Future[Any] = Future()
        sent = msgpack.unpackb(msgpack.packb(arguments), strict_map_key=False)
        future.set_result(msgpack.unpackb(msgpack.packb(getattr(shard, method)(*sent)), strict_map_key=False))
        return future

    return ask


@contextmanager
def topic_of(records: Sequence[tuple[int, bytes | None, bytes | None, tuple[int, ...]]], step: int) -> Iterator[Topic]:
    with tempfile.TemporaryDirectory() as directory:
        indexes = {p: PartitionIndex.open(Path(directory) / str(p), SETTINGS) for p in (0, 1)}
        topic = Topic(indexes, {0: [], 1: []}, {})
        for number, (partition, key, value, contents) in enumerate(records):
            record = Record(len(topic.logs[partition]), 1000 + number % 7, key, value, [("a", key)])
            topic.append(partition, record, contents)
            if number % step == 0:
                build_all(indexes[partition])
        try:
            yield topic
        finally:
            for index in indexes.values():
                index.close()


texts = st.lists(st.integers(0, 11), min_size=1, max_size=3, unique=True).map(tuple) | st.integers(0, 11).map(
    lambda n: (n,)
)
logs = st.lists(st.tuples(st.integers(0, 1), st.none() | data, values, texts), max_size=30)
quick = settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


def place(row: tuple[Any, ...]) -> tuple[int, int]:
    return row[0], row[1]


@given(
    log=logs,
    collapse=st.sampled_from(["key", "header:a", "$.a", "$.f"]),
    limit=st.integers(1, 40),
    step=st.integers(1, 9),
)
@quick
def test_collapse_leaves_the_best_of_each_group_and_counts_the_others(
    log: list[Any], collapse: str, limit: int, step: int
) -> None:
    """Values that were cut or did not fit into the columns included: two groups are never one."""
    with pytest.MonkeyPatch.context() as patch, topic_of(log, step) as topic:
        patch.setattr(columns, "VALUE_BYTES_MAX", 4)
        everything, _ = topic.search(limit=1000)
        groups: dict[Any, list[tuple[int, int]]] = {}
        for row in everything:
            record = topic.logs[row[0]][row[1]]
            found = all_values(record.key, record.value, record.headers).get(collapse_column(collapse))
            groups.setdefault(found[0] if found else place(row), []).append(place(row))
        expected = [(members[0], len(members) - 1) for members in groups.values()][:limit]
        assert [(place(row), row[8]) for row in topic.search(limit=limit, collapse=collapse)[0]] == expected


@given(
    log=logs, limit=st.integers(1, 12), step=st.integers(1, 9), collapse=st.sampled_from([None, "text", "key", "$.a"])
)
@quick
def test_pages_are_one_long_answer(log: list[Any], limit: int, step: int, collapse: str | None) -> None:
    """No repeats and nothing left out, although records arrive and segments are built between the pages."""
    with topic_of(log, step) as topic:
        whole, _ = topic.search(limit=1000, collapse=collapse)
        pages: list[tuple[Any, ...]] = []
        cursor: bytes | None = None
        while True:
            rows, cursor = topic.search(limit=limit, collapse=collapse, cursor=cursor)
            pages += rows
            if cursor is None:
                break
            assert len(rows) == limit
            topic.append(0, Record(len(topic.logs[0]), 2000, None, None, []), (0,))
            build_all(topic.indexes[0])
        assert [place(row) for row in pages] == [place(row) for row in whole]
        assert [row[6] for row in pages] == list(range(1, len(pages) + 1))
        assert [row[8] for row in pages] == [row[8] for row in whole]


@given(log=logs, step=st.integers(1, 9))
@quick
def test_example_records_are_no_hits(log: list[Any], step: int) -> None:
    with topic_of(log, step) as topic:
        everything, _ = topic.search(limit=1000)
        examples = [place(row) for row in everything[:3]]
        query = (
            {"positive": [{"record": examples[0]}], "negative": [{"record": one} for one in examples[1:]]}
            if examples
            else {}
        )
        rows, _ = topic.search(limit=1000, queries=[query])
        assert [place(row) for row in rows] == [place(row) for row in everything if place(row) not in examples]


def having(topic: Topic, words: Sequence[str]) -> dict[tuple[int, int], int]:
    """The most of the words that one text of a record has; content 11 has no text."""
    wanted = [bit for bit, word in enumerate(WORDS) if word in words]
    counts = {
        where: max([sum(c >> bit & 1 for bit in wanted) for c in contents if c != 11], default=0)
        for where, contents in topic.contents.items()
    }
    return {where: count for where, count in counts.items() if count}


@given(
    log=logs,
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
    limit=st.integers(1, 40),
    step=st.integers(1, 9),
    first=st.integers(0, 20),
    few=st.booleans(),
)
@quick
def test_mode_text_finds_every_record_with_a_word(
    log: list[Any], words: list[str], limit: int, step: int, first: int, few: bool
) -> None:
    """returned = min(limit, matches) under a filter too, in the order of the long answer, whichever way matches are fetched."""
    with pytest.MonkeyPatch.context() as patch, topic_of(log, step) as topic:
        patch.setattr("vector.index.text_search.NODES_ASKED_FOR_MAX", 2000 if few else 0)
        query = {"mode": "text", "queries": [{"text": " ".join(words).title()}]}
        everything, _ = topic.search(limit=1000, **query)
        assert {place(row) for row in everything} == set(having(topic, words))
        assert [(row[3], row[4]) for row in everything] == [(row[5], None) for row in everything]
        assert [row[3] for row in everything] == sorted((row[3] for row in everything), reverse=True)
        wanted = [place(row) for row in everything if row[1] >= first]
        conditions = f'{{"offset": {{"gte": {first}}}}}'
        rows, _ = topic.search(limit=limit, filter=conditions, **query)
        assert {place(row) for row in rows} <= set(wanted)
        assert len(rows) == min(limit, len(wanted))
        seen: list[tuple[int, int]] = []
        cursor = None
        while True:
            rows, cursor = topic.search(limit=limit, filter=conditions, cursor=cursor, **query)
            seen += [place(row) for row in rows]
            if cursor is None:
                break
        assert sorted(seen) == sorted(wanted)


@given(log=logs, step=st.integers(1, 9))
@quick
def test_a_word_weighs_the_same_in_every_segment(log: list[Any], step: int) -> None:
    """Texts of one length: the scores of many segments are those of one."""
    single = [(0, key, value, contents[:1]) for _, key, value, contents in log]
    distinct = {contents[0]: one for one in single for contents in [one[3]]}
    with topic_of(list(distinct.values()), step) as several, topic_of(list(distinct.values()), 1000) as other:
        query = {"mode": "text", "queries": [{"text": "disk errors"}], "limit": 100}
        found = {place(row): row[3] for row in several.search(**query)[0]}
        expected = {place(row): row[3] for row in other.search(**query)[0]}
        assert found == pytest.approx(expected, rel=1e-4)


@given(
    log=logs,
    limit=st.integers(1, 40),
    step=st.integers(1, 9),
    fusion=st.sampled_from(["rrf", "weighted"]),
    collapse=st.sampled_from([None, "text", "key"]),
    least=st.none() | st.floats(-1, 1),
)
@quick
def test_mode_hybrid_finds_as_many_as_mode_vector(
    log: list[Any], limit: int, step: int, fusion: str, collapse: str | None, least: float | None
) -> None:
    """Every record that passes is a match; similarities are those of mode vector, text scores those of mode text."""
    with topic_of(log, step) as topic:
        options = {"collapse": collapse, "min_similarity": least}
        near, _ = topic.search(limit=1000, **options)
        rows, _ = topic.search(limit=limit, mode="hybrid", fusion=fusion, queries=[{"text": "disk users"}], **options)
        assert len(rows) == min(limit, len(near))
        assert len({place(row) for row in rows}) == len(rows)
        assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)
        if collapse is None:
            best = {place(row): row[4] for row in near}
            for row in rows:
                assert row[4] == pytest.approx(best[place(row)], abs=1e-6)
                assert (row[5] is None) == (row[7] is None)


def test_a_text_that_both_lists_show_by_different_records_is_fused_once() -> None:
    """A text of two partitions was two candidates with half its score each, and in long answers its records came twice."""
    near = RecordHit(0.9, 5, 0, 7, b"same", 0, 1, 0, None, None)
    worded = RecordHit(3.1, 5, 1, 4, b"same", 0, 1, 0, None, 0.9)
    (fused,) = fuse([near], [worded], "rrf", 0.5, by_text=True)
    assert (fused.vector_rank, fused.text_rank, fused.text_score, fused.score) == (1, 1, 3.1, pytest.approx(1 / 61))
    assert len(fuse([near], [worded], "rrf", 0.5, by_text=False)) == 2


@given(
    log=logs,
    limit=st.integers(1, 12),
    step=st.integers(1, 9),
    mode=st.sampled_from(["vector", "text", "hybrid"]),
    fusion=st.sampled_from(["rrf", "weighted"]),
    collapse=st.sampled_from([None, "text", "key", "$.a"]),
    conditions=st.sampled_from([None, '{"offset": {"gte": 3}}']),
)
@quick
def test_partitions_of_two_workers_are_searched_as_those_of_one(
    log: list[Any], limit: int, step: int, mode: str, fusion: str, collapse: str | None, conditions: str | None
) -> None:
    """Hits, scores, ranks, duplicates, vectors and cursors, page by page."""
    with topic_of(log, step) as topic:
        query = {"mode": mode, "fusion": fusion, "collapse": collapse, "filter": conditions, "limit": limit}
        query |= {"vectors": True, "queries": [{"text": "disk users"}]}
        cursor = None
        while True:
            topic.workers = ((0, 1),)
            whole, next_cursor = topic.search(cursor=cursor, **query)
            topic.workers = ((0,), (1,))
            rows, other_cursor = topic.search(cursor=cursor, **query)
            assert [comparable(row) for row in rows] == [comparable(row) for row in whole]
            assert next_cursor == other_cursor
            cursor = next_cursor
            if cursor is None:
                break


def comparable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A matrix of another shape may round the last bit differently."""
    return tuple(round(value, 5) if isinstance(value, float) else value for value in row)


CURSOR = Cursor(TOPIC, 3, b"s" * 8, {0: 9}, [(0, 4, 0), (1, 2**40, 2)])


def test_a_cursor_is_read_back() -> None:
    encoded = encode_cursor(CURSOR)
    assert encoded is not None
    assert decode_cursor(encoded, TOPIC, 3, b"s" * 8) == Cursor(TOPIC, 3, b"s" * 8, {0: 9}, ((0, 4, 0), (1, 2**40, 2)))


@pytest.mark.parametrize(
    ("topic_id", "generation", "search", "reason"),
    [
        (b"u" * 16, 3, b"s" * 8, "belongs to another topic"),
        (TOPIC, 4, b"s" * 8, "has expired"),
        (TOPIC, 3, b"r" * 8, "belongs to another search"),
    ],
)
def test_a_cursor_of_something_else_says_so(topic_id: bytes, generation: int, search: bytes, reason: str) -> None:
    with pytest.raises(KafkaError, match=f"cursor: {reason}"):
        decode_cursor(encode_cursor(CURSOR) or b"", topic_id, generation, search)


@given(st.binary(max_size=60), st.integers(0, 80), st.integers(1, 255))
def test_bytes_that_are_no_cursor_are_refused(anything: bytes, at: int, flip: int) -> None:
    encoded = bytearray(encode_cursor(CURSOR) or b"")
    encoded[at % len(encoded)] ^= flip
    for given_bytes in (anything, bytes(encoded), bytes(encoded[:at])):
        try:
            assert decode_cursor(given_bytes, TOPIC, 3, b"s" * 8).returned == tuple(CURSOR.returned)
        except KafkaError as error:
            assert error.message.startswith("cursor: ")  # noqa: PT017  # a flip in what zlib does not read is none


def test_the_deepest_page_has_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vector.cursor.DEPTH_MAX", 2)
    assert encode_cursor(CURSOR) is None
