"""A JSON body -> the one SearchRequest behind all doors; what its values may be is decided there."""

import base64
import json

import numpy as np

from broker.gateways.body import Consistency, Example, Filter, Query, RecordId, SearchBody
from protocol.errors import ErrorCode, KafkaError
from vector.arrays import Float32
from vector.request import EVERY_PARTITION, SearchRequest
from vector.request import Query as SearchQuery


def search_request(topic: str, body: SearchBody) -> SearchRequest:
    """Raises KafkaError with the codes of search-api.md, naming the field."""
    queries = body.queries if body.query is None else [body.query]
    if not queries:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "queries: at least one is needed")
    conditions = body.filter or Filter()
    consistency = body.consistency
    from_timestamp, until_timestamp = conditions.timestamp.range() if conditions.timestamp else (-1, -1)
    return SearchRequest(
        topic=topic,
        queries=tuple(_query(query) for query in queries),
        mode=body.mode,
        limit=next((limit for limit in (body.k, body.limit) if limit is not None), 10),
        min_similarity=body.min_similarity,
        partitions=_partitions(conditions),
        from_timestamp=from_timestamp,
        until_timestamp=until_timestamp,
        offset_ranges=_offset_ranges(conditions),
        filter=_full_filter(conditions),
        collapse=body.collapse,
        min_offsets=_min_offsets(consistency),
        latest=consistency.level == "latest",
        max_wait_ms=consistency.wait_ms,
        partial_ok=consistency.on_timeout == "partial",
        isolation_level=body.isolation,
        include=frozenset(body.include),
        max_value_bytes=body.max_value_bytes,
        exact=body.exact,
        ef=body.ef,
        cursor=None if body.cursor is None else _cursor(body.cursor),
        timeout_ms=body.timeout_ms,
        fusion=body.fusion,
        vector_weight=body.vector_weight,
    )


def _cursor(cursor: str) -> bytes:
    try:
        return base64.b64decode(cursor, validate=True)
    except ValueError:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "cursor: is none that a search has given") from None


def _query(query: Query) -> SearchQuery:
    return SearchQuery(
        text=query.text,
        vector=_vector(query.vector),
        record=_record(query.record),
        positive=tuple(_example(example) for example in query.positive),
        negative=tuple(_example(example) for example in query.negative),
    )


def _example(example: Example) -> SearchQuery:
    return SearchQuery(text=example.text, vector=_vector(example.vector), record=_record(example.record))


def _vector(numbers: list[float] | None) -> Float32 | None:
    # Numbers beyond float32 become infinite here, and SearchQuery refuses them.
    with np.errstate(over="ignore"):
        return None if numbers is None else np.array(numbers, dtype=np.float32)


def _record(record: RecordId | None) -> tuple[int, int] | None:
    return None if record is None else (record.partition, record.offset)


def _partitions(conditions: Filter) -> tuple[int, ...] | None:
    if conditions.partition is not None:
        return (conditions.partition,)
    return None if conditions.partitions is None else tuple(conditions.partitions)


def _offset_ranges(conditions: Filter) -> dict[int, tuple[int, int]]:
    ranges: dict[int, tuple[int, int]] = {}
    everywhere = _narrow(
        conditions.offset.range() if conditions.offset else (-1, -1),
        -1 if conditions.min_offset is None else conditions.min_offset,
        -1 if conditions.max_offset is None else conditions.max_offset + 1,
    )
    if everywhere != (-1, -1):
        ranges[EVERY_PARTITION] = everywhere
    for partition, bounds in (conditions.offsets or {}).items():
        ranges[int(partition)] = _narrow(bounds.range(), *everywhere)
    return ranges


def _narrow(bounds: tuple[int, int], low: int, high: int) -> tuple[int, int]:
    """The part of `bounds` within low..high; an empty one where they do not meet."""
    ends = [end for end in (bounds[1], high) if end >= 0]
    start = max(bounds[0], low)
    return start, max(start, min(ends)) if ends else -1


def _full_filter(conditions: Filter) -> str | None:
    """The parts of the grammar that are no fields of their own in key 100 travel as JSON, there as here."""
    rest = {name: getattr(conditions, name) for name in ("key", "must", "should", "min_should", "must_not")}
    given = {name: value for name, value in rest.items() if value is not None}
    return json.dumps(given) if given else None


def _min_offsets(consistency: Consistency) -> dict[int, int]:
    return {int(partition): offset for partition, offset in (consistency.min_offsets or {}).items()}
