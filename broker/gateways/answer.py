"""A SearchResponse as JSON."""

import base64
from typing import TYPE_CHECKING, Any

from broker.gateways.data import json_data
from broker.gateways.errors import error_body
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from vector.request import Hit, PartitionState, QueryResult, SearchResponse


def render(topic: str, response: "SearchResponse", *, batch: bool) -> dict[str, Any]:
    """The body of a 200: `results` of one query, or `batch` of several; always with its freshness.

    Raises the KafkaError of a single query; in a batch it stands in the query's place.
    """
    body: dict[str, Any] = {"topic": topic}
    if batch:
        body["batch"] = [_result(topic, result) for result in response.results]
    else:
        (result,) = response.results
        if result.error is not None:
            raise result.error
        body |= _result(topic, result)
    states = [_state(state) for state in response.partitions]
    return body | {
        "model": {"name": response.model, "dimensions": response.dimensions, "generation": response.generation},
        "score": {"metric": response.metric, "higher_is_better": True},
        "freshness": {
            "complete": response.complete,
            "lag_records": sum(state["pending"] for state in states),
            "lag_ms": max((state["lag_ms"] for state in states), default=0),
            "partitions": states,
        },
        "stats": {
            "took_ms": _ms(
                response.embed_micros + response.wait_micros + response.search_micros + response.read_micros
            ),
            "embed_ms": _ms(response.embed_micros),
            "wait_ms": _ms(response.wait_micros),
            "search_ms": _ms(response.search_micros),
            "read_ms": _ms(response.read_micros),
        },
    }


def _result(topic: str, result: "QueryResult") -> dict[str, Any]:
    shown: dict[str, Any] = {"results": [_hit(topic, hit) for hit in result.hits], "count": len(result.hits)}
    shown["next_cursor"] = None if result.next_cursor is None else base64.b64encode(result.next_cursor).decode()
    if result.error is not None:
        shown["error"] = error_body(result.error)
    return shown


def _ms(micros: int) -> float:
    return round(micros / 1000, 3)


def _hit(topic: str, hit: "Hit") -> dict[str, Any]:
    shown: dict[str, Any] = {
        "topic": topic,
        "partition": hit.partition,
        "offset": hit.offset,
        "leader_epoch": hit.leader_epoch,
        "timestamp": hit.timestamp_ms,
        **json_data("key", hit.key),
        **json_data("value", hit.value),
        "headers": [{"name": name, **json_data("value", value)} for name, value in hit.headers],
        "score": hit.score,
        "similarity": hit.similarity,
        "text_score": hit.text_score,
        "vector_rank": hit.vector_rank,
        "text_rank": hit.text_rank,
        "duplicates": hit.duplicates,
        "embedding_truncated": hit.truncated,
        "chunk": hit.chunk,
        "value_truncated": hit.value_cut,
    }
    if hit.vector is not None:
        shown["vector"] = [float(number) for number in hit.vector]
    return shown


def _state(state: "PartitionState") -> dict[str, Any]:
    return {
        "partition": state.partition,
        "log_start_offset": state.log_start_offset,
        "high_watermark": state.high_watermark,
        "last_stable_offset": state.last_stable_offset,
        "indexed_offset": state.indexed_offset,
        "pending": state.lag,
        "lag_ms": state.lag_ms,
        "failed": state.failed,
        "searched": state.searched,
        "error": None if state.error_code is ErrorCode.NONE else state.error_code.name,
    }
