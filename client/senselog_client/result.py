"""What a search answers: hits, and how fresh they are."""

import json
import math
import sys
import uuid
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from senselog_client.errors import error_for
from senselog_client.messages import VectorSearchResponse

_METRICS = ("cosine", "dot", "l2")
_EMBEDDING_TRUNCATED, _CHUNK, _VALUE_CUT = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Hit:
    """One record found. `score` is what the hits are ordered by, `similarity` the model's; higher is better, always."""

    partition: int
    offset: int
    leader_epoch: int
    timestamp_ms: int
    score: float
    similarity: float | None
    text_score: float | None
    vector_rank: int | None
    text_rank: int | None
    duplicates: int
    truncated: bool
    """The text was longer than the model reads: the vector stands for its beginning."""
    chunk: bool
    """The best of several vectors of one long text."""
    value_cut: bool
    """`value` is only the first `max_value_bytes` bytes."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    vector: Sequence[float] | None


@dataclass(frozen=True, slots=True)
class PartitionState:
    """Freshness of one partition: every record below `indexed_offset` is searchable, skipped or failed; -1 while loading."""

    partition: int
    log_start_offset: int
    high_watermark: int
    last_stable_offset: int
    indexed_offset: int
    lag_ms: int
    failed: int
    searched: bool
    error_code: int

    @property
    def lag(self) -> int:
        """Records that readers see and searches do not yet."""
        return max(0, self.last_stable_offset - max(self.indexed_offset, self.log_start_offset))


@dataclass(frozen=True, slots=True)
class Status:
    """The index of a topic: its model, and how far each partition is."""

    topic_id: uuid.UUID
    model: str | None
    dimensions: int
    metric: str
    generation: int
    complete: bool
    """Every partition could be asked."""
    freshness: tuple[PartitionState, ...]
    trouble: str | None
    """Why the index is not keeping up, as `STATE: REASON`, states loading, paused (only a person can help) and failed (tried again).
    Only `status` tells it."""

    detail: Mapping[str, Any] | None
    """All that REST's `GET /v1/topics/TOPIC/vector` tells: state, rate, eta_s, segments, memory, failures, embedder … Only `status`
    has it."""

    @property
    def lag(self) -> int:
        """Records of all partitions that readers see and searches do not yet."""
        return sum(state.lag for state in self.freshness)


@dataclass(frozen=True, slots=True)
class SearchResult(Status):
    """The hits of one query, best first; iterate over it. The microseconds are the broker's, for the whole request."""

    hits: tuple[Hit, ...]
    cursor: bytes | None
    embed_micros: int
    wait_micros: int
    search_micros: int
    read_micros: int

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, index: int) -> Hit:
        return self.hits[index]


def parse_results(response: VectorSearchResponse) -> list[SearchResult]:
    """One result per query. Raises SearchError for an error of the request, or of any of its queries."""
    status = _status_fields(response)
    results = []
    for position, result in enumerate(response.results):
        if result.error_code:
            prefix = f"query {position}: " if len(response.results) > 1 else ""
            message = response.error_message
            raise error_for(result.error_code, prefix + message if message else None)
        results.append(
            SearchResult(
                **status,
                hits=tuple(_hit(hit) for hit in result.hits),
                cursor=result.next_cursor,
                embed_micros=response.embed_micros,
                wait_micros=response.wait_micros,
                search_micros=response.search_micros,
                read_micros=response.read_micros,
            )
        )
    return results


def parse_status(response: VectorSearchResponse) -> Status:
    """The state alone. Raises SearchError."""
    return Status(**_status_fields(response))


def _status_fields(response: VectorSearchResponse) -> dict[str, Any]:
    if response.error_code:
        raise error_for(response.error_code, response.error_message)
    return {
        "topic_id": response.topic_id,
        "model": response.model,
        "dimensions": response.dimensions,
        "metric": _METRICS[response.metric] if 0 <= response.metric < len(_METRICS) else str(response.metric),
        "generation": response.generation,
        "complete": response.complete,
        "freshness": tuple(_partition_state(state) for state in response.partition_states),
        "trouble": response.error_message,
        "detail": None if response.index_status is None else json.loads(response.index_status),
    }


def _partition_state(state: Any) -> PartitionState:
    return PartitionState(
        partition=state.partition,
        log_start_offset=state.log_start_offset,
        high_watermark=state.high_watermark,
        last_stable_offset=state.last_stable_offset,
        indexed_offset=state.indexed_offset,
        lag_ms=state.lag_ms,
        failed=state.failed,
        searched=state.searched,
        error_code=state.error_code,
    )


def _hit(hit: Any) -> Hit:
    return Hit(
        partition=hit.partition,
        offset=hit.offset,
        leader_epoch=hit.leader_epoch,
        timestamp_ms=hit.timestamp,
        score=hit.score,
        similarity=None if math.isnan(hit.similarity) else hit.similarity,
        text_score=None if math.isnan(hit.text_score) else hit.text_score,
        vector_rank=None if hit.vector_rank < 0 else hit.vector_rank,
        text_rank=None if hit.text_rank < 0 else hit.text_rank,
        duplicates=hit.duplicates,
        truncated=bool(hit.flags & _EMBEDDING_TRUNCATED),
        chunk=bool(hit.flags & _CHUNK),
        value_cut=bool(hit.flags & _VALUE_CUT),
        key=_bytes(hit.key),
        value=_bytes(hit.value),
        headers=tuple((header.name, _bytes(header.value)) for header in hit.headers),
        vector=None if hit.vector is None else _floats(hit.vector),
    )


def _bytes(data: Any) -> bytes | None:
    return None if data is None else bytes(data)  # kafka-python may lend a memoryview


def _floats(data: Any) -> Sequence[float]:
    floats = array("f", bytes(data))
    if sys.byteorder == "big":
        floats.byteswap()
    return floats
