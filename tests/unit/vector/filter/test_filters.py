"""Filters against a plain predicate over every record, with columns so small that much does not fit into them."""

import json
import tempfile
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from protocol.record_batch import Record
from tests.unit.vector.filter.model import PARTITION, filters, logs, meets
from tests.unit.vector.index.model import build_all, content_hash, content_vector
from vector.check import check_index
from vector.filter.parse import parse_filter
from vector.filter.record_fields import VECTOR_HEADER, all_values, record_fields
from vector.filter.tree import Subject, passes
from vector.index import fields as columns
from vector.index.partition_index import PartitionIndex
from vector.index.query import IndexQuery
from vector.index.settings import IndexSettings, Run

SETTINGS = IndexSettings(6, growing_rows_max=8, exact_matches_max=4, segment_rows_max=30, seal_rows_min=1)


@pytest.fixture(params=["roomy", "tight"])
def space(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """tight: cut strings, few columns, few values of a record."""
    if request.param == "tight":
        monkeypatch.setattr(columns, "VALUE_BYTES_MAX", 4)
        monkeypatch.setattr(columns, "COLUMNS_MAX", 3)
        monkeypatch.setattr(columns, "PARTS_PER_MERGE", 2)
    return str(request.param)


def run_of(some: Sequence[Record], next_offset: int, *, tight: bool) -> Run:
    """Three contents in turn, so that nodes have several records; `tight`: three values of a record, JSON of 20 bytes."""
    limits = {"entries_max": 3, "json_bytes_max": 20} if tight else {}
    return Run(
        offsets=np.array([record.offset for record in some], dtype=np.int64),
        timestamps_ms=np.array([record.timestamp_ms for record in some], dtype=np.int64),
        hashes=[content_hash(record.offset % 11) for record in some],
        vectors=np.array([content_vector(r.offset % 11, 6) for r in some], dtype=np.float32).reshape(-1, 6),
        flags=np.zeros(len(some), dtype=np.uint8),
        skipped=columns.Counter(),
        failed=0,
        next_offset=next_offset,
        fields=columns.fields_of([record_fields(r.key, r.value, r.headers, **limits) for r in some]),
    )


def load(index: PartitionIndex, log: Sequence[Record], *, step: int, tight: bool, build: bool) -> None:
    for start in range(0, len(log), step):
        some = log[start : start + step]
        index.append(run_of(some, some[-1].offset + 1, tight=tight))
        if build:
            build_all(index)


@given(log=logs(), wanted=filters())
@settings(deadline=None, max_examples=100)
def test_the_tree_means_what_the_grammar_says(log: tuple[Record, ...], wanted: dict[str, Any]) -> None:
    """Of a record alone, as it is decided when the columns cannot tell."""
    condition = parse_filter(wanted)
    for record in log:
        subject = Subject(
            PARTITION, record.offset, record.timestamp_ms, all_values(record.key, record.value, record.headers)
        )
        assert passes(condition, subject) == meets(wanted, record)


@given(
    log=logs(),
    wanted=st.lists(filters(), min_size=1, max_size=3),
    step=st.integers(1, 9),
    start=st.integers(0, 30),
    exact=st.booleans(),
    limit=st.integers(1, 40),
    reopened=st.booleans(),
)
@example(log=(), wanted=[{}], step=1, start=0, exact=True, limit=1, reopened=False)
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_hits_are_the_matches_of_a_plain_predicate(
    space: str,
    log: tuple[Record, ...],
    wanted: list[dict[str, Any]],
    step: int,
    start: int,
    exact: bool,
    limit: int,
    reopened: bool,
) -> None:
    """returned = min(limit, matches), and every hit passes, over growing and sealed segments, after the log's start moved."""
    by_offset = {record.offset: record for record in log}

    def read(partition: int, offsets: Sequence[int]) -> Mapping[int, Record]:
        assert partition == PARTITION
        assert list(offsets) == sorted(offsets)
        return {offset: by_offset[offset] for offset in offsets}

    with tempfile.TemporaryDirectory() as directory:
        index = PartitionIndex.open(Path(directory), SETTINGS)
        load(index, log, step=step, tight=space == "tight", build=step % 2 == 0)
        index.drop_below(min(start, len(log)))
        if reopened:
            index.close()
            assert check_index(Path(directory)) == []
            index = PartitionIndex.open(Path(directory), SETTINGS)
            assert not index.damages
        for one in wanted:
            matching = [r.offset for r in log if r.offset >= start and meets(one, r)]
            unfiltered = IndexQuery(np.ones(6, dtype=np.float32), 1000, exact=True, log_start_offset=start)
            everything = [hit.offset for hit in index.search(unfiltered, read)]
            condition = parse_filter(one)
            query = replace(unfiltered, limit=limit, exact=exact, condition=condition, partition=PARTITION)
            found = [hit.offset for hit in index.search(query, read)]
            assert found == [offset for offset in everything if offset in matching][:limit]
            assert len(found) == min(limit, len(matching))
        index.close()


def test_an_index_without_fields_asks_the_log(tmp_path: Path) -> None:
    """Run.fields is None: nothing is known, and nothing is guessed."""
    log = [Record(offset, 1000, b"k%d" % (offset % 3), b'{"n": %d}' % offset, ()) for offset in range(9)]
    index = PartitionIndex.open(tmp_path, SETTINGS)
    index.append(replace(run_of(log, 9, tight=False), fields=None))
    condition = parse_filter({"key": {"eq": "k1"}, "must": [{"path": "$.n", "range": {"gt": 1}}]})
    query = IndexQuery(np.ones(6, dtype=np.float32), 9, condition=condition)
    hits = index.search(query, lambda _, offsets: {offset: log[offset] for offset in offsets})
    assert sorted(hit.offset for hit in hits) == [4, 7]
    assert index.search(query) == []  # a log that has lost them
    index.close()


def test_of_a_records_own_vector_a_filter_knows_that_it_is_there_not_its_bytes() -> None:
    """They are as long as the vector itself, in each record others, and nobody looks for them."""
    vector = np.arange(384, dtype="<f4").tobytes()
    headers = [(VECTOR_HEADER, vector), ("service", b"a")]
    values = all_values(None, b"text", headers)
    kept = columns.fields_of([record_fields(None, b"text", headers)])
    assert kept.nbytes < 100
    there = {"header": VECTOR_HEADER, "exists": True}
    for condition, passed in (
        (there, True),
        ({**there, "exists": False}, False),
        ({"header": VECTOR_HEADER, "eq": {"base64": b64encode(vector).decode()}}, False),
        ({"header": "service", "eq": "a"}, True),
    ):
        assert passes(parse_filter(json.dumps({"must": [condition]})), Subject(PARTITION, 0, 0, values)) == passed
