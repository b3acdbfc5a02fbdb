"""`--where`: conditions on keys, headers and JSON paths as people type them, made a filter of docs/search.md."""

import json
import re
from collections.abc import Iterable
from typing import Any

import typer

HELP = (
    "Only records with this: [bold]key=user-1[/bold], [bold]header:service=pay[/bold], [bold]$.code>=500[/bold]. "
    "Operators: = != ^= (begins with) > >= < <=; a name alone: it exists. May be repeated: all must hold."
)
_CONDITION = re.compile(
    r"(?P<name>key|header:[^=!^<>]+|\$[^=!^<>]*)(?:(?P<operator>!=|\^=|>=|<=|=|>|<)(?P<value>.*))?", re.DOTALL
)
_RANGES = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


def where_filter(conditions: Iterable[str]) -> dict[str, Any]:
    """`must` and `must_not` of a filter. Raises a usage error for what cannot be read."""
    must: list[dict[str, Any]] = []
    must_not: list[dict[str, Any]] = []
    for condition in conditions:
        found = _CONDITION.fullmatch(condition)
        if found is None:
            raise typer.BadParameter(f"{condition!r}: expected NAME=VALUE as in $.level=error", param_hint="--where")
        (must_not if found["operator"] == "!=" else must).append(_condition(condition, *found.groups()))
    return {name: parts for name, parts in (("must", must), ("must_not", must_not)) if parts}


def _condition(condition: str, name: str, operator: str | None, text: str | None) -> dict[str, Any]:
    value = _scalar(text or "") if name.startswith("$") else text
    test: dict[str, Any]
    if operator is None:
        if name == "key":
            raise typer.BadParameter(f"{condition!r}: expected key=VALUE", param_hint="--where")
        test = {"exists": True}
    elif operator in _RANGES:
        test = {"range": {_RANGES[operator]: value}}
    else:
        test = {"prefix": text} if operator == "^=" else {"eq": value}
    if name == "key":
        return {"key": test}
    return {"path": name, **test} if name.startswith("$") else {"header": name.removeprefix("header:"), **test}


def _scalar(text: str) -> Any:
    """500 and true and null are JSON's, anything else is a text; "500" in quotes is one too."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, dict | list) else value
