"""`--where` says what a filter of docs/search.md says."""

from typing import Any

import pytest
import typer

from broker.cli.where import where_filter
from vector.filter.parse import parse_filter


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("key=user-1", {"must": [{"key": {"eq": "user-1"}}]}),
        ("key^=user", {"must": [{"key": {"prefix": "user"}}]}),
        ("key!=", {"must_not": [{"key": {"eq": ""}}]}),
        ("header:service=pay=a", {"must": [{"header": "service", "eq": "pay=a"}]}),
        ("header:replay", {"must": [{"header": "replay", "exists": True}]}),
        ("$.code>=500", {"must": [{"path": "$.code", "range": {"gte": 500}}]}),
        ("$.code<1.5", {"must": [{"path": "$.code", "range": {"lt": 1.5}}]}),
        ("$.level=error", {"must": [{"path": "$.level", "eq": "error"}]}),
        ('$.level="500"', {"must": [{"path": "$.level", "eq": "500"}]}),
        ("$.ok=true", {"must": [{"path": "$.ok", "eq": True}]}),
        ("$.gone!=null", {"must_not": [{"path": "$.gone", "eq": None}]}),
        ("$['a b']^=x", {"must": [{"path": "$['a b']", "prefix": "x"}]}),
    ],
)
def test_a_condition_is_a_filter(condition: str, expected: dict[str, Any]) -> None:
    assert where_filter([condition]) == expected
    parse_filter(expected)


@pytest.mark.parametrize("condition", ["level=error", "", "=1", "key", "partition=1"])
def test_what_is_none_is_a_usage_error(condition: str) -> None:
    with pytest.raises(typer.BadParameter):
        where_filter([condition])
