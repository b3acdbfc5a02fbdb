"""Collapse: one hit for each group of records with the same text, key, header or JSON path, and how many more are like it."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from vector.arrays import Bool, Int64
from vector.filter.record_fields import all_values
from vector.index.columns import first_postings, record_of_posting
from vector.index.fields import VALUE_BYTES_MAX, Fields, merge
from vector.index.search import Found, Part, count_duplicates
from vector.index.selection import ReadRecords

Leg = Callable[[Sequence[Part], int], list[Found]]
"""One way of searching: the min(count, matches) best records of the parts, in order."""


class Grouping(Protocol):
    """Which records belong together. Names are bytes; a record without a value is a group of its own and has none."""

    def name(self, hit: Found) -> bytes | None: ...

    def rows(self, part: Part, names: Iterable[bytes]) -> Bool:
        """Which rows of a part, bool[p], are in one of these groups."""

    def count(self, parts: Sequence[Part], names: Sequence[bytes]) -> Counter[bytes]:
        """How many matching records each group has."""


def collapsed(parts: Sequence[Part], grouping: Grouping, leg: Leg, limit: int, *, comparable: bool) -> list[Found]:
    """The best record of each of the `limit` best groups. `comparable`: a record has the same score among fewer others, so that groups
    that have been found can be left out of the next, wider look; otherwise the whole is looked at again."""
    chosen: list[Found] = []
    seen: set[bytes] = set()
    count = 2 * limit
    while True:
        found = leg(parts, count)
        for hit in found:
            name = grouping.name(hit)
            if name is None or name not in seen:
                chosen.append(hit)
                if name is not None:
                    seen.add(name)
        if len(chosen) >= limit or len(found) < count:
            return chosen[:limit]
        if comparable:
            singles = [hit for hit in found if grouping.name(hit) is None]
            parts = without(parts, grouping, seen, singles)
            count *= 2
        else:
            chosen, seen = [], set()
            count *= 4


def without(
    parts: Sequence[Part], grouping: Grouping | None, names: Iterable[bytes], hits: Iterable[Found]
) -> list[Part]:
    """The parts without these groups and without these records."""
    names = list(names)
    offsets: dict[int, list[int]] = {}
    for hit in hits:
        offsets.setdefault(hit.partition, []).append(hit.offset)
    left = []
    for part in parts:
        gone = np.isin(part.view.columns.offsets, offsets.get(part.partition, []))
        if grouping is not None and names:
            gone |= grouping.rows(part, names)
        rest = part.without(gone) if gone.any() else part
        if rest.matching.nodes:
            left.append(rest)
    return left


class TextGroups:
    """Records with the same text."""

    def name(self, hit: Found) -> bytes:
        return hit.content

    def rows(self, part: Part, names: Iterable[bytes]) -> Bool:
        columns = part.view.columns
        nodes = part.view.nodes_of(list(names))
        of_nodes = np.zeros(columns.node_count, dtype=np.bool_)
        of_nodes[nodes[nodes >= 0]] = True
        rows: Bool = of_nodes[columns.nodes]
        return rows

    def count(self, parts: Sequence[Part], names: Sequence[bytes]) -> Counter[bytes]:
        return Counter(count_duplicates(parts, list(names)))


class FieldGroups:
    """Records with the same first value in a column of `vector.filter.tree`: key, a header, a JSON path."""

    def __init__(self, column: str, read: ReadRecords) -> None:
        self._column = column
        self._read = read
        self._tables: dict[int, _Table] = {}

    def name(self, hit: Found) -> bytes | None:
        table = self._table(hit.part)
        label = int(table.labels[hit.posting])
        return None if label < 0 else table.name_of(label)

    def rows(self, part: Part, names: Iterable[bytes]) -> Bool:
        table = self._table(part)
        return np.isin(table.labels, [label for name in names if (label := table.label_of(name)) is not None])

    def count(self, parts: Sequence[Part], names: Sequence[bytes]) -> Counter[bytes]:
        counts: Counter[bytes] = Counter()
        for part in parts:
            table, columns, passing = self._table(part), part.view.columns, part.matching.postings
            rows = table.labels >= 0 if passing is None else (table.labels >= 0) & passing
            places = np.flatnonzero(rows)
            if columns.chunked:
                places = places[np.unique(columns.offsets[places], return_index=True)[1]]
            found = np.bincount(table.labels[places])
            for name in names:
                label = table.label_of(name)
                if label is not None and label < len(found):
                    counts[name] += int(found[label])
        return counts

    def _table(self, part: Part) -> "_Table":
        # A part that was narrowed has the same view. Whoever asks first has the most rows, so no record is missing.
        key = id(part.view)
        if key not in self._tables:
            self._tables[key] = _Table(part, self._column, self._read)
        return self._tables[key]


class _Table:
    """Labels of a part's rows, int64[p], -1: no value. A label is a code of the column, or behind them one of `_more`: values that were
    read from the log."""

    def __init__(self, part: Part, column: str, read: ReadRecords) -> None:
        columns = part.view.columns
        firsts, numbers = first_postings(columns), record_of_posting(columns)
        offsets = columns.offsets if firsts is None else columns.offsets[firsts]
        fields = merge([(_only(fields, column), None) for fields in part.view.fields])
        labels = np.full(len(offsets), -1, dtype=np.int64)
        unknown = np.zeros(len(offsets), dtype=np.bool_)
        self._values: Sequence[bytes] = ()
        self._more: dict[bytes, int] = {}
        if column in fields.columns:
            found = fields.columns[column]
            self._values = found.values
            records, first = np.unique(found.records, return_index=True)
            labels[records] = found.codes[first]
            lengths = np.diff(found.values.ends, prepend=0)
            unknown[records] = lengths[found.codes[first]] > VALUE_BYTES_MAX
        unknown[fields.unfit] = True
        passing = part.matching.postings
        if passing is not None:
            unknown &= passing if firsts is None else np.logical_or.reduceat(passing, firsts)
        if unknown.any():
            self._decide(part.partition, column, read, labels, np.flatnonzero(unknown), offsets)
        self.labels = labels if numbers is None else labels[numbers]

    def _decide(
        self, partition: int, column: str, read: ReadRecords, labels: Int64, places: Int64, offsets: Int64
    ) -> None:
        records = read(partition, offsets[places].tolist())
        for place in places.tolist():
            record = records.get(int(offsets[place]))
            values = [] if record is None else all_values(record.key, record.value, record.headers).get(column, [])
            labels[place] = self._label_for(values[0]) if values else -1

    def _label_for(self, value: bytes) -> int:
        known = self.label_of(value)
        return self._more.setdefault(value, len(self._values) + len(self._more)) if known is None else known

    def label_of(self, name: bytes) -> int | None:
        place = bisect_left(self._values, name)
        return place if place < len(self._values) and self._values[place] == name else self._more.get(name)

    def name_of(self, label: int) -> bytes:
        return self._values[label] if label < len(self._values) else list(self._more)[label - len(self._values)]


def _only(fields: Fields, column: str) -> Fields:
    return Fields(fields.count, {name: one for name, one in fields.columns.items() if name == column}, fields.unfit)
