"""Every bad input of design/search-api.md is refused with its code, and the message names the field."""

from typing import Any

import numpy as np
import pytest

from protocol.errors import ErrorCode, KafkaError
from vector.request import EVERY_PARTITION, LIMIT_MAX, QUERIES_MAX, Query, SearchRequest, vector_from_bytes

INVALID, POLICY = ErrorCode.INVALID_REQUEST, ErrorCode.POLICY_VIOLATION
TEXT = Query(text="disk full")


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"topic": None}, INVALID, "topic"),
        ({"topic_id": b"x" * 16}, INVALID, "topic"),
        ({"queries": (TEXT,) * (QUERIES_MAX + 1)}, POLICY, "queries"),
        ({"limit": 0}, INVALID, "limit"),
        ({"limit": -1}, INVALID, "limit"),
        ({"limit": LIMIT_MAX + 1}, POLICY, "limit"),
        ({"limit": True}, INVALID, "limit"),
        ({"mode": "text", "min_similarity": 0.5}, INVALID, "min_similarity"),
        ({"mode": "text", "queries": (Query(vector=np.ones(2, np.float32)),)}, INVALID, "queries"),
        ({"mode": "hybrid", "queries": (TEXT, Query(positive=(TEXT,)))}, INVALID, "queries"),
        ({"fusion": "sum"}, INVALID, "fusion"),
        ({"vector_weight": 1.5}, INVALID, "vector_weight"),
        ({"vector_weight": float("nan")}, INVALID, "vector_weight"),
        ({"mode": "magic"}, INVALID, "mode"),
        ({"filter": '{"key": {"is": "a"}}'}, INVALID, "filter.key.is"),
        ({"filter": ""}, INVALID, "filter"),
        ({"collapse": ""}, INVALID, "collapse"),
        ({"collapse": "level"}, INVALID, "collapse"),
        ({"collapse": "$.a[0]"}, INVALID, "collapse"),
        ({"queries": (TEXT, TEXT), "cursor": b"x"}, INVALID, "cursor"),
        ({"min_similarity": float("nan")}, INVALID, "min_similarity"),
        ({"min_similarity": float("inf")}, INVALID, "min_similarity"),
        ({"partitions": ()}, INVALID, "partitions"),
        ({"partitions": (0, 0)}, INVALID, "partitions"),
        ({"partitions": (-1,)}, INVALID, "partitions"),
        ({"from_timestamp": -2}, INVALID, "from_timestamp"),
        ({"from_timestamp": 5, "until_timestamp": 4}, INVALID, "until_timestamp"),
        ({"offset_ranges": {0: (5, 4)}}, INVALID, "offset_ranges"),
        ({"offset_ranges": {0: (-2, 4)}}, INVALID, "offset_ranges"),
        ({"offset_ranges": {-2: (0, 4)}}, INVALID, "offset_ranges"),
        ({"min_offsets": {0: -1}}, INVALID, "min_offsets"),
        ({"min_offsets": {-1: 0}}, INVALID, "min_offsets"),
        ({"isolation_level": "serializable"}, INVALID, "isolation_level"),
        ({"include": frozenset({"value", "everything"})}, INVALID, "include"),
        ({"max_value_bytes": -1}, INVALID, "max_value_bytes"),
        ({"ef": 0}, INVALID, "ef"),
        ({"ef": 5000}, POLICY, "ef"),
        ({"max_wait_ms": -1}, INVALID, "max_wait_ms"),
        ({"max_wait_ms": 10**9}, POLICY, "max_wait_ms"),
        ({"timeout_ms": 0}, INVALID, "timeout_ms"),
        ({"timeout_ms": 10**9}, POLICY, "timeout_ms"),
    ],
)
def test_a_bad_field_is_refused_by_name(fields: dict[str, Any], code: ErrorCode, named: str) -> None:
    with pytest.raises(KafkaError) as refused:
        SearchRequest(**{"topic": "logs", "queries": (TEXT,), **fields})
    assert refused.value.code == code
    assert named in refused.value.message.split(":")[0]


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({}, INVALID, "queries"),
        ({"text": "a", "record": (0, 0)}, INVALID, "queries"),
        ({"text": ""}, INVALID, "text"),
        ({"text": " \n"}, INVALID, "text"),
        ({"text": "\ud800"}, INVALID, "text"),
        ({"text": "x" * 70_000}, POLICY, "text"),
        ({"vector": np.array([], dtype=np.float32)}, INVALID, "vector"),
        ({"vector": np.array([1.0, np.nan], dtype=np.float32)}, INVALID, "vector"),
        ({"vector": np.array([1.0, np.inf], dtype=np.float32)}, INVALID, "vector"),
        ({"vector": np.array([[1.0]], dtype=np.float32)}, INVALID, "vector"),
        ({"record": (-1, 0)}, INVALID, "record"),
        ({"record": (0, -1)}, INVALID, "record"),
        ({"negative": (TEXT,)}, INVALID, "positive"),
        ({"positive": (TEXT,), "text": "a"}, INVALID, "queries"),
        ({"positive": (Query(positive=(TEXT,)),)}, INVALID, "positive"),
        ({"positive": (TEXT,) * 60, "negative": (TEXT,) * 5}, POLICY, "positive"),
    ],
)
def test_a_bad_query_is_refused_by_name(fields: dict[str, Any], code: ErrorCode, named: str) -> None:
    with pytest.raises(KafkaError) as refused:
        Query(**fields)
    assert refused.value.code == code
    assert named in refused.value.message.split(":")[0]


@pytest.mark.parametrize("data", [b"abc", b"abcde"])
def test_bytes_that_are_no_floats_are_refused(data: bytes) -> None:
    with pytest.raises(KafkaError, match="vector: "):
        vector_from_bytes(data)


def test_a_partition_without_a_range_of_its_own_has_the_common_one() -> None:
    request = SearchRequest(topic="logs", queries=(TEXT,), offset_ranges={EVERY_PARTITION: (1, 9), 2: (3, -1)})
    assert [request.offset_range(partition) for partition in (0, 2)] == [(1, 9), (3, -1)]
    assert SearchRequest(topic="logs").offset_range(0) == (-1, -1)
