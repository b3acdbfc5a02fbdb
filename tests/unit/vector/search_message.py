"""The broker's `search` call to a worker (`broker.search.service`), with what a plain request puts into it."""

from collections.abc import Iterable
from typing import Any


def search_message(text: str, limit: int, partitions: Iterable[int]) -> dict[str, Any]:
    """One text over whole partitions, no wait, no conditions."""
    return {
        "queries": [{"text": text}],
        "limit": limit,
        "min_similarity": None,
        "partitions": [{"partition": number, "from": -1, "until": -1, "log_start": 0} for number in partitions],
        "from_timestamp": -1,
        "until_timestamp": -1,
        "filter": None,
        "collapse": None,
        "cursor": None,
        "mode": "vector",
        "fusion": "rrf",
        "vector_weight": 0.5,
        "exact": False,
        "ef": -1,
        "min_offsets": {},
        "wait_ms": 0,
        "partial_ok": False,
        "vectors": False,
        "gone": [],
        "others": {},
        "holders": {},
        "answer_in_part": False,
    }
