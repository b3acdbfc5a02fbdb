"""Arguments of `search` -> one VectorSearchRequest. What a value may be is decided by the broker, which names it."""

import base64
import json
import sys
import uuid
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

from senselog_client.messages import VectorSearchRequest

Mode: TypeAlias = Literal["vector", "text", "hybrid"]
Fusion: TypeAlias = Literal["rrf", "weighted"]
Isolation: TypeAlias = Literal["read_committed", "read_uncommitted"]
Vector: TypeAlias = Sequence[float] | bytes
Record: TypeAlias = tuple[int, int]
Example: TypeAlias = str | Vector | Record
"""A text, a vector (floats, or float32 little-endian bytes), or the (partition, offset) of a record."""

_MODES = {"vector": 0, "text": 1, "hybrid": 2}
_FUSIONS = {"rrf": 0, "weighted": 1}
_ISOLATION = {"read_uncommitted": 0, "read_committed": 1}
_INCLUDE = {"key": 1, "value": 2, "headers": 4, "vector": 8, "scores": 16}
_NAN = float("nan")
EVERY_PARTITION = -1


class SearchOptions(TypedDict, total=False):
    """Options of a search; each has the default of key 100, given here in brackets."""

    mode: Mode
    """vector (default), text or hybrid"""
    limit: int
    """hits per query [10]"""
    filter: Mapping[str, Any] | None
    """REST's grammar: partition(s), min_offset, max_offset (inclusive), offset {gte, gt, lt, lte}, timestamp {…} in ms or ISO 8601,
    key {eq | any | prefix}, and lists must, should, must_not of {"path": "$.a.b" | "header": NAME, eq | any | prefix | range | exists}"""
    min_similarity: float | None
    collapse: str | None
    """one hit for all records with the same text, key, header:NAME or JSON path such as $.user; `duplicates` counts the others"""
    min_offsets: Mapping[int, int] | None
    """per partition: wait until everything below this offset can be found"""
    latest: bool
    """wait until everything the broker has at this moment can be found [False]"""
    max_wait_ms: int
    """how long to wait for freshness [0]"""
    partial_ok: bool
    """answer with `complete=False` when the wait runs out, instead of OffsetNotAvailable [False]"""
    isolation: Isolation
    include: Iterable[str]
    """any of key, value, headers, vector, scores [key, value, headers]"""
    max_value_bytes: int | None
    exact: bool
    """compare with every vector instead of walking the graph [False]"""
    ef: int | None
    """how widely to walk the graph [the topic's]"""
    cursor: bytes | None
    """a result's `cursor`: the same search goes on behind it"""
    timeout_ms: int
    """of the search itself [2000]"""
    fusion: Fusion
    """of mode hybrid: rrf, by reciprocal ranks (default), or weighted, by scores"""
    vector_weight: float
    """of mode hybrid: 0 to 1, the rest is the words' [0.5]"""


_DEFAULTS: SearchOptions = {
    "mode": "vector",
    "limit": 10,
    "filter": None,
    "min_similarity": None,
    "collapse": None,
    "min_offsets": None,
    "latest": False,
    "max_wait_ms": 0,
    "partial_ok": False,
    "isolation": "read_committed",
    "include": ("key", "value", "headers"),
    "max_value_bytes": None,
    "exact": False,
    "ef": None,
    "cursor": None,
    "timeout_ms": 2000,
    "fusion": "rrf",
    "vector_weight": 0.5,
}


def single_query(
    text: str | None,
    vector: Vector | None,
    record: Record | None,
    positive: Iterable[Example],
    negative: Iterable[Example],
) -> dict[str, Any]:
    """The query arguments of `search` as one of `search_batch`'s."""
    return {"text": text, "vector": vector, "record": record, "positive": positive, "negative": negative}


def build_request(
    topic: str | uuid.UUID, queries: Iterable[Mapping[str, Any]], **given: Unpack[SearchOptions]
) -> VectorSearchRequest:
    """Encodes the arguments of `search_batch`. Without queries only the state of the index is asked for.

    Raises TypeError for an unknown option, ValueError for a name this version of key 100 has no number for.
    """
    for name in given:
        if name not in _DEFAULTS:
            raise TypeError(f"search has no option {name!r}")
    options: SearchOptions = {**_DEFAULTS, **given}
    by_name = isinstance(topic, str)
    min_similarity, max_value_bytes, ef = options["min_similarity"], options["max_value_bytes"], options["ef"]
    # Without a version, so that kafka-python looks up whether the broker speaks key 100 at all.
    return VectorSearchRequest(
        topic_name=topic if by_name else None,
        topic_id=uuid.UUID(int=0) if by_name else topic,
        queries=[_query(query) for query in queries],
        mode=_number("mode", options["mode"], _MODES),
        limit=options["limit"],
        min_similarity=_NAN if min_similarity is None else min_similarity,
        **_filter_fields(options["filter"] or {}),
        collapse=options["collapse"],
        min_offsets=[
            VectorSearchRequest.MinOffset(partition=partition, offset=offset)
            for partition, offset in (options["min_offsets"] or {}).items()
        ],
        latest=options["latest"],
        max_wait_ms=options["max_wait_ms"],
        partial_ok=options["partial_ok"],
        isolation_level=_number("isolation", options["isolation"], _ISOLATION),
        include=sum({_number("include", name, _INCLUDE) for name in options["include"]}),
        max_value_bytes=-1 if max_value_bytes is None else max_value_bytes,
        exact=options["exact"],
        ef=-1 if ef is None else ef,
        cursor=options["cursor"],
        timeout_ms=options["timeout_ms"],
        fusion=_number("fusion", options["fusion"], _FUSIONS),
        vector_weight=options["vector_weight"],
    )


def _number(field: str, name: str, numbers: Mapping[str, int]) -> int:
    try:
        return numbers[name]
    except KeyError:
        raise ValueError(f"{field}: {name!r} is none of {', '.join(numbers)}") from None


def _query(query: Mapping[str, Any]) -> Any:
    fields = dict(query)
    positive = [_example(VectorSearchRequest.SearchQuery.PositiveExample, item) for item in fields.pop("positive", ())]
    negative = [_example(VectorSearchRequest.SearchQuery.NegativeExample, item) for item in fields.pop("negative", ())]
    return VectorSearchRequest.SearchQuery(positive=positive, negative=negative, **_point(fields))


def _point(fields: dict[str, Any]) -> dict[str, Any]:
    text, vector, record = (fields.pop(name, None) for name in ("text", "vector", "record"))
    if fields:
        raise ValueError(f"unknown query field {next(iter(fields))!r}")
    partition, offset = (-1, -1) if record is None else record
    encoded = None if vector is None else vector_bytes(vector)
    return {"text": text, "vector": encoded, "partition": partition, "offset": offset}


def _example(kind: Any, example: Example) -> Any:
    if isinstance(example, str):
        return kind(**_point({"text": example}))
    if isinstance(example, tuple) and len(example) == 2 and all(isinstance(number, int) for number in example):
        return kind(**_point({"record": example}))
    return kind(**_point({"vector": example}))


def vector_bytes(vector: Vector) -> bytes:
    """float32 little-endian, from floats (also a numpy array) or from bytes that are so already."""
    if isinstance(vector, bytes | bytearray | memoryview):
        return bytes(vector)
    floats = _floats(vector)
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tobytes()


def _floats(vector: Sequence[float]) -> "array[float]":
    """Copies a vector that lies in memory as float32, such as a numpy array, as it lies: 20 us less for one of 384 dimensions."""
    try:
        view = memoryview(vector)  # type: ignore[arg-type]
    except TypeError:
        return array("f", vector)
    if view.format != "f" or view.ndim != 1 or not view.contiguous or not view.nbytes:
        return array("f", vector)
    floats = array("f")
    floats.frombytes(view.cast("B"))
    return floats


def _filter_fields(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Splits REST's filter into key 100's own fields and the rest, which travels as JSON for the broker to judge."""
    rest = dict(conditions)
    fields: dict[str, Any] = {
        "partitions": rest.pop("partitions", None),
        "from_timestamp": -1,
        "until_timestamp": -1,
        "filter": None,
    }
    if "partition" in rest and fields["partitions"] is None:
        fields["partitions"] = [rest.pop("partition")]
    everywhere = _narrow(
        _bounds("offset", rest.pop("offset", {})),
        _bound("min_offset", rest.pop("min_offset")) if "min_offset" in rest else -1,
        _bound("max_offset", rest.pop("max_offset")) + 1 if "max_offset" in rest else -1,  # inclusive, as its name says
    )
    ranges = {} if everywhere == (-1, -1) else {EVERY_PARTITION: everywhere}
    for partition, bounds in rest.pop("offsets", {}).items():
        # A range of its own replaces the one of every partition, so it must hold both.
        ranges[int(partition)] = _narrow(_bounds(f"offsets.{partition}", bounds), *everywhere)
    if "timestamp" in rest and not any(isinstance(bound, str) for bound in dict(rest["timestamp"]).values()):
        fields["from_timestamp"], fields["until_timestamp"] = _bounds("timestamp", rest.pop("timestamp"))
    fields["offset_ranges"] = [
        VectorSearchRequest.OffsetRange(partition=partition, from_offset=low, until_offset=high)
        for partition, (low, high) in ranges.items()
    ]
    if rest:
        fields["filter"] = json.dumps(rest, default=_encoded)
    return fields


def _encoded(value: Any) -> dict[str, str]:
    """Keys and header values are bytes, which JSON has not."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    raise TypeError(f"filter: {value!r} is nothing that JSON has")


def _bounds(field: str, bounds: Mapping[str, int]) -> tuple[int, int]:
    """{"gte", "gt", "lt", "lte"} -> (from inclusive, until exclusive), -1 where open."""
    low = high = -1
    for name, given in bounds.items():
        value = _bound(f"{field}.{name}", given)
        if name in ("gte", "gt"):
            low = max(low, value if name == "gte" else value + 1)
        elif name in ("lt", "lte"):
            until = value if name == "lt" else value + 1
            high = until if high < 0 else min(high, until)
        else:
            raise ValueError(f"filter.{field}: unknown bound {name!r}")
    return low, high


def _bound(field: str, value: int) -> int:
    """Key 100 says "open" with a negative number, which is not what a caller says who gives one."""
    if value < 0:
        raise ValueError(f"filter.{field}: {value} is below 0")
    return value


def _narrow(bounds: tuple[int, int], low: int, high: int) -> tuple[int, int]:
    """The part of `bounds` within low..high; an empty one where they do not meet."""
    ends = [end for end in (bounds[1], high) if end >= 0]
    start = max(bounds[0], low)
    return start, max(start, min(ends)) if ends else -1
