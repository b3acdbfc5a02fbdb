"""The status of a topic's index, as `GET /v1/topics/TOPIC/vector` shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from broker.search.remote_workers import RemotePlace
from broker.search.supervisor import WorkerSupervisor
from broker.topics import Topic
from vector.placement import worker_of


def disabled_status(topic: Topic) -> dict[str, Any]:
    """Of a topic without vectors."""
    return {"topic": topic.name, "enabled": False, "state": "disabled", "partitions": []}


def topic_status(
    topic: Topic, told: Mapping[str, Any] | None, workers: Sequence[WorkerSupervisor | RemotePlace], default_model: str
) -> dict[str, Any]:
    """`told` is the workers' own status, None while there is no worker that knows the topic.

    `state`: green (all indexed), catching_up, paused (only a person can help: `reason`),
    over_budget (the memory of a worker is used up: `reason`), failed (tried again by itself: `reason`),
    loading.
    """
    assert topic.vector is not None
    partitions = [
        _partition(topic, log.partition, (told or {}).get("partitions", {}), len(workers)) for log in topic.partitions
    ]
    loading = told is None or any(partition["indexed_offset"] < 0 for partition in partitions)
    absent = next((worker for worker in workers if worker.channel is None), workers[0] if told is None else None)
    reason = told["trouble"] if told else None
    if reason is None and loading and absent is not None:
        reason = f"{absent.name} {absent.state}"
    if told and told["paused"]:
        state = "paused"
    elif told and told["over_budget"]:
        state = "over_budget"
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
        **_totals(partitions),
        "partitions": partitions,
        "embedder": (told or {}).get("embedder"),
        "objects": (told or {}).get("objects"),
        "workers": [
            {
                "state": worker.state,
                "restarts": worker.restarts,
                "pid": worker.process_id,
                "address": worker.address,
                **worker.memory,
            }
            for worker in workers
        ],
    }


def trouble(status: Mapping[str, Any]) -> str | None:
    """Why searches may miss what the log holds and waiting alone may not help, as `STATE: REASON`; None when all is well."""
    if status["state"] in ("green", "catching_up", "disabled"):
        return None
    return f"{status['state']}: {status['reason']}" if status["reason"] else str(status["state"])


def _partition(topic: Topic, number: int, told: Mapping[int, Any], workers: int) -> dict[str, Any]:
    log = topic.partitions[number]
    index = told.get(number, {"indexed_offset": -1, "lag_ms": 0})
    position = max(index["indexed_offset"], log.log_start_offset)
    lag = max(0, log.last_stable_offset - position)
    return {
        "partition": number,
        "worker": worker_of(topic.topic_id, number, workers),
        "state": "loading" if index["indexed_offset"] < 0 else "catching_up" if lag else "green",
        "log_start_offset": log.log_start_offset,
        "high_watermark": log.high_watermark,
        "last_stable_offset": log.last_stable_offset,
        "lag": lag,
        **_progress(lag, log.last_stable_offset - log.log_start_offset, index.get("rate_per_s", 0.0)),
        **{name: value for name, value in index.items() if name not in ("log_start_offset", "rate_per_s")},
    }


def _progress(lag: int, records: int, rate_per_s: float) -> dict[str, float | None]:
    """Rate, progress from 0 to 1, and the seconds that are left at this rate (None: it does not move)."""
    eta_s = lag / rate_per_s if rate_per_s > 0 else None
    return {
        "rate_per_s": round(rate_per_s, 1),
        "progress": 1.0 if lag <= 0 else round(max(0.0, 1 - lag / records), 4) if records > 0 else 0.0,
        "eta_s": 0.0 if lag <= 0 else None if eta_s is None else round(eta_s, 1),
    }


def _totals(partitions: list[dict[str, Any]]) -> dict[str, Any]:
    """The topic as a whole."""
    lag = sum(row["lag"] for row in partitions)
    records = sum(row["last_stable_offset"] - row["log_start_offset"] for row in partitions)
    recalls = [row["sampled_recall_at_10"] for row in partitions if row.get("sampled_recall_at_10") is not None]
    return {
        "lag": lag,
        "lag_ms": max((row["lag_ms"] for row in partitions), default=0),
        **_progress(lag, records, sum(row["rate_per_s"] for row in partitions)),
        "indexed": sum(row.get("indexed", 0) for row in partitions),
        "skipped": sum(sum(row.get("skipped", {}).values()) for row in partitions),
        "failed": sum(row.get("failed", 0) for row in partitions),
        "saved_by_dedupe": sum(row.get("saved_by_dedupe", 0) for row in partitions),
        "segments": sum(len(row.get("segments", ())) for row in partitions),
        "memory_bytes": sum(row.get("memory_bytes", 0) for row in partitions),
        "disk_bytes": sum(row.get("disk_bytes", 0) for row in partitions),
        "sampled_recall_at_10": round(sum(recalls) / len(recalls), 4) if recalls else None,
    }
