"""A filter that is none is refused by the place of its fault; above a limit it is POLICY_VIOLATION."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ErrorCode, KafkaError
from vector.filter.parse import parse_filter

LEAF = {"path": "$.a", "eq": 1}
DEEP: dict[str, Any] = LEAF
for _ in range(9):
    DEEP = {"must": [DEEP]}


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("", "filter"),
        ("[]", "filter"),
        ("null", "filter"),
        ('{"must": [{"path": "$.a", "eq": NaN}]}', "filter"),
        ({"level": "error"}, "filter.level"),
        ({"key": "a"}, "filter.key"),
        ({"key": {}}, "filter.key"),
        ({"key": {"eq": 1}}, "filter.key.eq"),
        ({"key": {"eq": "a", "prefix": "b"}}, "filter.key"),
        ({"key": {"exists": True}}, "filter.key.exists"),
        ({"key": {"is": "a"}}, "filter.key.is"),
        ({"key": {"any": "a"}}, "filter.key.any"),
        ({"key": {"any": ["a", 1]}}, "filter.key.any[1]"),
        ({"key": {"eq": {"base64": "!"}}}, "filter.key.eq.base64"),
        ({"must": {}}, "filter.must"),
        ({"must": ["a"]}, "filter.must[0]"),
        ({"must": [{}]}, "filter.must[0]"),
        ({"must": [LEAF, LEAF, {"path": "a.b", "eq": 1}]}, "filter.must[2].path"),
        ({"must": [{"path": 7, "eq": 1}]}, "filter.must[0].path"),
        ({"must": [{"path": "$", "eq": 1}]}, "filter.must[0].path"),
        ({"must": [{"path": "$.a[0]", "eq": 1}]}, "filter.must[0].path"),
        ({"must": [{"path": "$..a", "eq": 1}]}, "filter.must[0].path"),
        ({"must": [{"path": "$.a"}]}, "filter.must[0]"),
        ({"must": [{"path": "$.a", "eq": [1]}]}, "filter.must[0].eq"),
        ({"must": [{"path": "$.a", "eq": 10**40}]}, "filter.must[0].eq"),
        ({"must": [{"path": "$.a", "prefix": 1}]}, "filter.must[0].prefix"),
        ({"must": [{"path": "$.a", "range": {}}]}, "filter.must[0].range"),
        ({"must": [{"path": "$.a", "range": {"from": 1}}]}, "filter.must[0].range.from"),
        ({"must": [{"path": "$.a", "range": {"gte": None}}]}, "filter.must[0].range.gte"),
        ({"must": [{"path": "$.a", "range": {"gte": 1, "lt": "b"}}]}, "filter.must[0].range"),
        ({"must": [{"path": "$.a", "exists": 1}]}, "filter.must[0].exists"),
        ({"must": [{"path": "$.a", "exists": True, "eq": 1}]}, "filter.must[0]"),
        ({"must": [{"header": "h", "path": "$.a", "eq": "1"}]}, "filter.must[0]"),
        ({"must": [{"header": 1, "eq": "1"}]}, "filter.must[0].header"),
        ({"must": [{"header": "h", "eq": 1}]}, "filter.must[0].eq"),
        ({"must_not": [{"should": [{"level": 1}]}]}, "filter.must_not[0].should[0].level"),
        ({"should": [LEAF], "min_should": 2}, "filter.min_should"),
        ({"min_should": 1}, "filter.min_should"),
        ({"should": [LEAF], "min_should": -1}, "filter.min_should"),
        ({"partition": "0"}, "filter.partition"),
        ({"partition": 1, "partitions": [1]}, "filter.partition"),
        ({"partitions": []}, "filter.partitions"),
        ({"partitions": [0, -1]}, "filter.partitions[1]"),
        ({"min_offset": -1}, "filter.min_offset"),
        ({"offset": {"gte": 1.5}}, "filter.offset.gte"),
        ({"offset": {}}, "filter.offset"),
        ({"offsets": {"x": {"gte": 1}}}, "filter.offsets.x"),
        ({"offsets": {"1": {"gte": True}}}, "filter.offsets.1.gte"),
        ({"timestamp": {"gte": "yesterday"}}, "filter.timestamp.gte"),
        ({"timestamp": {"gte": "1969-12-31"}}, "filter.timestamp.gte"),
    ],
    ids=str,
)
def test_a_fault_is_refused_by_its_place(given: Any, place: str) -> None:
    with pytest.raises(KafkaError) as refused:
        parse_filter(given)
    assert refused.value.code == ErrorCode.INVALID_REQUEST
    assert refused.value.message.split(": ")[0] == place


@pytest.mark.parametrize(
    ("given", "place"),
    [
        (" " * 70_000, "filter"),
        (DEEP, "filter.must[0].must[0].must[0].must[0].must[0].must[0].must[0].must[0]"),
        ('{"must":[' * 5_000, "filter"),
        ({"must": [LEAF] * 300}, "filter.must"),
        ({"must": [{"should": [LEAF] * 100}] * 3}, "filter.must[2].should[54]"),
        ({"key": {"any": ["a"] * 2000}}, "filter.key.any"),
        ({"must": [{"path": "$" + ".a" * 40, "eq": 1}]}, "filter.must[0].path"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_a_limit_is_named(given: Any, place: str) -> None:
    with pytest.raises(KafkaError) as refused:
        parse_filter(given)
    assert refused.value.code == ErrorCode.POLICY_VIOLATION
    assert refused.value.message.split(": ")[0] == place


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["must", "should", "key", "path", "header", "eq", "range", "gte", "offset", "offsets", "0", "timestamp"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_like)
def test_anything_is_a_filter_or_refused(given: Any) -> None:
    try:
        parse_filter(json.dumps(given))
    except KafkaError as error:
        assert error.message.startswith("filter")  # noqa: PT017  # most are refused, some are filters


@pytest.mark.parametrize("path", ["$['a']['b c']", '$["a"]["b c"]', "$.a['b c']"])
def test_paths_may_be_quoted(path: str) -> None:
    assert parse_filter({"must": [{"path": path, "eq": 1}]}) == parse_filter(
        {"must": [{"path": '$["a"]["b c"]', "eq": 1.0}]}
    )
