"""The part of a search that runs in a search thread: from resolved queries to rows, over all partitions asked for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vector.cursor import Cursor, Place, decode_cursor, encode_cursor, search_digest
from vector.filter.parse import parse_filter
from vector.filter.tree import Condition
from vector.index.fusion import CANDIDATES_MIN, Fused, chunked, fuse, of_same_text
from vector.index.groups import FieldGroups, Grouping, TextGroups, collapsed, without
from vector.index.partition_index import PartitionIndex
from vector.index.query import NO_LIMIT, IndexQuery, RecordFilter, query_vector
from vector.index.search import Found, Part, count_duplicates, nearest
from vector.index.selection import ReadRecords
from vector.index.settings import IndexSettings
from vector.index.text_search import best_texts, terms_of
from vector.query_points import Point
from vector.request import TEXT_COLLAPSE, collapse_column

Message = Mapping[str, Any]
Row = tuple[Any, ...]
"""partition, offset, timestamp_ms, score, similarity, text_score, vector_rank, text_rank, duplicates, flags, vector bytes or None."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was there when the search began; `indexed` by partition, exclusive."""

    topic_id: bytes
    generation: int
    indexed: Mapping[int, int]


def run_search(
    indexes: Mapping[int, PartitionIndex],
    points: Sequence[Point],
    message: Message,
    snapshot: Snapshot,
    read: ReadRecords,
) -> list[tuple[list[Row], bytes | None]]:
    """Per query: its rows, best first, and the cursor of the next page. Raises KafkaError."""
    cursors = [_cursor(query, message, snapshot) for query in message["queries"]]
    condition = None if message["filter"] is None else parse_filter(message["filter"])
    parts: list[Part] = []
    for wanted in message["partitions"]:
        bounds = _record_filter(wanted, message, condition, cursors[0].up_to[wanted["partition"]])
        parts += indexes[wanted["partition"]].parts(bounds, read)
    grouping = _grouping(message["collapse"], read)
    settings = next(iter(indexes.values())).settings
    results = []
    for query, point, cursor in zip(message["queries"], points, cursors, strict=True):
        search = _Search(parts, message, grouping, point, settings)
        hits = search.page(cursor.returned, _example_records(query))
        rows = search.rows(hits, len(cursor.returned), indexes)
        results.append((rows, _next(cursor, hits, message["limit"])))
    return results


class _Search:
    """One query over the parts."""

    def __init__(
        self,
        parts: Sequence[Part],
        message: Message,
        grouping: Grouping | None,
        point: Point,
        settings: IndexSettings,
    ) -> None:
        self._parts = parts
        self._message = message
        self._grouping = grouping
        self._collapse = message["collapse"] == TEXT_COLLAPSE
        self._vector = None if point.vector is None else query_vector(IndexQuery(point.vector), settings)
        self._terms = None if point.text is None else terms_of(point.text)
        self._fused: dict[tuple[int, int], Fused] = {}

    def page(self, returned: Sequence[Place], examples: Sequence[tuple[int, int]]) -> list[Found]:
        """The next hits behind those that were returned, none of them one of the example records."""
        parts, limit = self._parts, self._message["limit"]
        if returned or examples:
            gone = _located(parts, returned)
            names = [] if self._grouping is None else [name for hit in gone if (name := self._grouping.name(hit))]
            gone += _located(parts, [(partition, offset, 0) for partition, offset in examples])
            parts = without(parts, self._grouping, names, gone)
        if self._grouping is None:
            return self._best(parts, limit)
        hybrid = self._vector is not None and self._terms is not None
        return collapsed(parts, self._grouping, self._best, limit, comparable=not hybrid)

    def _best(self, parts: Sequence[Part], count: int) -> list[Found]:
        """The min(count, matches) best records of the parts, in order."""
        if self._vector is None:
            return best_texts(parts, self._terms or (), count, collapse=self._collapse)
        if self._terms is None:
            return self._nearest(parts, count, self._message["min_similarity"], collapse=self._collapse)
        return self._hybrid(parts, count)

    def _nearest(
        self, parts: Sequence[Part], count: int, min_similarity: float | None, *, collapse: bool
    ) -> list[Found]:
        assert self._vector is not None
        exact, ef = self._message["exact"], self._message["ef"]
        query = IndexQuery(self._vector, count, min_similarity=min_similarity, exact=exact, ef=ef, collapse=collapse)
        return nearest(parts, query, self._vector)

    def _hybrid(self, parts: Sequence[Part], count: int) -> list[Found]:
        assert self._vector is not None
        candidates = max(CANDIDATES_MIN, 2 * count)
        by_text = self._collapse or not chunked(parts)
        near = self._nearest(parts, candidates, None, collapse=by_text)
        worded = best_texts(parts, self._terms or (), candidates, collapse=by_text)
        fused = fuse(near, worded, self._vector, self._message["fusion"], self._message["vector_weight"])
        least = self._message["min_similarity"]
        if least is not None:
            fused = [one for one in fused if one.similarity >= least]
        if self._collapse or not by_text:
            found = [(replace(one.hit, score=one.score), one) for one in fused]
            found = sorted(found, key=lambda pair: pair[0].order)[:count]
        else:
            found = of_same_text(parts, fused, count)
        self._fused |= {(hit.partition, hit.offset): one for hit, one in found}
        return [hit for hit, _ in found]

    def rows(self, hits: Sequence[Found], before: int, indexes: Mapping[int, PartitionIndex]) -> list[Row]:
        """`before`: hits of earlier pages."""
        duplicates = self._duplicates(hits)
        vectors = _vectors(indexes, hits) if self._message["vectors"] else {}
        return [
            (
                hit.partition,
                hit.offset,
                hit.timestamp_ms,
                hit.score,
                *self._components(hit, before + number),
                duplicates[number - 1],
                int(hit.part.view.columns.flags[hit.posting]),
                vectors.get((hit.partition, hit.offset)),
            )
            for number, hit in enumerate(hits, start=1)
        ]

    def _components(self, hit: Found, rank: int) -> tuple[float | None, float | None, int | None, int | None]:
        """Similarity, text score, rank by vector and by text."""
        if self._vector is None:
            return None, hit.score, None, rank
        if self._terms is None:
            return hit.score, None, rank, None
        fused = self._fused[hit.partition, hit.offset]
        return fused.similarity, fused.text_score, fused.vector_rank, fused.text_rank

    def _duplicates(self, hits: Sequence[Found]) -> list[int]:
        """How many other matching records are like each hit: in its group, or, without collapse, of the same text."""
        if self._grouping is None:
            counts = count_duplicates(self._parts, [hit.content for hit in hits])
            return [counts[hit.content] - 1 for hit in hits]
        names = [self._grouping.name(hit) for hit in hits]
        numbers = self._grouping.count(self._parts, [name for name in dict.fromkeys(names) if name is not None])
        return [0 if name is None else numbers[name] - 1 for name in names]


def _grouping(collapse: str | None, read: ReadRecords) -> Grouping | None:
    if collapse is None:
        return None
    return TextGroups() if collapse == TEXT_COLLAPSE else FieldGroups(collapse_column(collapse), read)


def _record_filter(wanted: Message, message: Message, condition: Condition | None, up_to: int) -> RecordFilter:
    from_timestamp, until_timestamp = message["from_timestamp"], message["until_timestamp"]
    return RecordFilter(
        partition=wanted["partition"],
        offset_from=max(wanted["from"], wanted["log_start"]),
        offset_until=min(up_to, wanted["until"]) if wanted["until"] >= 0 else up_to,
        timestamp_from=from_timestamp if from_timestamp >= 0 else -NO_LIMIT,
        timestamp_until=until_timestamp if until_timestamp >= 0 else NO_LIMIT,
        condition=condition,
    )


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


def _next(cursor: Cursor, hits: Sequence[Found], limit: int) -> bytes | None:
    """None when there are no more."""
    if len(hits) < limit:
        return None
    places = [_place(hit) for hit in hits]
    return encode_cursor(
        Cursor(cursor.topic_id, cursor.generation, cursor.search, cursor.up_to, [*cursor.returned, *places])
    )


def _place(hit: Found) -> Place:
    columns = hit.part.view.columns
    row = hit.posting - int(np.searchsorted(columns.offsets, hit.offset)) if columns.chunked else 0
    return hit.partition, hit.offset, row


def _located(parts: Sequence[Part], places: Sequence[Place]) -> list[Found]:
    """The rows of places, where the parts still have them."""
    found = []
    for part in parts:
        view, offsets = part.view, part.view.columns.offsets
        here = [(offset, row) for partition, offset, row in places if partition == part.partition]
        firsts = np.searchsorted(offsets, [offset for offset, _ in here])
        for (offset, row), first in zip(here, firsts.tolist(), strict=True):
            posting = first + row
            if posting < len(offsets) and offsets[posting] == offset:
                content = view.hashes_of(view.columns.nodes[posting : posting + 1].astype(np.int64))[0]
                found.append(Found(0.0, 0, part.partition, offset, content, part, posting))
    return found


def _example_records(query: Message) -> list[tuple[int, int]]:
    """Records given as examples are no hits: what is looked for is others like them."""
    examples = [*query.get("positive", ()), *query.get("negative", ())]
    return [tuple(example["record"]) for example in examples if example.get("record") is not None]


def _vectors(indexes: Mapping[int, PartitionIndex], hits: Sequence[Found]) -> dict[tuple[int, int], bytes]:
    vectors: dict[tuple[int, int], bytes] = {}
    for partition in {hit.partition for hit in hits}:
        offsets = [hit.offset for hit in hits if hit.partition == partition]
        for offset, vector in indexes[partition].vectors_at(offsets).items():
            vectors[partition, offset] = np.asarray(vector, dtype="<f4").tobytes()
    return vectors
