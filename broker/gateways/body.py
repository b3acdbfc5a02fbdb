"""The JSON body of a search. A field that is not here is an error: a silently ignored filter is worse than none."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from broker.gateways.data import milliseconds
from vector.request import QUERIES_MAX

Finite = Annotated[float, Field(allow_inf_nan=False)]
PartitionId = Annotated[int, Field(ge=0)]
Offset = Annotated[int, Field(ge=0)]
Value = TypeVar("Value")


class Strict(BaseModel):
    # strict: "10" is not 10; forbid: an unknown field is answered with 400.
    model_config = ConfigDict(extra="forbid", strict=True)


class RecordId(Strict):
    """A record of the topic."""

    partition: PartitionId
    offset: Offset


class Example(Strict):
    """One point: a text, a vector or a record."""

    text: str | None = None
    vector: list[Finite] | None = None
    record: RecordId | None = None

    @model_validator(mode="after")
    def _one(self) -> "Example":
        if sum(part is not None for part in (self.text, self.vector, self.record)) != 1:
            raise ValueError("give exactly one of text, vector, record")
        return self


class Query(Strict):
    """What to look for: a text, a vector, records like this one, or examples."""

    text: str | None = None
    vector: list[Finite] | None = None
    record: RecordId | None = None
    positive: list[Example] = []
    negative: list[Example] = []

    @model_validator(mode="after")
    def _one(self) -> "Query":
        examples = bool(self.positive or self.negative)
        if sum(part is not None for part in (self.text, self.vector, self.record)) + examples != 1:
            raise ValueError("give exactly one of text, vector, record, positive/negative")
        return self


def _text_query(query: Any) -> Any:
    return {"text": query} if isinstance(query, str) else query


# A plain text is the usual query. Converted beforehand, because a union would complain about all its members at once.
AnyQuery = Annotated[Query, BeforeValidator(_text_query, json_schema_input_type=str | Query)]


def _collapse(collapse: Any) -> Any:
    if isinstance(collapse, dict) and len(collapse) == 1:
        ((kind, name),) = collapse.items()
        if isinstance(name, str) and kind in ("header", "path"):
            return f"header:{name}" if kind == "header" else name
    return collapse


Collapse = Annotated[str, BeforeValidator(_collapse, json_schema_input_type=str | dict[Literal["header", "path"], str])]


class Bounds(Strict):
    """A range of offsets."""

    gte: Offset | None = None
    gt: Offset | None = None
    lt: Offset | None = None
    lte: Offset | None = None

    def range(self) -> tuple[int, int]:
        """(from inclusive, until exclusive), -1 where open."""
        return half_open(self.gte, self.gt, self.lt, self.lte)


class TimeBounds(Strict):
    """A range of record timestamps: milliseconds since 1970, or ISO 8601 (UTC unless it names a zone)."""

    gte: int | str | None = None
    gt: int | str | None = None
    lt: int | str | None = None
    lte: int | str | None = None

    @field_validator("gte", "gt", "lt", "lte")
    @classmethod
    def _milliseconds(cls, value: int | str | None) -> int | None:
        return None if value is None else milliseconds(value)

    def range(self) -> tuple[int, int]:
        """(from inclusive, until exclusive) in milliseconds, -1 where open."""
        bounds = (self.gte, self.gt, self.lt, self.lte)
        return half_open(*(bound if isinstance(bound, int) else None for bound in bounds))


def half_open(gte: int | None, gt: int | None, lt: int | None, lte: int | None) -> tuple[int, int]:
    """The range all given bounds allow: (from inclusive, until exclusive), -1 where open."""
    lows = [bound for bound in (gte, None if gt is None else gt + 1) if bound is not None]
    highs = [bound for bound in (lt, None if lte is None else lte + 1) if bound is not None]
    return max(lows, default=-1), min(highs, default=-1)


_KEY = """One test: `eq`, `any` (a list) or `prefix`, of texts or `{"base64": "…"}`."""
_MUST = """All of these hold. A condition is `{"header": NAME, …}` or `{"path": "$.a.b", …}` with one test, or an object of this kind.
Tests: `eq`, `any`, `prefix`, `range` (`gte`, `gt`, `lt`, `lte`), `exists`. Paths lead into a JSON value; arrays are looked through."""
_TESTS_EXAMPLE = [{"path": "$.level", "any": ["error", "fatal"]}, {"header": "service", "prefix": "pay"}]


class Filter(Strict):
    """Which records may be hits. Everything given must hold."""

    partition: PartitionId | None = None
    partitions: list[PartitionId] | None = None
    min_offset: Offset | None = Field(default=None, description="inclusive")
    max_offset: Offset | None = Field(default=None, description="inclusive")
    offset: Bounds | None = Field(default=None, description="in every partition")
    offsets: dict[str, Bounds] | None = Field(default=None, description="per partition")
    timestamp: TimeBounds | None = None
    # Judged by vector.filter.parse, which every door shares and whose errors name the place.
    key: Any = Field(default=None, description=_KEY, examples=[{"prefix": "user-"}])
    must: Any = Field(default=None, description=_MUST, examples=[_TESTS_EXAMPLE])
    should: Any = Field(default=None, description="at least `min_should` of these conditions hold")
    min_should: Any = Field(default=None, description="how many of `should`; 1 if not given")
    must_not: Any = Field(default=None, description="none of these conditions holds")

    @field_validator("offsets")
    @classmethod
    def _partition_keys(cls, offsets: dict[str, Bounds] | None) -> dict[str, Bounds] | None:
        return _check_partition_keys(offsets)

    @model_validator(mode="after")
    def _one(self) -> "Filter":
        if self.partition is not None and self.partitions is not None:
            raise ValueError("give partition or partitions, not both")
        return self


def _check_partition_keys(values: dict[str, Value] | None) -> dict[str, Value] | None:
    for key in values or {}:
        if not key.isdecimal():
            raise ValueError(f"{key!r} is not a partition")
    return values


class Consistency(Strict):
    """How fresh the answer must be."""

    level: Literal["eventual", "latest"] = Field(
        default="eventual", description="latest: all there is when the request arrives"
    )
    min_offsets: dict[str, Offset] | None = Field(
        default=None, description="per partition: all below must be searchable"
    )
    wait_ms: int = Field(default=0, ge=0, description="how long to wait for it")
    on_timeout: Literal["error", "partial"] = "error"

    @field_validator("min_offsets")
    @classmethod
    def _partition_keys(cls, offsets: dict[str, int] | None) -> dict[str, int] | None:
        return _check_partition_keys(offsets)


class SearchBody(Strict):
    """A search: `query`, or several `queries`."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "query": "database connection errors",
                    "k": 10,
                    "filter": {"partition": 0, "min_offset": 1000, "max_offset": 5000},
                },
                {"query": "who failed to log in", "consistency": {"level": "latest", "wait_ms": 500}},
                {
                    "query": "payment refused",
                    "filter": {"must": [{"path": "$.code", "range": {"gte": 500}}], "key": {"prefix": "user-"}},
                },
            ]
        },
    )

    query: AnyQuery | None = None
    queries: list[AnyQuery] | None = Field(default=None, description=f"1 to {QUERIES_MAX}; answered in `batch`")
    mode: Literal["vector", "text", "hybrid"] = "vector"
    fusion: Literal["rrf", "weighted"] = Field(
        default="rrf", description="of mode hybrid: by reciprocal ranks, or by scores"
    )
    vector_weight: Finite = Field(default=0.5, description="of mode hybrid: 0 to 1; the rest is the words'")
    k: int | None = Field(default=None, description="the same as limit")
    limit: int | None = Field(default=None, description="hits per query, 10 if not given")
    filter: Filter | None = None
    min_similarity: Finite | None = None
    collapse: Collapse | None = Field(
        default=None,
        description="one hit for all records with the same `text`, `key`, `header:NAME` or path such as `$.user`",
    )
    consistency: Consistency = Consistency()
    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed"
    include: list[Literal["key", "value", "headers", "vector", "scores"]] = ["key", "value", "headers"]
    max_value_bytes: int | None = Field(default=None, ge=0)
    exact: bool = False
    ef: int | None = Field(default=None, ge=1)
    cursor: str | None = Field(
        default=None, description="`next_cursor` of the page before: the same search goes on behind it"
    )
    timeout_ms: int = Field(default=2000, ge=1)

    @model_validator(mode="after")
    def _exclusive(self) -> "SearchBody":
        if (self.query is None) == (self.queries is None):
            raise ValueError("give query or queries")
        if self.k is not None and self.limit is not None:
            raise ValueError("k and limit are the same: give one")
        return self
