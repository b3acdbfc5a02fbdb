"""gRPC messages -> the one SearchRequest behind all doors, and its answer back; what values may be is decided there."""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from senselog_client.v1 import vector_search_pb2 as messages

from broker.gateways.errors import error_body
from protocol.errors import ErrorCode, KafkaError
from vector.request import (
    DEFAULT_INCLUDE,
    EVERY_PARTITION,
    NO_TOPIC_ID,
    TIMEOUT_MS_MAX,
    Fusion,
    Hit,
    Isolation,
    Mode,
    PartitionState,
    Query,
    SearchRequest,
    SearchResponse,
    invalid,
)

_MODES: dict[int, Mode] = {0: "vector", 1: "text", 2: "hybrid"}
_FUSIONS: dict[int, Fusion] = {0: "rrf", 1: "weighted"}
_ISOLATION: dict[int, Isolation] = {0: "read_committed", 1: "read_uncommitted"}
TIMEOUT_MS = 2000
"""Of calls without a deadline, as in the other doors."""


def search_request(topic: Any, queries: Any, options: Any, remaining_s: float | None) -> SearchRequest:
    """`remaining_s` until the call's deadline, None without one. Raises KafkaError naming the field."""
    if options.mode not in _MODES:
        invalid("mode", f"{options.mode} is none of 0 vector, 1 text, 2 hybrid")
    if options.fusion not in _FUSIONS:
        invalid("fusion", f"{options.fusion} is neither 0 rrf nor 1 weighted")
    if options.isolation not in _ISOLATION:
        invalid("isolation", f"{options.isolation} is neither 0 read_committed nor 1 read_uncommitted")
    return SearchRequest(
        **_topic(topic),
        queries=tuple(_query(query) for query in queries),
        mode=_MODES[options.mode],
        limit=_given(options, "limit", 10),
        min_similarity=_given(options, "min_similarity"),
        partitions=tuple(options.partitions) or None,
        from_timestamp=_bound(options, "from_timestamp_ms"),
        until_timestamp=_bound(options, "until_timestamp_ms"),
        offset_ranges=_offset_ranges(options),
        filter=_given(options, "filter"),
        collapse=_given(options, "collapse"),
        min_offsets=_once("min_offsets", [(row.partition, row.offset) for row in options.min_offsets]),
        latest=options.latest,
        max_wait_ms=options.max_wait_ms,
        partial_ok=options.partial_ok,
        isolation_level=_ISOLATION[options.isolation],
        include=_include(options),
        max_value_bytes=_given(options, "max_value_bytes"),
        exact=options.exact,
        ef=_given(options, "ef"),
        cursor=_given(options, "cursor"),
        timeout_ms=_timeout_ms(remaining_s, options.max_wait_ms),
        fusion=_FUSIONS[options.fusion],
        vector_weight=_given(options, "vector_weight", 0.5),
    )


def _given(message: Any, name: str, default: Any = None) -> Any:
    return getattr(message, name) if message.HasField(name) else default


def _bound(message: Any, name: str) -> int:
    """The request says "open" with -1, which is not what a caller says who gives a negative one."""
    value: int = _given(message, name, 0)
    if value < 0:
        invalid(name, f"{value} is below 0")
    return value if message.HasField(name) else -1


def _timeout_ms(remaining_s: float | None, max_wait_ms: int) -> int:
    if remaining_s is None:
        return TIMEOUT_MS
    return min(TIMEOUT_MS_MAX, max(1, int(remaining_s * 1000) - max(0, max_wait_ms)))


def _topic(topic: Any) -> dict[str, Any]:
    kind = topic.WhichOneof("kind")
    if kind is None:
        invalid("topic", "exactly one of name and id must be given")
    if kind == "name":
        return {"topic": topic.name}
    if len(topic.id) != len(NO_TOPIC_ID) or topic.id == NO_TOPIC_ID:
        invalid("topic.id", f"{len(topic.id)} bytes are no topic id, which has 16 that are not all 0")
    return {"topic": None, "topic_id": topic.id}


def _query(query: Any) -> Query:
    if query.WhichOneof("kind") == "examples":
        return Query(
            positive=tuple(_point(example) for example in query.examples.positive),
            negative=tuple(_point(example) for example in query.examples.negative),
        )
    return _point(query)


def _point(query: Any) -> Query:
    kind = query.WhichOneof("kind")
    if kind == "text":
        return Query(text=query.text)
    if kind == "vector":
        return Query(vector=np.array(query.vector.values, dtype=np.float32))
    return Query(record=(query.record.partition, query.record.offset)) if kind == "record" else Query()


def _offset_ranges(options: Any) -> dict[int, tuple[int, int]]:
    rows = []
    for row in options.offset_ranges:
        partition = _given(row, "partition", EVERY_PARTITION)
        if row.HasField("partition") and partition < 0:
            invalid("offset_ranges.partition", f"{partition} is below 0")
        rows.append((partition, (_bound(row, "from_offset"), _bound(row, "until_offset"))))
    return _once("offset_ranges", rows)


def _once(field: str, rows: list[tuple[int, Any]]) -> dict[int, Any]:
    found = dict(rows)
    if len(found) != len(rows):
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"{field}: names a partition twice")
    return found


def _include(options: Any) -> frozenset[str]:
    if not options.HasField("include"):
        return DEFAULT_INCLUDE
    return frozenset(field.name for field, _ in options.include.ListFields())


# The answer


def single_response(response: SearchResponse) -> Any:
    """Of Search. Raises the KafkaError of its query."""
    (result,) = response.results
    if result.error is not None:
        raise result.error
    hits = [_hit(hit) for hit in result.hits]
    return messages.SearchResponse(hits=hits, next_cursor=result.next_cursor, answer=_answer(response))


def batch_response(response: SearchResponse) -> Any:
    """Of BatchSearch."""
    results = []
    for result in response.results:
        error = None
        if result.error is not None:
            body = error_body(result.error)
            error = messages.Error(
                code=body["code"],
                kafka_code=int(result.error.code),
                message=body["message"],
                retriable=body["retriable"],
            )
        hits = [_hit(hit) for hit in result.hits]
        results.append(messages.QueryResult(hits=hits, next_cursor=result.next_cursor, error=error))
    return messages.BatchSearchResponse(results=results, answer=_answer(response))


def _answer(response: SearchResponse) -> Any:
    return messages.Answer(
        topic=response.topic,
        topic_id=response.topic_id,
        model=messages.Model(
            name=response.model or "",
            dimensions=response.dimensions,
            metric=response.metric,
            generation=response.generation,
        ),
        complete=response.complete,
        partitions=[_state(state) for state in response.partitions],
        embed_micros=response.embed_micros,
        wait_micros=response.wait_micros,
        search_micros=response.search_micros,
        read_micros=response.read_micros,
    )


def _hit(hit: Hit) -> Any:
    return messages.Hit(
        partition=hit.partition,
        offset=hit.offset,
        leader_epoch=hit.leader_epoch,
        timestamp_ms=hit.timestamp_ms,
        score=hit.score,
        similarity=hit.similarity,
        text_score=hit.text_score,
        vector_rank=hit.vector_rank,
        text_rank=hit.text_rank,
        duplicates=hit.duplicates,
        embedding_truncated=hit.truncated,
        chunk=hit.chunk,
        value_truncated=hit.value_cut,
        key=hit.key,
        value=hit.value,
        headers=[messages.Header(name=name, value=value) for name, value in hit.headers],
        vector=None if hit.vector is None else messages.Vector(values=hit.vector.tolist()),
    )


def _state(state: PartitionState) -> Any:
    return messages.PartitionState(
        partition=state.partition,
        log_start_offset=state.log_start_offset,
        high_watermark=state.high_watermark,
        last_stable_offset=state.last_stable_offset,
        indexed_offset=state.indexed_offset,
        lag_ms=state.lag_ms,
        failed=state.failed,
        searched=state.searched,
        error_code=int(state.error_code),
    )


def index_status(status: dict[str, Any]) -> Any:
    """REST's document of a topic's index as a message."""
    told = messages.IndexStatus(
        topic=status["topic"],
        topic_id=uuid.UUID(status["topic_id"]).bytes if status.get("topic_id") else b"",
        enabled=status["enabled"],
        state=status["state"],
        reason=status.get("reason") or "",
        partitions=[_partition_status(row) for row in status["partitions"]],
    )
    if not told.enabled:
        return told
    told.model.MergeFrom(
        messages.Model(
            name=status["model"],
            dimensions=status["dimensions"] or 0,
            metric=status["metric"],
            generation=status["generation"] or 0,
        )
    )
    _fill(told, status, ("lag", "lag_ms", "rate_per_s", "eta_s", "progress", "indexed", "skipped", "failed", "segments",
                         "saved_by_dedupe", "memory_bytes", "disk_bytes", "sampled_recall_at_10"))  # fmt: skip
    if status["embedder"] is not None:
        names = (
            "calls",
            "texts_embedded",
            "queries_embedded",
            "tokens",
            "tokens_estimated",
            "cache_hits",
            "retries",
            "poisoned",
            "trouble",
        )
        _fill(told.embedder, status["embedder"], names)
    for worker in status["workers"]:
        _fill(told.workers.add(), worker, ("state", "restarts", "address", "memory_bytes", "memory_limit_bytes"))
    return told


def _fill(message: Any, row: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if row.get(name) is not None:
            setattr(message, name, row[name])


def _partition_status(row: Mapping[str, Any]) -> Any:
    told = messages.PartitionStatus(state=row["state"], segments=len(row.get("segments", ())))
    names = (
        "partition",
        "log_start_offset",
        "high_watermark",
        "last_stable_offset",
        "indexed_offset",
        "lag_ms",
        "failed",
    )
    _fill(told.offsets, row, names)
    _fill(told, row, ("indexed", "memory_bytes", "disk_bytes", "rate_per_s", "eta_s", "progress", "saved_by_dedupe",
                      "sampled_recall_at_10", "worker"))  # fmt: skip
    told.skipped = sum(row.get("skipped", {}).values())
    return told


def failures_options(request: Any) -> dict[str, Any]:
    """Which failures are asked for, in the words of `VectorAdministration.failures`."""
    after = (request.after.partition, request.after.offset) if request.HasField("after") else None
    given = {name: _given(request, name) for name in ("partition", "generation")}
    return {**given, "after": after, "limit": _given(request, "limit", 100)}


def failures_response(found: Mapping[str, Any]) -> Any:
    """A page of failures as a message."""
    names = ("partition", "offset", "records", "reason", "model", "generation", "failed_at_ms")
    rows = []
    for document in found["failures"]:
        rows.append(messages.Failure())
        _fill(rows[-1], document, names)
    response = messages.ListFailuresResponse(total=found["total"], failures=rows)
    if found["next"] is not None:
        response.next.partition, response.next.offset = found["next"]
    return response
