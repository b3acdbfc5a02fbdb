"""The part of a search that runs in a search thread: from resolved queries to rows, over all partitions asked for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vector.cursor import Cursor, Place, decode_cursor, encode_cursor, search_digest
from vector.embed.port import Float32
from vector.filter.parse import parse_filter
from vector.filter.tree import Condition
from vector.index.groups import FieldGroups, Grouping, TextGroups, collapsed, without
from vector.index.partition_index import PartitionIndex
from vector.index.query import NO_LIMIT, IndexQuery, RecordFilter, query_vector
from vector.index.search import Found, Part, count_duplicates, nearest
from vector.index.selection import ReadRecords
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
    vectors: Sequence[Float32],
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
    for query, vector, cursor in zip(message["queries"], vectors, cursors, strict=True):
        unit = query_vector(IndexQuery(vector), settings)
        search = _Search(parts, message, grouping, unit)
        hits = search.page(cursor.returned, _example_records(query))
        rows = search.rows(hits, len(cursor.returned), indexes)
        results.append((rows, _next(cursor, hits, message["limit"])))
    return results


class _Search:
    """One query over the parts."""

    def __init__(self, parts: Sequence[Part], message: Message, grouping: Grouping | None, vector: Float32) -> None:
        self._parts = parts
        self._message = message
        self._grouping = grouping
        self._vector = vector

    def page(self, returned: Sequence[Place], examples: Sequence[tuple[int, int]]) -> list[Found]:
        """The next hits behind those that were returned, none of them one of the example records."""
        parts, limit = self._parts, self._message["limit"]
        if returned or examples:
            gone = _located(parts, returned)
            names = [] if self._grouping is None else [name for hit in gone if (name := self._grouping.name(hit))]
            gone += _located(parts, [(partition, offset, 0) for partition, offset in examples])
            parts = without(parts, self._grouping, names, gone)
        if self._grouping is None:
            return self._nearest(parts, limit)
        return collapsed(parts, self._grouping, self._nearest, limit)

    def _nearest(self, parts: Sequence[Part], count: int) -> list[Found]:
        message = self._message
        query = IndexQuery(
            vector=self._vector,
            limit=count,
            min_similarity=message["min_similarity"],
            exact=message["exact"],
            ef=message["ef"],
            collapse=message["collapse"] == TEXT_COLLAPSE,
        )
        return nearest(parts, query, self._vector)

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
                hit.score,
                None,
                before + number,
                None,
                duplicates[number - 1],
                int(hit.part.view.columns.flags[hit.posting]),
                vectors.get((hit.partition, hit.offset)),
            )
            for number, hit in enumerate(hits, start=1)
        ]

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
    same = [message[name] for name in ("from_timestamp", "until_timestamp", "collapse", "min_similarity")]
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
