"""The part of a search that runs in a search thread, or, where it is brief, in the event loop: from resolved queries to rows, over all partitions
asked for."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vector.cursor import Cursor, decode_cursor, encode_cursor, search_digest
from vector.index.fusion import CANDIDATES_MIN, Fused, fuse
from vector.index.hits import RecordHit
from vector.index.text_search import terms_of, word_weights
from vector.query_points import Point
from vector.request import TEXT_COLLAPSE
from vector.shard import Asked, Message
from vector.shards import Shards

Row = tuple[Any, ...]
"""partition, offset, timestamp_ms, score, similarity, text_score, vector_rank, text_rank, duplicates, flags, vector bytes or None."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was there when the search began; `indexed` by partition, exclusive."""

    topic_id: bytes
    generation: int
    indexed: Mapping[int, int]


def read_cursors(message: Message, snapshot: Snapshot) -> list[Cursor]:
    """Where each query's last page ended. Raises KafkaError INVALID_REQUEST for a cursor of something else."""
    return [_cursor(query, message, snapshot) for query in message["queries"]]


def run_search(
    shards: Shards, points: Sequence[Point], message: Message, cursors: Sequence[Cursor]
) -> list[tuple[list[Row], bytes | None]]:
    """Per query: its rows, best first, and the cursor of the next page. Raises KafkaError."""
    search = _Search(shards, message, points, cursors)
    found = search.hits()
    pages = [[hit for hit, _ in hits] for hits in found]
    duplicates = search.duplicates([hit for hits in pages for hit in hits])
    places = [(hit.partition, hit.offset) for hits in pages for hit in hits]
    vectors = shards.vectors(places) if message["vectors"] and places else {}
    results = []
    for point, cursor, hits in zip(points, cursors, found, strict=True):
        rows = [
            (
                hit.partition,
                hit.offset,
                hit.timestamp_ms,
                hit.score,
                *_components(point, hit, one, len(cursor.returned) + number),
                duplicates(hit),
                hit.flags,
                vectors.get((hit.partition, hit.offset)),
            )
            for number, (hit, one) in enumerate(hits, start=1)
        ]
        results.append((rows, _next(cursor, [hit for hit, _ in hits], message["limit"])))
    return results


class _Search:
    """All queries of a request."""

    def __init__(self, shards: Shards, message: Message, points: Sequence[Point], cursors: Sequence[Cursor]) -> None:
        self._shards = shards
        self._message = message
        self._hybrid = message["mode"] == "hybrid"
        self._chunked = False
        words = [[] if point.text is None else terms_of(point.text) for point in points]
        weights = self._weights(words) if any(words) else [{} for _ in points]
        rows = zip(message["queries"], points, cursors, weights, strict=True)
        self._asked = [self._ask(*row) for row in rows]

    def _weights(self, words: Sequence[Sequence[str]]) -> list[Mapping[str, float]]:
        """Of each query's words."""
        counted = self._shards.words(list(dict.fromkeys(word for of_query in words for word in of_query)))
        self._chunked = counted.chunked
        weights = word_weights(counted.texts, counted.frequencies)
        return [{word: weights[word] for word in of_query if word in weights} for of_query in words]

    def _ask(self, query: Message, point: Point, cursor: Cursor, weights: Mapping[str, float]) -> Asked:
        names = self._shards.names(cursor.returned) if self._message["collapse"] and cursor.returned else ()
        vector = None if point.vector is None else np.asarray(point.vector, dtype="<f4").tobytes()
        return Asked(vector, weights, cursor.returned, _example_records(query), names)

    def hits(self) -> list[list[tuple[RecordHit, Fused | None]]]:
        """Of each query, the next ones behind those that were returned."""
        limit = self._message["limit"]
        if not self._hybrid:
            return [[(hit, None) for hit in hits] for hits in self._shards.best(self._asked, limit)]
        return [self._fused_page(asked, limit) for asked in self._asked]

    def _fused_page(self, asked: Asked, limit: int) -> list[tuple[RecordHit, Fused | None]]:
        if not self._message["collapse"]:
            return self._fused(asked, limit)
        count = 2 * limit
        while True:  # among fewer others a record has another rank: the whole is looked at again
            found = self._fused(asked, count)
            chosen: dict[Any, tuple[RecordHit, Fused | None]] = {}
            for hit, one in found:
                chosen.setdefault(hit.name or (hit.partition, hit.offset), (hit, one))
            if len(chosen) >= limit or len(found) < count:
                return list(chosen.values())[:limit]
            count *= 4

    def _fused(self, asked: Asked, count: int) -> list[tuple[RecordHit, Fused | None]]:
        """The min(count, matches) best records by both lists, in order, each with its place in them."""
        collapse = self._message["collapse"] == TEXT_COLLAPSE
        by_text = collapse or not self._chunked
        near, worded = self._shards.legs(asked, max(CANDIDATES_MIN, 2 * count), by_text=by_text)
        fusion, weight = self._message["fusion"], self._message["vector_weight"]
        fused = fuse(near, worded, fusion, weight, by_text=not self._chunked)
        least = self._message["min_similarity"]
        if least is not None:
            fused = [one for one in fused if one.similarity >= least]
        if not by_text or collapse:
            found = sorted(((one.hit._replace(score=one.score), one) for one in fused), key=lambda pair: pair[0].order)
            return list(found[:count])
        texts = [(one.hit.content, one.score) for one in fused]
        return [(hit, fused[number]) for number, hit in self._shards.same_text(asked, texts, count)]

    def duplicates(self, hits: Sequence[RecordHit]) -> Callable[[RecordHit], int]:
        """How many other matching records are like a hit: in its group, or, without collapse, of the same text."""
        grouped = self._message["collapse"] is not None
        names = dict.fromkeys(name for hit in hits if (name := hit.name if grouped else hit.content) is not None)
        counts = self._shards.duplicates(list(names)) if names else {}

        def of(hit: RecordHit) -> int:
            name = hit.name if grouped else hit.content
            return 0 if name is None else counts[name] - 1

        return of


def _components(
    point: Point, hit: RecordHit, fused: Fused | None, rank: int
) -> tuple[float | None, float | None, int | None, int | None]:
    """Similarity, text score, rank by vector and by text."""
    if fused is not None:
        return fused.similarity, fused.text_score, fused.vector_rank, fused.text_rank
    return (None, hit.score, None, rank) if point.vector is None else (hit.score, None, rank, None)


# Pages


def _cursor(query: Message, message: Message, snapshot: Snapshot) -> Cursor:
    """Where the query's last page ended; at its beginning without one."""
    ranges = [(wanted["partition"], wanted["from"], wanted["until"]) for wanted in message["partitions"]]
    names = ("from_timestamp", "until_timestamp", "collapse", "min_similarity", "mode", "fusion", "vector_weight")
    same = [message[name] for name in names]
    conditions = json.dumps(json.loads(message["filter"] or "null"), sort_keys=True)
    digest = search_digest([query, ranges, conditions, same])
    if message["cursor"] is None:
        return Cursor(snapshot.topic_id, snapshot.generation, digest, snapshot.indexed)
    return decode_cursor(message["cursor"], snapshot.topic_id, snapshot.generation, digest)


def _next(cursor: Cursor, hits: Sequence[RecordHit], limit: int) -> bytes | None:
    """None when there are no more."""
    if len(hits) < limit:
        return None
    places = [(hit.partition, hit.offset, hit.piece) for hit in hits]
    return encode_cursor(
        Cursor(cursor.topic_id, cursor.generation, cursor.search, cursor.up_to, [*cursor.returned, *places])
    )


def _example_records(query: Message) -> list[tuple[int, int]]:
    """Records given as examples are no hits: what is looked for is others like them."""
    examples = [*query.get("positive", ()), *query.get("negative", ())]
    return [tuple(example["record"]) for example in examples if example.get("record") is not None]
