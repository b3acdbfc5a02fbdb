"""What several workers say of one topic, as if one had said it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

SUMMED = (
    "texts_embedded",
    "queries_embedded",
    "calls",
    "tokens",
    "cache_hits",
    "cached",
    "retries",
    "poisoned",
    "seconds",
    "waiting",
)
_CIRCUITS = ("closed", "open", "paused")


def merged_embedders(told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One for each model: counters added, the worst circuit."""
    merged: dict[str, dict[str, Any]] = {}
    for one in told:
        known = merged.get(one["model"])
        if known is None:
            merged[one["model"]] = dict(one)
            continue
        worst = max(known, one, key=lambda embedder: _CIRCUITS.index(embedder["circuit"]))
        sums = {name: round(known[name] + one[name], 3) for name in SUMMED}
        sums["tokens_estimated"] = known["tokens_estimated"] or one["tokens_estimated"]
        merged[one["model"]] = {**worst, **sums, "failures": [*known["failures"], *one["failures"]]}
    return list(merged.values())


def merged_status(told: Mapping[int, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Statuses of a topic by worker; the lead, when it is there, has the first word about generations."""
    if not told:
        return None
    statuses = [told[number] for number in sorted(told)]
    first = statuses[0]
    if len(statuses) == 1:
        return dict(first)
    embedders = merged_embedders([one["embedder"] for one in statuses if one["embedder"] is not None])
    trouble = next((one for one in statuses if one["trouble"]), first)
    return {
        **first,
        "partitions": {partition: row for one in statuses for partition, row in one["partitions"].items()},
        "trouble": trouble["trouble"],
        "over_budget": any(one["over_budget"] for one in statuses),
        "paused": any(one["paused"] for one in statuses),
        "embedder": next((one for one in embedders if _of_generation(one, first)), None),
        "objects": _merged_objects([one["objects"] for one in statuses if one["objects"] is not None]),
        "generations": {
            "building": _merged_build([one["generations"]["building"] for one in statuses]),
            "previous": first["generations"]["previous"],
        },
    }


def _of_generation(embedder: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    return status["identity"] is None or embedder["model"] == status["identity"]["model"]


def _merged_objects(told: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not told:
        return None
    troubles = [one["trouble"] for one in told if one["trouble"]]
    total = sum(one["bytes_put"] for one in told)
    return {**told[0], "bytes_put": total, "trouble": troubles[0] if troubles else None}


def _merged_build(told: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Of those that build the same generation as the first that builds one."""
    building = [one for one in told if one is not None]
    if not building:
        return None
    same = [one for one in building if one["generation"] == building[0]["generation"]]
    records, done, failed = (sum(one[name] for one in same) for name in ("records", "done", "failed"))
    rate = sum(one["rate_per_s"] for one in same)
    return {
        **same[0],
        "records": records,
        "done": done,
        "failed": failed,
        "progress": done / records if records else 1.0,
        "rate_per_s": round(rate, 1),
        "eta_s": round((records - done) / rate, 1) if rate > 0 else None,
        "trouble": next((one["trouble"] for one in same if one["trouble"]), None),
    }
