"""What the client makes of an answer."""

import math
import struct
from array import array
from typing import Any

import numpy as np
import pytest
from senselog_client.errors import (
    EmbedderUnavailable,
    IndexLoading,
    InvalidSearch,
    OffsetNotAvailable,
    SearchError,
    UnknownTopic,
    VectorsNotEnabled,
    error_for,
)
from senselog_client.messages import VectorSearchResponse
from senselog_client.request import vector_bytes
from senselog_client.result import parse_results, parse_status

Result = VectorSearchResponse.QueryResult
Hit = Result.SearchHit
State = VectorSearchResponse.PartitionState


def answer(**fields: object) -> VectorSearchResponse:
    return VectorSearchResponse(version=0, **{"model": "m", "dimensions": 2, "complete": True, **fields})


def test_hits_are_typed_and_absent_scores_are_none() -> None:
    hit = Hit(
        partition=1,
        offset=42,
        timestamp=5,
        score=0.5,
        similarity=0.5,
        text_score=math.nan,
        vector_rank=-1,
        text_rank=3,
        flags=1 | 4,
        value=b"v",
        headers=[Hit.HitHeader(name="h", value=None)],
        vector=vector_bytes([1.0, -2.0]),
    )
    state = State(partition=1, last_stable_offset=50, indexed_offset=45, searched=True)
    (result,) = parse_results(answer(results=[Result(hits=[hit])], partition_states=[state], metric=2))
    (found,) = result
    assert (found.partition, found.offset, found.timestamp_ms, found.value, found.key) == (1, 42, 5, b"v", None)
    assert (found.similarity, found.text_score, found.vector_rank, found.text_rank) == (0.5, None, None, 3)
    assert (found.truncated, found.chunk, found.value_cut) == (True, False, True)
    assert found.headers == (("h", None),)
    assert list(found.vector) == [1.0, -2.0]
    assert (result.lag, result.metric, result.model, len(result)) == (5, "l2", "m", 1)


@pytest.mark.parametrize(
    ("code", "kind", "retriable"),
    [
        (3, UnknownTopic, False),
        (100, UnknownTopic, False),
        (14, IndexLoading, True),
        (15, EmbedderUnavailable, True),
        (40, VectorsNotEnabled, False),
        (42, InvalidSearch, False),
        (78, OffsetNotAvailable, True),
    ],
)
def test_each_code_has_its_error(code: int, kind: type[SearchError], retriable: bool) -> None:
    with pytest.raises(kind, match="said so") as caught:
        parse_status(answer(error_code=code, error_message="the broker said so"))
    assert (caught.value.code, caught.value.retriable) == (code, retriable)


def test_a_code_of_a_newer_broker_is_kept() -> None:
    error = error_for(999, None)
    assert type(error) is SearchError
    assert error.code == 999
    assert "999" in str(error)


def test_an_error_of_one_query_of_a_batch_names_the_query() -> None:
    response = answer(results=[Result(), Result(error_code=91)], error_message="no record 0@7")
    with pytest.raises(SearchError, match="query 1: no record 0@7"):
        parse_results(response)


@pytest.mark.parametrize(
    "vector",
    [
        [0.5, -2.0, 3.25],
        (0.5, -2, 3.25),
        array("d", [0.5, -2.0, 3.25]),
        np.array([0.5, -2.0, 3.25], dtype="<f4"),
        np.array([0.5, -2.0, 3.25], dtype=">f4"),
        np.array([0.5, -2.0, 3.25], dtype=np.float64),
        np.array([0.5, 9.0, -2.0, 9.0, 3.25], dtype=np.float32)[::2],
    ],
)
def test_a_vector_is_sent_alike_however_its_floats_are_kept(vector: Any) -> None:
    assert vector_bytes(vector) == struct.pack("<3f", 0.5, -2.0, 3.25)
    assert vector_bytes(vector[:0]) == b""
