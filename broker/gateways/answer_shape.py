"""The shape of a search's answer, for the OpenAPI document; `broker.gateways.answer` writes it without models, ten times as fast."""

from typing import Any

from pydantic import BaseModel, Field


class HitHeader(BaseModel):
    name: str
    value: str | None
    value_base64: str | None = None


class HitAnswer(BaseModel):
    """A record found. Bytes that are no UTF-8 stand in `key_base64` and `value_base64`."""

    topic: str
    partition: int
    offset: int
    leader_epoch: int
    timestamp: int
    key: str | None
    key_base64: str | None = None
    value: str | None
    value_base64: str | None = None
    headers: list[HitHeader]
    score: float = Field(description="what hits are ordered by; higher is better")
    similarity: float | None
    text_score: float | None
    vector_rank: int | None
    text_rank: int | None
    duplicates: int
    embedding_truncated: bool
    chunk: bool
    value_truncated: bool
    vector: list[float] | None = None


class PartitionFreshness(BaseModel):
    partition: int
    log_start_offset: int
    high_watermark: int
    last_stable_offset: int
    indexed_offset: int = Field(
        description="every record below is searchable, skipped or failed; -1 while the index loads"
    )
    pending: int
    lag_ms: int
    failed: int
    searched: bool
    error: str | None


class Freshness(BaseModel):
    complete: bool
    lag_records: int
    lag_ms: int
    partitions: list[PartitionFreshness]


class QueryAnswer(BaseModel):
    results: list[HitAnswer]
    count: int
    next_cursor: str | None
    error: dict[str, Any] | None = None


class SearchAnswer(BaseModel):
    """`results` of one query, or `batch` of several."""

    topic: str
    results: list[HitAnswer] | None = None
    count: int | None = None
    next_cursor: str | None = None
    batch: list[QueryAnswer] | None = None
    model: dict[str, Any] = Field(examples=[{"name": "local:all-MiniLM-L6-v2", "dimensions": 384, "generation": 1}])
    score: dict[str, Any] = Field(examples=[{"metric": "cosine", "higher_is_better": True}])
    freshness: Freshness
    stats: dict[str, float]
