"""A SearchResponse as JSON."""

import base64
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vector.request import Hit, PartitionState, SearchResponse


def render(topic: str, response: "SearchResponse", *, batch: bool) -> dict[str, Any]:
    """The body of a 200: `results` of one query, or `batch` of several; always with its freshness."""
    answers = [
        {"results": [_hit(topic, hit) for hit in result.hits], "count": len(result.hits), "next_cursor": None}
        for result in response.results
    ]
    body: dict[str, Any] = {"topic": topic}
    if batch:
        body["batch"] = answers
    else:
        body |= answers[0]
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


def _ms(micros: int) -> float:
    return round(micros / 1000, 3)


def _hit(topic: str, hit: "Hit") -> dict[str, Any]:
    shown = {
        "topic": topic,
        "partition": hit.partition,
        "offset": hit.offset,
        "leader_epoch": hit.leader_epoch,
        "timestamp": hit.timestamp_ms,
        **_data("key", hit.key),
        **_data("value", hit.value),
        "headers": [{"name": name, **_data("value", value)} for name, value in hit.headers],
        "score": hit.score,
        "similarity": _number(hit.similarity),
        "text_score": _number(hit.text_score),
        "vector_rank": _rank(hit.vector_rank),
        "text_rank": _rank(hit.text_rank),
        "duplicates": hit.duplicates,
        "embedding_truncated": hit.truncated,
        "chunk": hit.chunk,
        "value_truncated": hit.value_cut,
    }
    if hit.vector is not None:
        shown["vector"] = [float(number) for number in hit.vector]
    return shown


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _rank(value: int | None) -> int | None:
    return None if value is None or value < 0 else value


def _data(name: str, data: bytes | None) -> dict[str, str | None]:
    """Bytes as text where they are UTF-8, else as `name_base64`; JSON has no bytes."""
    if data is None:
        return {name: None}
    try:
        return {name: bytes(data).decode()}
    except UnicodeDecodeError:
        return {name: None, f"{name}_base64": base64.b64encode(data).decode()}


def _state(state: "PartitionState") -> dict[str, Any]:
    return {
        "partition": state.partition,
        "log_start_offset": state.log_start_offset,
        "high_watermark": state.high_watermark,
        "last_stable_offset": state.last_stable_offset,
        "indexed_offset": state.indexed_offset,
        "pending": max(0, state.last_stable_offset - state.indexed_offset),
        "lag_ms": state.lag_ms,
        "failed": state.failed,
        "searched": state.searched,
        "error": None if not state.error_code else int(state.error_code),
    }
