"""A query of one partition's index, and what it finds."""

import math
from dataclasses import dataclass

import numpy as np

from protocol.errors import ErrorCode, KafkaError
from vector.arrays import Float32, Int64
from vector.filter.tree import Condition
from vector.index.settings import IndexSettings

NO_LIMIT = np.iinfo(np.int64).max


@dataclass(slots=True, frozen=True)
class IndexQuery:
    """vector float32[d]; bounds `from` inclusive, `until` and `up_to_offset` exclusive; -1 or None = none.

    `exact` scans every match; `ef` overrides the search width of the graph (<= 0: the index's own); `collapse` returns one
    record per content.
    """

    vector: Float32
    limit: int = 10
    offset_from: int = -1
    offset_until: int = -1
    timestamp_from: int = -1
    timestamp_until: int = -1
    min_similarity: float | None = None
    exact: bool = False
    ef: int = -1
    log_start_offset: int = 0
    up_to_offset: int = -1
    collapse: bool = False
    condition: Condition | None = None
    partition: int = 0


@dataclass(slots=True, frozen=True)
class Candidate:
    """A record found. `duplicates`: how many other records that match the filter have the same content."""

    partition: int
    offset: int
    timestamp_ms: int
    similarity: float
    duplicates: int
    flags: int


@dataclass(slots=True, frozen=True)
class RecordFilter:
    """The records of one partition that may be returned: bounds, `from` inclusive, `until` exclusive, and a condition."""

    offset_from: int
    offset_until: int
    timestamp_from: int
    timestamp_until: int
    condition: Condition | None = None
    partition: int = 0
    buried: Int64 | None = None
    """Offsets, ascending, of records that the log has no more: int64[n]."""


def record_filter(query: IndexQuery) -> RecordFilter:
    """All bounds of `query` in one filter."""
    ends = [end for end in (query.offset_until, query.up_to_offset) if end >= 0]
    return RecordFilter(
        offset_from=max(query.offset_from, query.log_start_offset, 0),
        offset_until=min(ends, default=NO_LIMIT),
        timestamp_from=query.timestamp_from if query.timestamp_from >= 0 else -NO_LIMIT,
        timestamp_until=query.timestamp_until if query.timestamp_until >= 0 else NO_LIMIT,
        condition=query.condition,
        partition=query.partition,
    )


def query_vector(query: IndexQuery, settings: IndexSettings) -> Float32:
    """The query's vector, checked, float32[d], of unit length for cosine. Raises KafkaError INVALID_REQUEST."""
    vector = np.ascontiguousarray(query.vector, dtype=np.float32)
    if vector.shape != (settings.dimensions,):
        given = "x".join(str(length) for length in vector.shape)
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, f"vector: has {given} dimensions, the index has {settings.dimensions}"
        )
    if not np.isfinite(vector).all():
        raise KafkaError(ErrorCode.INVALID_REQUEST, "vector: has a component that is NaN or infinite")
    if query.limit < 1:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"limit: {query.limit} is below 1")
    if settings.metric != "cosine":
        return vector
    wide = vector.astype(np.float64)
    norm = math.sqrt(np.einsum("i,i->", wide, wide))
    if norm == 0.0:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, "vector: all components are zero, cosine has no direction to compare"
        )
    return (vector / norm).astype(np.float32)
