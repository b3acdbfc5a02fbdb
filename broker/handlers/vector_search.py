"""VectorSearch (100): the Kafka door to search. A message in, the one SearchRequest, a message out."""

import json
import math
from typing import Any

import numpy as np

from broker.context import RequestContext
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import VectorSearchRequest, VectorSearchResponse
from vector.request import (
    NO_TOPIC_ID,
    Fusion,
    Hit,
    Mode,
    PartitionState,
    Query,
    SearchRequest,
    SearchResponse,
    vector_from_bytes,
)

_MODES: dict[int, Mode] = {0: "vector", 1: "text", 2: "hybrid"}
_FUSIONS: dict[int, Fusion] = {0: "rrf", 1: "weighted"}
_METRICS = {"cosine": 0, "dot": 1, "l2": 2}
_INCLUDE = {1: "key", 2: "value", 4: "headers", 8: "vector", 16: "scores"}
_NOT_A_NUMBER = math.nan


@api(ApiKey.VECTOR_SEARCH, versions=(0, 0))
async def handle(context: RequestContext, request: VectorSearchRequest) -> VectorSearchResponse:
    """Every KafkaError becomes the response's error code with its message."""
    try:
        response = await context.services.search.search(_request(request), context.access)
    except KafkaError as error:
        context.services.refusals.warning(
            "search refused", client=context.client_host, topic=request.topic_name, error=str(error)
        )
        return VectorSearchResponse(error_code=error.code, error_message=error.message, topic_id=request.topic_id)
    return _response(response)


def _request(message: VectorSearchRequest) -> SearchRequest:
    """Raises KafkaError INVALID_REQUEST naming the field."""
    if message.mode not in _MODES:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"mode: {message.mode} is none of 0 vector, 1 text, 2 hybrid")
    if message.fusion not in _FUSIONS:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"fusion: {message.fusion} is neither 0 rrf nor 1 weighted")
    if message.isolation_level not in (0, 1):
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"isolation_level: {message.isolation_level} is neither 0 nor 1")
    if message.include & ~sum(_INCLUDE):
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"include: {message.include} has unknown bits")
    return SearchRequest(
        topic=message.topic_name,
        topic_id=bytes(message.topic_id) or NO_TOPIC_ID,
        queries=tuple(_query(query) for query in message.queries),
        mode=_MODES[message.mode],
        limit=message.limit,
        min_similarity=None if math.isnan(message.min_similarity) else message.min_similarity,
        partitions=None if message.partitions is None else tuple(message.partitions),
        from_timestamp=message.from_timestamp,
        until_timestamp=message.until_timestamp,
        offset_ranges=_once_each(
            "offset_ranges", [(one.partition, (one.from_offset, one.until_offset)) for one in message.offset_ranges]
        ),
        filter=message.filter,
        collapse=message.collapse,
        min_offsets=_once_each("min_offsets", [(one.partition, one.offset) for one in message.min_offsets]),
        latest=message.latest,
        max_wait_ms=message.max_wait_ms,
        partial_ok=message.partial_ok,
        isolation_level="read_committed" if message.isolation_level else "read_uncommitted",
        include=frozenset(name for bit, name in _INCLUDE.items() if message.include & bit),
        max_value_bytes=None if message.max_value_bytes == -1 else message.max_value_bytes,
        exact=message.exact,
        ef=None if message.ef == -1 else message.ef,
        cursor=message.cursor,
        timeout_ms=message.timeout_ms,
        fusion=_FUSIONS[message.fusion],
        vector_weight=message.vector_weight,
    )


def _once_each(field: str, rows: list[tuple[int, Any]]) -> dict[int, Any]:
    found = dict(rows)
    if len(found) != len(rows):
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"{field}: names a partition twice")
    return found


def _query(query: VectorSearchRequest.Query) -> Query:
    has_record = query.partition != -1 or query.offset != -1
    return Query(
        **_point(query.text, query.vector, (query.partition, query.offset) if has_record else None),
        positive=tuple(_example(example) for example in query.positive),
        negative=tuple(_example(example) for example in query.negative),
    )


def _example(example: VectorSearchRequest.Example) -> Query:
    has_record = example.partition != -1 or example.offset != -1
    return Query(**_point(example.text, example.vector, (example.partition, example.offset) if has_record else None))


def _point(text: str | None, vector: bytes | None, record: tuple[int, int] | None) -> dict[str, Any]:
    return {"text": text, "vector": None if vector is None else vector_from_bytes(vector), "record": record}


def _response(response: SearchResponse) -> VectorSearchResponse:
    return VectorSearchResponse(
        error_message=response.trouble,  # with error code 0: what a person should know of an index that lags
        topic_id=response.topic_id,
        model=response.model,
        dimensions=response.dimensions,
        metric=_METRICS[response.metric],
        generation=response.generation,
        complete=response.complete,
        embed_micros=response.embed_micros,
        wait_micros=response.wait_micros,
        search_micros=response.search_micros,
        read_micros=response.read_micros,
        results=[
            VectorSearchResponse.Result(
                error_code=ErrorCode.NONE if result.error is None else result.error.code,
                hits=[_hit(hit) for hit in result.hits],
                next_cursor=result.next_cursor,
            )
            for result in response.results
        ],
        partition_states=[_state(state) for state in response.partitions],
        index_status=None if response.status is None else json.dumps(response.status),
    )


def _hit(hit: Hit) -> VectorSearchResponse.Hit:
    return VectorSearchResponse.Hit(
        partition=hit.partition,
        offset=hit.offset,
        leader_epoch=hit.leader_epoch,
        timestamp=hit.timestamp_ms,
        score=hit.score,
        similarity=_NOT_A_NUMBER if hit.similarity is None else hit.similarity,
        text_score=_NOT_A_NUMBER if hit.text_score is None else hit.text_score,
        vector_rank=-1 if hit.vector_rank is None else hit.vector_rank,
        text_rank=-1 if hit.text_rank is None else hit.text_rank,
        duplicates=hit.duplicates,
        flags=hit.flags,
        key=hit.key,
        value=hit.value,
        headers=[VectorSearchResponse.Header(name=name, value=value) for name, value in hit.headers],
        vector=None if hit.vector is None else np.asarray(hit.vector, dtype="<f4").tobytes(),
    )


def _state(state: PartitionState) -> VectorSearchResponse.PartitionState:
    return VectorSearchResponse.PartitionState(
        partition=state.partition,
        error_code=state.error_code,
        log_start_offset=state.log_start_offset,
        high_watermark=state.high_watermark,
        last_stable_offset=state.last_stable_offset,
        indexed_offset=state.indexed_offset,
        lag_ms=state.lag_ms,
        failed=state.failed,
        searched=state.searched,
    )
