"""The status of a topic's index, as `GET /v1/topics/TOPIC/vector` shows it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from broker.search.supervisor import WorkerSupervisor
from broker.topics import Topic


def disabled_status(topic: Topic) -> dict[str, Any]:
    """Of a topic without vectors."""
    return {"topic": topic.name, "enabled": False, "state": "disabled", "partitions": []}


def topic_status(
    topic: Topic, told: Mapping[str, Any] | None, supervisor: WorkerSupervisor, default_model: str
) -> dict[str, Any]:
    """`told` is the worker's own status, None while there is no worker that knows the topic.

    `state`: green (all indexed), catching_up, paused (only a person can help: `reason`), failed (tried again by itself: `reason`),
    loading.
    """
    assert topic.vector is not None
    partitions = [_partition(topic, log.partition, (told or {}).get("partitions", {})) for log in topic.partitions]
    loading = told is None or any(partition["indexed_offset"] < 0 for partition in partitions)
    reason = told["trouble"] if told else f"vector worker {supervisor.state}"
    if told and told["paused"]:
        state = "paused"
    elif told and told["trouble"]:
        state = "failed"
    elif loading:
        state = "loading"
    else:
        state = "catching_up" if any(partition["lag"] for partition in partitions) else "green"
    identity = (told or {}).get("identity") or {}
    return {
        "topic": topic.name,
        "topic_id": topic.topic_id.hex(),
        "enabled": True,
        "state": state,
        "reason": reason,
        "model": identity.get("model") or topic.vector.embedding_model or default_model,
        "revision": identity.get("revision"),
        "dimensions": identity.get("dimensions"),
        "metric": topic.vector.metric,
        "generation": told["generation"] if told else None,
        "generations": (told or {}).get("generations"),
        "config": asdict(topic.vector),
        "partitions": partitions,
        "embedder": (told or {}).get("embedder"),
        "worker": {"state": supervisor.state, "restarts": supervisor.restarts, "pid": supervisor.process_id},
    }


def trouble(status: Mapping[str, Any]) -> str | None:
    """Why searches may miss what the log holds and waiting alone may not help, as `STATE: REASON`; None when all is well."""
    if status["state"] in ("green", "catching_up", "disabled"):
        return None
    return f"{status['state']}: {status['reason']}" if status["reason"] else str(status["state"])


def _partition(topic: Topic, number: int, told: Mapping[int, Any]) -> dict[str, Any]:
    log = topic.partitions[number]
    index = told.get(number, {"indexed_offset": -1, "lag_ms": 0})
    indexed = max(index["indexed_offset"], log.log_start_offset)
    return {
        "partition": number,
        "log_start_offset": log.log_start_offset,
        "high_watermark": log.high_watermark,
        "last_stable_offset": log.last_stable_offset,
        "lag": max(0, log.last_stable_offset - indexed),
        **{name: value for name, value in index.items() if name != "log_start_offset"},
    }
