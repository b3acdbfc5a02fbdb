"""REST's filter grammar (design/search-api.md) -> the typed tree; the same JSON is key 100's `filter` and the clients' dict. Pure.

    filter    = { what must all hold: partition | partitions, min_offset, max_offset, offset, offsets, timestamp, key, must, should,
                  min_should, must_not }
    condition = filter | {"key": test} | {"header": NAME, test} | {"path": "$.a.b", test}
    test      = "eq": value | "any": [value, …] | "prefix": text | "range": {gte, gt, lt, lte} | "exists": true | false

Errors name the place: `filter.must[2].path: …`. INVALID_REQUEST for what is no filter, POLICY_VIOLATION for one above a limit.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from protocol.errors import ErrorCode, KafkaError
from vector.filter.path import parse_path
from vector.filter.tree import KEY, AtLeast, Condition, HasValue, InOffsets, InPartitions, InTimes, Not, header_column
from vector.filter.values import (
    EVERYTHING,
    Interval,
    between,
    encode_bytes,
    encode_scalar,
    encode_text,
    equal_to,
    is_exact_number,
    starting_with,
)

FILTER_BYTES_MAX = 64 * 1024
CONDITIONS_MAX = 256
DEPTH_MAX = 8
ANY_MAX = 1024
"""Values of one `any`."""
_ORDINAL = re.compile(r"0|[1-9]\d*", re.ASCII)
_BOUNDS = ("gte", "gt", "lt", "lte")
_TESTS = ("eq", "any", "prefix", "range", "exists")
_RANGES = ("partition", "partitions", "min_offset", "max_offset", "offset", "offsets", "timestamp")
_GROUPS = ("must", "should", "min_should", "must_not")


def parse_filter(given: str | Mapping[str, Any], place: str = "filter") -> Condition:
    """The tree of a filter, given as JSON text or what JSON would make of it. Raises KafkaError."""
    if isinstance(given, str):
        if len(given) > FILTER_BYTES_MAX:
            _over(place, f"{len(given)} characters are above the limit of {FILTER_BYTES_MAX}")
        try:
            given = json.loads(given, parse_constant=lambda name: _refuse(place, f"{name} is no JSON number"))
        except ValueError as error:
            _refuse(place, f"is not JSON: {error}")
        except RecursionError:
            _over(place, f"is nested deeper than the limit of {DEPTH_MAX}")
    return _Parser().group(given, place, 1)


def _refuse(place: str, reason: str) -> NoReturn:
    raise KafkaError(ErrorCode.INVALID_REQUEST, f"{place}: {reason}")


def _over(place: str, reason: str) -> NoReturn:
    raise KafkaError(ErrorCode.POLICY_VIOLATION, f"{place}: {reason}")


def _shown(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 100 else text[:100] + "…"


class _Parser:
    """Counts the conditions of one filter."""

    def __init__(self) -> None:
        self._conditions = 0

    def group(self, given: object, place: str, depth: int) -> Condition:
        """A filter object: everything in it must hold."""
        fields = _object(given, place)
        if depth > DEPTH_MAX:
            _over(place, f"is nested deeper than the limit of {DEPTH_MAX}")
        for name in fields:
            if name not in (*_RANGES, "key", *_GROUPS):
                _refuse(f"{place}.{name}", "unknown field")
        parts = _ranges(fields, place)
        if fields.get("key") is not None:
            tested = _object(fields["key"], f"{place}.key")
            parts.append(HasValue(KEY, self.test(tested, f"{place}.key", numbers=False)))
        parts += self.conditions(fields, "must", place, depth)
        parts += [Not(part) for part in self.conditions(fields, "must_not", place, depth)]
        should = self.conditions(fields, "should", place, depth)
        least = fields.get("min_should")
        if least is not None:
            least = _whole(least, f"{place}.min_should")
            if least > len(should):
                _refuse(f"{place}.min_should", f"{least} of {len(should)} conditions in should can never hold")
            parts.append(AtLeast(least, tuple(should)))
        elif should:
            parts.append(AtLeast(1, tuple(should)))
        self.count(place)
        return parts[0] if len(parts) == 1 else AtLeast(len(parts), tuple(parts))

    def count(self, place: str) -> None:
        self._conditions += 1
        if self._conditions > CONDITIONS_MAX:
            _over(place, f"more than the limit of {CONDITIONS_MAX} conditions")

    def conditions(self, fields: Mapping[str, Any], name: str, place: str, depth: int) -> list[Condition]:
        given = fields.get(name)
        if given is None:
            return []
        if not isinstance(given, list):
            _refuse(f"{place}.{name}", f"{_shown(given)} is not a list of conditions")
        if len(given) > CONDITIONS_MAX:
            _over(f"{place}.{name}", f"more than the limit of {CONDITIONS_MAX} conditions")
        return [self.condition(one, f"{place}.{name}[{index}]", depth) for index, one in enumerate(given)]

    def condition(self, given: object, place: str, depth: int) -> Condition:
        fields = _object(given, place)
        if not fields:
            _refuse(place, "is empty")
        if "header" in fields and "path" in fields:
            _refuse(place, "has header and path; a condition is on one of them")
        if "header" in fields:
            name = fields["header"]
            if not isinstance(name, str):
                _refuse(f"{place}.header", f"{_shown(name)} is not a header's name")
            return self.value_condition(fields, "header", header_column(name), place, numbers=False)
        if "path" in fields:
            return self.value_condition(
                fields, "path", parse_path(fields["path"], f"{place}.path"), place, numbers=True
            )
        return self.group(fields, place, depth + 1)

    def value_condition(
        self, fields: Mapping[str, Any], kind: str, column: str, place: str, *, numbers: bool
    ) -> Condition:
        self.count(place)
        tested = {name: value for name, value in fields.items() if name != kind}
        exists = tested.get("exists")
        if exists is not None and len(tested) == 1:
            if not isinstance(exists, bool):
                _refuse(f"{place}.exists", f"{_shown(exists)} is neither true nor false")
            there = HasValue(column, (EVERYTHING,), below=numbers)
            return there if exists else Not(there)
        return HasValue(column, self.test(tested, place, numbers=numbers))

    def test(self, fields: Mapping[str, Any], place: str, *, numbers: bool) -> tuple[Interval, ...]:
        """`numbers`: values are JSON scalars, not only texts."""
        for name in fields:
            if name not in _TESTS:
                _refuse(f"{place}.{name}", f"unknown field; a condition has one of {', '.join(_TESTS)}")
        if len(fields) != 1:
            _refuse(place, f"has {' and '.join(fields) or 'no test'}; a condition has one of {', '.join(_TESTS)}")
        ((name, value),) = fields.items()
        here = f"{place}.{name}"
        match name:
            case "eq":
                return (equal_to(_value(value, here, numbers=numbers)),)
            case "any":
                return _any(value, here, numbers=numbers)
            case "prefix":
                return (starting_with(_text(value, here)),)
            case "range":
                return (_range(value, here, numbers=numbers),)
            case _:
                _refuse(here, "goes with a header or a path")


def _object(given: object, place: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        _refuse(place, f"{_shown(given)} is not an object")
    return given


def _whole(value: object, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        _refuse(place, f"{_shown(value)} is not an integer")
    if not 0 <= value < 2**63:
        _refuse(place, f"{value} is not between 0 and 2^63 - 1")
    return value


def _text(value: object, place: str) -> bytes:
    """A string; {"base64": …} for bytes that are no UTF-8."""
    if isinstance(value, str):
        return encode_text(value)
    if isinstance(value, Mapping) and list(value) == ["base64"] and isinstance(value["base64"], str):
        import base64

        try:
            return encode_bytes(base64.b64decode(value["base64"], validate=True))
        except ValueError:
            _refuse(f"{place}.base64", "is not base64")
    _refuse(place, f'{_shown(value)} is neither a string nor {{"base64": …}}')


def _value(value: object, place: str, *, numbers: bool) -> bytes:
    if not numbers:
        return encode_bytes(None) if value is None else _text(value, place)
    if isinstance(value, Mapping | list):
        _refuse(place, f"{_shown(value)} is not a string, number, true, false or null")
    if isinstance(value, int | float) and not isinstance(value, bool) and not is_exact_number(value):
        _refuse(place, f"{_shown(value)} is too large a number to be compared exactly")
    return encode_scalar(value)  # type: ignore[arg-type]  # JSON has no other scalars


def _any(value: object, place: str, *, numbers: bool) -> tuple[Interval, ...]:
    if not isinstance(value, list):
        _refuse(place, f"{_shown(value)} is not a list of values")
    if len(value) > ANY_MAX:
        _over(place, f"{len(value)} values are above the limit of {ANY_MAX}")
    wanted = {_value(one, f"{place}[{index}]", numbers=numbers) for index, one in enumerate(value)}
    return tuple(equal_to(one) for one in sorted(wanted))


def _range(value: object, place: str, *, numbers: bool) -> Interval:
    bounds = _bounds(value, place)
    encoded: dict[str, bytes] = {}
    for name, bound in bounds.items():
        if bound is None or isinstance(bound, bool):
            _refuse(f"{place}.{name}", f"{_shown(bound)} is neither a number nor a string")
        encoded[name] = _value(bound, f"{place}.{name}", numbers=numbers)
    if len({bound[:1] for bound in encoded.values()}) > 1:
        _refuse(place, "has numbers and strings as bounds")
    return between(**encoded)


def _bounds(value: object, place: str) -> Mapping[str, Any]:
    bounds = _object(value, place)
    for name in bounds:
        if name not in _BOUNDS:
            _refuse(f"{place}.{name}", f"unknown bound; a range has {', '.join(_BOUNDS)}")
    if not bounds:
        _refuse(place, f"has no bound; a range has {', '.join(_BOUNDS)}")
    return bounds


# Where a record lies


def _ranges(fields: Mapping[str, Any], place: str) -> list[Condition]:
    parts: list[Condition] = []
    given = {name: fields[name] for name in _RANGES if fields.get(name) is not None}
    if "partition" in given and "partitions" in given:
        _refuse(f"{place}.partition", "give partition or partitions, not both")
    if "partition" in given:
        parts.append(InPartitions(frozenset({_whole(given["partition"], f"{place}.partition")})))
    if "partitions" in given:
        parts.append(InPartitions(_partitions(given["partitions"], f"{place}.partitions")))
    low = _whole(given["min_offset"], f"{place}.min_offset") if "min_offset" in given else -1
    high = _whole(given["max_offset"], f"{place}.max_offset") + 1 if "max_offset" in given else -1
    if (low, high) != (-1, -1):
        parts.append(InOffsets(low, high))
    if "offset" in given:
        parts.append(InOffsets(*_half_open(given["offset"], f"{place}.offset", _whole)))
    if "offsets" in given:
        parts.append(_own_offsets(given["offsets"], f"{place}.offsets"))
    if "timestamp" in given:
        parts.append(InTimes(*_half_open(given["timestamp"], f"{place}.timestamp", _milliseconds)))
    return parts


def _partitions(value: object, place: str) -> frozenset[int]:
    if not isinstance(value, list) or not value:
        _refuse(place, f"{_shown(value)} is not a list of one or more partitions")
    if len(value) > CONDITIONS_MAX * CONDITIONS_MAX:
        _over(place, f"{len(value)} partitions are above the limit of {CONDITIONS_MAX * CONDITIONS_MAX}")
    return frozenset(_whole(one, f"{place}[{index}]") for index, one in enumerate(value))


def _own_offsets(value: object, place: str) -> Condition:
    """Ranges by partition; a partition without one is not restricted."""
    parts: list[Condition] = []
    for name, bounds in _object(value, place).items():
        if not _ORDINAL.fullmatch(str(name)):
            _refuse(f"{place}.{name}", "is not a partition")
        partition = int(name)
        elsewhere = Not(InPartitions(frozenset({partition})))
        inside = InOffsets(*_half_open(bounds, f"{place}.{name}", _whole), partition)
        parts.append(AtLeast(1, (elsewhere, inside)))
    return AtLeast(len(parts), tuple(parts))


def _half_open(value: object, place: str, read: Any) -> tuple[int, int]:
    """(from inclusive, until exclusive), -1 where open."""
    low = high = -1
    for name, given in _bounds(value, place).items():
        bound = read(given, f"{place}.{name}") + (name in ("gt", "lte"))
        if name in ("gte", "gt"):
            low = max(low, bound)
        else:
            high = bound if high < 0 else min(high, bound)
    return low, high


def _milliseconds(value: object, place: str) -> int:
    """Milliseconds since 1970, or ISO 8601 (UTC unless it names a zone)."""
    if not isinstance(value, str):
        return _whole(value, place)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        _refuse(place, f"{_shown(value)} is neither milliseconds since 1970 nor ISO 8601")
    milliseconds = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if milliseconds < 0:
        _refuse(place, "is before 1970, and no record's timestamp is")
    return milliseconds
