"""What one worker does of a search: everything over the segments that it has. `vector.shards` makes one answer of several.

All that methods take and return is as msgpack carries it, so that another worker can ask for them by name. In a search thread.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from vector.arrays import Float32
from vector.cursor import Place
from vector.filter.parse import parse_filter
from vector.filter.tree import Condition
from vector.index.fusion import chunked, of_same_text, similarities_of
from vector.index.groups import FieldGroups, Grouping, TextGroups, collapsed, without
from vector.index.hits import RecordHit
from vector.index.partition_index import PartitionIndex
from vector.index.query import NO_LIMIT, IndexQuery, RecordFilter, query_vector
from vector.index.search import Found, Part, count_duplicates, nearest
from vector.index.selection import ReadRecords
from vector.index.settings import IndexSettings
from vector.index.text_search import best_texts, counted_words
from vector.request import TEXT_COLLAPSE, collapse_column

Message = Mapping[str, Any]
METHODS = ("words", "names", "best", "legs", "same_text", "duplicates", "vectors")
"""What others may ask for."""


class Asked(NamedTuple):
    """A query as a shard answers it: by `vector` (float32 little-endian), by the weights of its words, or by both. Its hits are none
    of `returned` or `examples` (partition, offset), and in none of the groups `names`."""

    vector: bytes | None
    weights: Mapping[str, float] | None = None
    returned: Sequence[Place] = ()
    examples: Sequence[tuple[int, int]] = ()
    names: Sequence[bytes] = ()


class Words(NamedTuple):
    """How many texts there are and in how many each word stands; `chunked`: a record may have several texts."""

    texts: int
    frequencies: Mapping[str, int]
    chunked: bool


class Shard:
    """The segments of some partitions, as one search sees them. `message` is the broker's (`broker.search.service`); `up_to` by
    partition, exclusive: others are not looked at. Raises KafkaError."""

    def __init__(
        self, indexes: Mapping[int, PartitionIndex], message: Message, up_to: Mapping[int, int], read: ReadRecords
    ) -> None:
        condition = None if message["filter"] is None else parse_filter(message["filter"])
        self._indexes = indexes
        self._settings: IndexSettings = next(iter(indexes.values())).settings
        self._message = message
        self._collapse = message["collapse"] == TEXT_COLLAPSE
        self._grouping = _grouping(message["collapse"], read)
        self._parts: list[Part] = []
        for wanted in message["partitions"]:
            partition = wanted["partition"]
            if partition in indexes and partition in up_to:
                bounds = _record_filter(wanted, message, condition, up_to[partition])
                self._parts += indexes[partition].parts(bounds, read)

    def words(self, terms: Sequence[str]) -> Words:
        """Of the texts that the weights of words are made from."""
        return Words(*counted_words(self._parts, terms), chunked(self._parts))

    def names(self, places: Sequence[Place]) -> list[bytes]:
        """The groups that records are in."""
        grouping = self._grouping
        located = [] if grouping is None else _located(self._parts, places)
        return [name for hit in located if grouping is not None and (name := grouping.name(hit)) is not None]

    def best(self, asked: Sequence[Asked], limit: int) -> list[list[RecordHit]]:
        """Of each query, by vector or by words: the `limit` best records, with collapse of the `limit` best groups."""
        found = []
        for one in (Asked(*row) for row in asked):
            parts = self._left(one)
            if self._grouping is None:
                hits = self._leg(one, parts, limit)
            else:
                hits = collapsed(parts, self._grouping, partial(self._leg, one), limit, comparable=True)
            found.append([self._row(hit) for hit in hits])
        return found

    def _leg(self, asked: Asked, parts: Sequence[Part], count: int) -> list[Found]:
        """The min(count, matches) best records of the parts, in order."""
        if asked.vector is None:
            return best_texts(parts, asked.weights or {}, count, collapse=self._collapse)
        vector = self._vector(asked.vector)
        return self._nearest(parts, vector, count, self._message["min_similarity"], collapse=self._collapse)

    def legs(self, asked: Asked, count: int, by_text: bool) -> tuple[list[RecordHit], list[RecordHit]]:
        """Of a query by both: the `count` nearest records, and the `count` best by words with their similarity. `by_text`: one each."""
        asked = Asked(*asked)
        assert asked.vector is not None
        vector, parts = self._vector(asked.vector), self._left(asked)
        near = self._nearest(parts, vector, count, None, collapse=by_text)
        worded = best_texts(parts, asked.weights or {}, count, collapse=by_text)
        similarities = similarities_of(worded, vector)
        with_similarity = [self._row(hit, one) for hit, one in zip(worded, similarities, strict=True)]
        return [self._row(hit) for hit in near], with_similarity

    def same_text(self, asked: Asked, texts: Sequence[tuple[bytes, float]], limit: int) -> list[tuple[int, RecordHit]]:
        """See `of_same_text`."""
        found = of_same_text(self._left(Asked(*asked)), texts, limit)
        return [(number, self._row(hit)) for number, hit in found]

    def duplicates(self, names: Sequence[bytes]) -> list[int]:
        """How many matching records each group has, or each text where there are no groups."""
        if self._grouping is None:
            counts: Mapping[bytes, int] = count_duplicates(self._parts, list(names))
        else:
            counts = self._grouping.count(self._parts, list(names))
        return [counts[name] for name in names]

    def vectors(self, places: Sequence[tuple[int, int]]) -> list[tuple[int, int, bytes]]:
        """Partition, offset and vector (float32 little-endian) of those records that are here."""
        offsets: dict[int, list[int]] = {}
        for partition, offset in places:
            if partition in self._indexes:
                offsets.setdefault(partition, []).append(offset)
        return [
            (partition, offset, np.asarray(vector, dtype="<f4").tobytes())
            for partition, wanted in offsets.items()
            for offset, vector in self._indexes[partition].vectors_at(wanted).items()
        ]

    def _vector(self, data: bytes) -> Float32:
        return query_vector(IndexQuery(np.frombuffer(data, dtype="<f4")), self._settings)

    def _nearest(
        self, parts: Sequence[Part], vector: Float32, count: int, min_similarity: float | None, *, collapse: bool
    ) -> list[Found]:
        exact, ef = self._message["exact"], self._message["ef"]
        query = IndexQuery(vector, count, min_similarity=min_similarity, exact=exact, ef=ef, collapse=collapse)
        return nearest(parts, query, vector)

    def _left(self, asked: Asked) -> Sequence[Part]:
        """What the query's hits may be of."""
        if not (asked.returned or asked.examples or asked.names):
            return self._parts
        gone = _located(self._parts, [*asked.returned, *((p, offset, 0) for p, offset in asked.examples)])
        return without(self._parts, self._grouping, asked.names, gone)

    def _row(self, hit: Found, similarity: float | None = None) -> RecordHit:
        columns = hit.part.view.columns
        first, end = hit.posting, hit.posting + 1
        if columns.chunked:
            first, end = (int(np.searchsorted(columns.offsets, hit.offset, side)) for side in ("left", "right"))
        return RecordHit(
            hit.score,
            hit.timestamp_ms,
            hit.partition,
            hit.offset,
            hit.content,
            hit.posting - first,
            end - first,
            int(columns.flags[hit.posting]),
            None if self._grouping is None else self._grouping.name(hit),
            similarity,
        )


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
