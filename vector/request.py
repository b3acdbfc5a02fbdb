"""The one search request and response behind every door: Kafka API key 100, REST, later gRPC (design/search-api.md).

A request that exists is well formed: the constructors check, and raise KafkaError INVALID_REQUEST or POLICY_VIOLATION (over a
limit) with a message that starts with the field's name. What depends on the topic (partitions, dimensions) the service checks.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import numpy as np

from protocol.errors import ErrorCode, KafkaError
from vector.arrays import Float32
from vector.filter.parse import parse_filter
from vector.filter.path import parse_column
from vector.filter.tree import Condition

Mode = Literal["vector", "text", "hybrid"]
Fusion = Literal["rrf", "weighted"]
Isolation = Literal["read_committed", "read_uncommitted"]

QUERIES_MAX = 64
LIMIT_MAX = 1000
QUERY_TEXT_MAX = 65_536
TIMEOUT_MS_MAX = 300_000
EF_MAX = 4096
EXAMPLES_MAX = 64
"""Positive and negative ones of one query."""
TEXT_COLLAPSE = "text"
EVERY_PARTITION = -1
"""The partition of an offset range that holds in all partitions without a range of their own."""
NO_TOPIC_ID = bytes(16)
EMBEDDING_TRUNCATED, CHUNK, VALUE_CUT = 1, 2, 4
"""Bits of `Hit.flags`."""


INCLUDE = frozenset({"key", "value", "headers", "vector", "scores"})
"""What a hit may carry beside its position and similarity."""
DEFAULT_INCLUDE = frozenset({"key", "value", "headers"})


def invalid(field_name: str, reason: str) -> NoReturn:
    """Raises KafkaError INVALID_REQUEST."""
    raise KafkaError(ErrorCode.INVALID_REQUEST, f"{field_name}: {reason}")


class VectorsNotEnabled(KafkaError):
    """INVALID_CONFIG, said of a topic that cannot be searched; REST and gRPC tell it from a config that is not valid."""

    def __init__(self, topic: str) -> None:
        super().__init__(ErrorCode.INVALID_CONFIG, f"topic {topic!r} has no vectors: set vector.enabled=true")


def collapse_column(collapse: str) -> str:
    """What `collapse` names beside TEXT_COLLAPSE, as a filter's column. Raises KafkaError INVALID_REQUEST."""
    return parse_column(collapse, "collapse")


def _check_range(name: str, value: int, minimum: int, maximum: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        invalid(name, f"{value!r} is not an integer")
    if value < minimum:
        invalid(name, f"{value} is below {minimum}")
    if value > maximum:
        raise KafkaError(ErrorCode.POLICY_VIOLATION, f"{name}: {value} is above the limit of {maximum}")


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """Exactly one of: a text, a vector float32[d], the (partition, offset) of a record whose like is looked for, or examples of what
    hits are like (`positive`) and unlike (`negative`), each a text, vector or record; example records are no hits themselves."""

    text: str | None = None
    vector: Float32 | None = None
    record: tuple[int, int] | None = None
    positive: tuple["Query", ...] = ()
    negative: tuple["Query", ...] = ()

    def __post_init__(self) -> None:
        if self.positive or self.negative:
            self._check_examples()
            return
        given = [name for name in ("text", "vector", "record") if getattr(self, name) is not None]
        if len(given) != 1:
            invalid(
                "queries",
                f"a query has {' and '.join(given) or 'nothing'}; it must have one of text, vector, record, positive",
            )
        if self.text is not None:
            self._check_text(self.text)
        if self.vector is not None:
            self._check_vector(self.vector)
        if self.record is not None:
            _check_range("record.partition", self.record[0], 0, 2**31 - 1)
            _check_range("record.offset", self.record[1], 0, 2**63 - 1)

    def _check_examples(self) -> None:
        if not self.positive:
            invalid("positive", "at least one example is needed beside negative ones")
        examples = (*self.positive, *self.negative)
        if len(examples) > EXAMPLES_MAX:
            raise KafkaError(
                ErrorCode.POLICY_VIOLATION, f"positive: {len(examples)} examples are above the limit of {EXAMPLES_MAX}"
            )
        if self.text is not None or self.vector is not None or self.record is not None:
            invalid("queries", "a query has examples and a text, vector or record; it must have one of them")
        if any(example.positive or example.negative for example in examples):
            invalid("positive", "an example has examples; it must have one of text, vector, record")

    def records(self) -> Iterator[tuple[int, int]]:
        """Every record that the query names, examples included."""
        if self.record is not None:
            yield self.record
        for example in (*self.positive, *self.negative):
            yield from example.records()

    def _check_text(self, text: str) -> None:
        if not text.strip():
            invalid("text", "is empty")
        if len(text) > QUERY_TEXT_MAX:
            raise KafkaError(
                ErrorCode.POLICY_VIOLATION, f"text: {len(text)} characters are above the limit of {QUERY_TEXT_MAX}"
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            invalid("text", "is not valid Unicode")

    def _check_vector(self, vector: Float32) -> None:
        if vector.ndim != 1 or not len(vector) or vector.dtype != np.float32:
            invalid("vector", "is not a list of one or more float32 numbers")
        if not np.isfinite(vector).all():
            invalid("vector", "has a component that is NaN or infinite")


def vector_from_bytes(data: bytes | memoryview) -> Float32:
    """float32[d] from little-endian bytes; raises KafkaError INVALID_REQUEST."""
    if len(data) % 4:
        invalid("vector", f"{len(data)} bytes are not a whole number of float32 values")
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SearchRequest:
    """One search of one topic; no queries: the state of the index is asked for.

    `topic` or `topic_id` (16 bytes) names the topic. Timestamps in milliseconds, -1 for none; ranges are from inclusive to
    exclusive, offset -1 for open. `min_offsets` and `latest` wait up to `max_wait_ms` until the index is that far; `timeout_ms` is
    for embedding, searching and reading, on top of that wait. `filter` is JSON in REST's grammar (vector/filter/parse.py),
    `condition` its tree. `collapse` is `text`, `key`, `header:NAME` or a JSON path: one hit for all records that agree in it. `cursor` is a
    result's `next_cursor`: the same search goes on behind those hits. `fusion` and `vector_weight`, 0 to 1, are mode hybrid's: by
    reciprocal ranks (rrf) or by scores (weighted), the rest of the weight is the words'.
    """

    topic: str | None = None
    topic_id: bytes = NO_TOPIC_ID
    queries: tuple[Query, ...] = ()
    mode: Mode = "vector"
    limit: int = 10
    min_similarity: float | None = None
    partitions: tuple[int, ...] | None = None
    from_timestamp: int = -1
    until_timestamp: int = -1
    offset_ranges: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    filter: str | None = None
    collapse: str | None = None
    min_offsets: Mapping[int, int] = field(default_factory=dict)
    latest: bool = False
    max_wait_ms: int = 0
    partial_ok: bool = False
    isolation_level: Isolation = "read_committed"
    include: frozenset[str] = DEFAULT_INCLUDE
    max_value_bytes: int | None = None
    exact: bool = False
    ef: int | None = None
    cursor: bytes | None = None
    timeout_ms: int = 2000
    fusion: Fusion = "rrf"
    vector_weight: float = 0.5
    condition: Condition | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if (self.topic is None) == (self.topic_id == NO_TOPIC_ID):
            invalid("topic", "exactly one of name and id must be given")
        self._check_search()
        if len(self.queries) > QUERIES_MAX:
            raise KafkaError(
                ErrorCode.POLICY_VIOLATION, f"queries: {len(self.queries)} are above the limit of {QUERIES_MAX}"
            )
        _check_range("limit", self.limit, 1, LIMIT_MAX)
        if self.min_similarity is not None and not math.isfinite(self.min_similarity):
            invalid("min_similarity", f"{self.min_similarity} is not a finite number")
        if self.isolation_level not in ("read_committed", "read_uncommitted"):
            invalid("isolation_level", f"{self.isolation_level!r} is neither read_committed nor read_uncommitted")
        for name in self.include - INCLUDE:
            invalid("include", f"{name!r} is none of {', '.join(sorted(INCLUDE))}")
        if self.max_value_bytes is not None:
            _check_range("max_value_bytes", self.max_value_bytes, 0, 2**31 - 1)
        if self.ef is not None:
            _check_range("ef", self.ef, 1, EF_MAX)
        _check_range("max_wait_ms", self.max_wait_ms, 0, TIMEOUT_MS_MAX)
        _check_range("timeout_ms", self.timeout_ms, 1, TIMEOUT_MS_MAX)
        self._check_filters()

    def _check_search(self) -> None:
        if self.mode not in ("vector", "text", "hybrid"):
            invalid("mode", f"{self.mode!r} is none of vector, text, hybrid")
        if self.fusion not in ("rrf", "weighted"):
            invalid("fusion", f"{self.fusion!r} is neither rrf nor weighted")
        if not 0 <= self.vector_weight <= 1:
            invalid("vector_weight", f"{self.vector_weight} is not between 0 and 1")
        if self.mode != "vector" and any(query.text is None and query.record is None for query in self.queries):
            invalid("queries", f"mode {self.mode} looks for words; each query must be a text or a record")
        if self.mode == "text" and self.min_similarity is not None:
            invalid("min_similarity", "mode text has no similarity")
        if self.collapse not in (None, TEXT_COLLAPSE):
            collapse_column(self.collapse or "")
        if self.cursor is not None and len(self.queries) != 1:
            invalid("cursor", f"goes on with one query, not with {len(self.queries)}")

    def _check_filters(self) -> None:
        if self.filter is not None:
            object.__setattr__(self, "condition", parse_filter(self.filter))
        if self.partitions is not None:
            if not self.partitions:
                invalid("partitions", "is an empty list; leave it out to search all partitions")
            if len(set(self.partitions)) != len(self.partitions):
                invalid("partitions", "names a partition twice")
            for partition in self.partitions:
                _check_range("partitions", partition, 0, 2**31 - 1)
        _check_range("from_timestamp", self.from_timestamp, -1, 2**63 - 1)
        _check_range("until_timestamp", self.until_timestamp, -1, 2**63 - 1)
        if 0 <= self.until_timestamp < self.from_timestamp:
            invalid("until_timestamp", f"{self.until_timestamp} lies before from_timestamp {self.from_timestamp}")
        for partition, (low, high) in self.offset_ranges.items():
            _check_range("offset_ranges.partition", partition, EVERY_PARTITION, 2**31 - 1)
            _check_range("offset_ranges.from", low, -1, 2**63 - 1)
            _check_range("offset_ranges.until", high, -1, 2**63 - 1)
            if 0 <= high < low:
                invalid("offset_ranges.until", f"{high} lies before from {low}")
        for partition, offset in self.min_offsets.items():
            _check_range("min_offsets.partition", partition, 0, 2**31 - 1)
            _check_range("min_offsets.offset", offset, 0, 2**63 - 1)

    def offset_range(self, partition: int) -> tuple[int, int]:
        """(from inclusive, until exclusive) for a partition, -1 where open."""
        return self.offset_ranges.get(partition, self.offset_ranges.get(EVERY_PARTITION, (-1, -1)))


@dataclass(frozen=True, slots=True, eq=False)
class Hit:
    """One record found. `score` orders the hits, `similarity` is the model's; higher is better in both.

    `key`, `value`, `headers` and `vector` (float32[d]) are there when the request includes them; a tombstone's value is None too.
    """

    partition: int
    offset: int
    leader_epoch: int
    timestamp_ms: int
    score: float
    similarity: float | None
    duplicates: int
    flags: int
    text_score: float | None = None
    vector_rank: int | None = None
    text_rank: int | None = None
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    vector: Float32 | None = None

    @property
    def truncated(self) -> bool:
        """The text was longer than the model reads; the vector stands for its beginning."""
        return bool(self.flags & EMBEDDING_TRUNCATED)

    @property
    def chunk(self) -> bool:
        """The best of several vectors of one long text."""
        return bool(self.flags & CHUNK)

    @property
    def value_cut(self) -> bool:
        """`value` holds only the first `max_value_bytes` bytes."""
        return bool(self.flags & VALUE_CUT)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The hits of one query, best first; `error` is set when this query alone failed."""

    hits: list[Hit]
    next_cursor: bytes | None = None
    error: KafkaError | None = None


@dataclass(frozen=True, slots=True)
class PartitionState:
    """Freshness of one partition: all below `indexed_offset` (exclusive) is searchable, skipped or failed. `lag_ms` is how long
    the index has been behind the log, 0 when it is not. `indexed_offset` is -1 while the index loads."""

    partition: int
    log_start_offset: int
    high_watermark: int
    last_stable_offset: int
    indexed_offset: int
    lag_ms: int
    failed: int
    searched: bool
    error_code: ErrorCode = ErrorCode.NONE

    @property
    def lag(self) -> int:
        """Records that readers see and searches do not yet."""
        return max(0, self.last_stable_offset - max(self.indexed_offset, self.log_start_offset))


@dataclass(frozen=True, slots=True)
class SearchResponse:
    """The answer: one result per query, how fresh each partition searched is, and where the time went.

    `complete`: every partition asked for was searched and had all that `min_offsets` or `latest` asked for.
    Only without queries: `trouble`, why the index is not keeping up, as `STATE: REASON`, and `status`, all there is to know of it
    (JSON-able; see broker.search.status).
    """

    topic: str
    topic_id: bytes
    model: str | None
    dimensions: int
    metric: str
    generation: int
    complete: bool
    embed_micros: int
    wait_micros: int
    search_micros: int
    read_micros: int
    results: list[QueryResult]
    partitions: list[PartitionState]
    trouble: str | None = None
    status: Mapping[str, Any] | None = None
