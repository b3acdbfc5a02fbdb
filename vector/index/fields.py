"""The values of records that filters ask for, in columns: part of a segment's sidecar. Immutable.

One column per key, header name or JSON path seen: the distinct encoded values in order, and (record, code) pairs in record order.
Long strings are cut, and records that have too much are `unfit`: what cannot be said of those is said to be unknown, and the log
decides. So a filter is never wrong, whatever does not fit here.
"""

import heapq
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, overload

import msgpack
import numpy as np

from vector.arrays import Int32, Int64, UInt32
from vector.filter.record_fields import RecordFields
from vector.filter.values import Interval

VALUE_BYTES_MAX = 256
"""Of an encoded string; the rest of a longer one is cut off."""
COLUMNS_MAX = 1000
"""Of a segment; the rarest beyond make their records unfit: names that are data, such as user ids, would be millions."""
_CUT = b"\xff"
PARTS_PER_MERGE = 16


class Values(Sequence[bytes]):
    """Encoded values, sorted and distinct: `blob` one after the other, `ends` uint32[n]."""

    def __init__(self, ends: UInt32, blob: bytes | memoryview) -> None:
        self.ends = ends
        self.blob = blob

    @classmethod
    def of(cls, values: Sequence[bytes]) -> "Values":
        return cls(np.cumsum([len(value) for value in values], dtype=np.uint32), b"".join(values))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if not 0 <= index < len(self.ends):
            raise IndexError(index)
        start = int(self.ends[index - 1]) if index else 0
        return bytes(self.blob[start : int(self.ends[index])])


@dataclass(slots=True, frozen=True)
class Column:
    """`records` int32[e] ascending (equal where a record has several values), `codes` int32[e]: indices into `values`."""

    values: Values
    records: Int32
    codes: Int32

    def codes_in(self, interval: Interval) -> tuple[int, int, list[int]]:
        """Codes from first to end lie in the interval; of those in the list, which are cut, some of the whole values may."""
        unknown: list[int] = []
        first, first_cut = self._place(interval.low)
        if first_cut:
            unknown.append(first)
            first += 1
        if interval.high is None:
            return first, len(self.values), unknown
        end, end_cut = self._place(interval.high)
        if end_cut and end not in unknown:
            unknown.append(end)
        return first, max(first, end), unknown

    def _place(self, bound: bytes) -> tuple[int, bool]:
        """The first code at or above the bound, and whether it stands for values on both sides of it."""
        if len(bound) <= VALUE_BYTES_MAX:
            return bisect_left(self.values, bound), False
        place = bisect_left(self.values, bound[:VALUE_BYTES_MAX] + _CUT)
        return place, place < len(self.values) and self.values[place] == bound[:VALUE_BYTES_MAX] + _CUT


@dataclass(slots=True, frozen=True)
class Fields:
    """Columns by name, for `count` records; `unfit` int32[u] ascending: records that have more than is here."""

    count: int
    columns: Mapping[str, Column]
    unfit: Int32

    @classmethod
    def unknown(cls, count: int) -> "Fields":
        """Of records of which nothing is known: the log decides about every condition on them."""
        return cls(count, {}, np.arange(count, dtype=np.int32))

    @property
    def nbytes(self) -> int:
        arrays = sum(c.records.nbytes + c.codes.nbytes + c.values.ends.nbytes for c in self.columns.values())
        return arrays + sum(len(c.values.blob) for c in self.columns.values()) + self.unfit.nbytes


def cut(value: bytes) -> bytes:
    """A value as columns keep it. A cut one sorts behind the value that is all of its beginning, before all else that is greater."""
    return value if len(value) <= VALUE_BYTES_MAX else value[:VALUE_BYTES_MAX] + _CUT


def fields_of(records: Sequence[RecordFields]) -> Fields:
    """The columns of records, in order."""
    entries: dict[str, list[tuple[int, bytes]]] = {}
    for number, record in enumerate(records):
        for name, values in record.values.items():
            entries.setdefault(name, []).extend((number, cut(value)) for value in dict.fromkeys(values))
    columns = {}
    for name, pairs in entries.items():
        values = sorted({value for _, value in pairs})
        codes = {value: code for code, value in enumerate(values)}
        columns[name] = Column(
            Values.of(values),
            np.array([number for number, _ in pairs], dtype=np.int32),
            np.array([codes[value] for _, value in pairs], dtype=np.int32),
        )
    unfit = {number for number, record in enumerate(records) if not record.fits}
    return _bounded(len(records), columns, unfit)


def merge(parts: Sequence[tuple[Fields, Int64 | None]]) -> Fields:
    """Fields one after the other, each with the records to keep (ascending; None: all)."""
    if len(parts) == 1 and parts[0][1] is None:
        return parts[0][0]
    base, unfit = 0, set[int]()
    pieces: dict[str, list[_Piece]] = {}
    for fields, kept in parts:
        place = _places(fields.count, kept)
        for name, column in fields.columns.items():
            piece = _piece(column, place, base)
            if piece is not None:
                pieces.setdefault(name, []).append(piece)
        moved = place[fields.unfit]
        unfit.update((moved[moved >= 0] + base).tolist())
        base += fields.count if kept is None else len(kept)
    return _bounded(base, {name: _joined(column) for name, column in pieces.items()}, unfit)


def appended(parts: tuple[Fields, ...], new: Fields) -> tuple[Fields, ...]:
    """`parts` and one more; sixteen of about the same size become one, so that many small appends stay few parts."""
    parts = (*parts, new)
    while len(parts) >= PARTS_PER_MERGE:
        tail = parts[-PARTS_PER_MERGE:]
        if tail[0].count > PARTS_PER_MERGE * max(1, tail[-1].count):
            break
        parts = (*parts[:-PARTS_PER_MERGE], merge([(part, None) for part in tail]))
    return parts


def _places(count: int, kept: Int64 | None) -> Int64:
    """New record of each old one, -1: gone."""
    if kept is None:
        return np.arange(count, dtype=np.int64)
    place = np.full(count, -1, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    return place


@dataclass(slots=True, frozen=True)
class _Piece:
    """What a merge takes of one column: the values still in use, and the entries with codes into them."""

    values: list[bytes]
    records: Int64
    codes: Int64


def _piece(column: Column, place: Int64, base: int) -> _Piece | None:
    records = place[column.records]
    alive = records >= 0
    if not alive.any():
        return None
    used, codes = np.unique(column.codes[alive], return_inverse=True)
    return _Piece([column.values[int(code)] for code in used], records[alive] + base, codes.astype(np.int64))


def _joined(pieces: list[_Piece]) -> Column:
    # heapq.merge and not sort, which would hold the interpreter for as long as it takes while searches wait.
    values = [value for value, _ in groupby(heapq.merge(*(piece.values for piece in pieces)))]
    code_of = {value: code for code, value in enumerate(values)}
    codes = [np.array([code_of[value] for value in piece.values], dtype=np.int32)[piece.codes] for piece in pieces]
    records = np.concatenate([piece.records for piece in pieces]).astype(np.int32)
    return Column(Values.of(values), records, np.concatenate(codes))


def _bounded(count: int, columns: dict[str, Column], unfit: set[int]) -> Fields:
    if len(columns) > COLUMNS_MAX:
        often = Counter({name: len(column.records) for name, column in columns.items()})
        kept = {name for name, _ in often.most_common(COLUMNS_MAX)}
        for name in columns.keys() - kept:
            unfit.update(columns[name].records.tolist())
        columns = {name: columns[name] for name in columns if name in kept}
    return Fields(count, columns, np.array(sorted(unfit), dtype=np.int32))


# Bytes, for the journal and the segment's file

_ALIGNMENT = 8


def encode(fields: Fields) -> bytes:
    """Length of the head uint32 LE, head (msgpack: counts, names and lengths), then the arrays, each padded to 8 bytes."""
    head = msgpack.packb(
        {
            "count": fields.count,
            "unfit": len(fields.unfit),
            "columns": [
                [name.encode("utf-8", "surrogatepass"), len(c.values), len(c.values.blob), len(c.records)]
                for name, c in fields.columns.items()
            ],
        }
    )
    pieces = [len(head).to_bytes(4, "little") + head, fields.unfit.astype("<i4").tobytes()]
    for column in fields.columns.values():
        pieces += [column.values.ends.astype("<u4").tobytes(), column.records.astype("<i4").tobytes()]
        pieces += [column.codes.astype("<i4").tobytes(), bytes(column.values.blob)]
    return b"".join(piece + bytes(-len(piece) % _ALIGNMENT) for piece in pieces)


def decode(data: bytes | memoryview) -> Fields:
    """What `encode` made, without copying. The checksum has been verified by whoever read the bytes."""
    view = memoryview(data)
    length = int.from_bytes(view[:4], "little")
    head: dict[str, Any] = msgpack.unpackb(view[4 : 4 + length])
    places = _sections(4 + length, head)
    unfit = _array(view, next(places), "<i4")
    columns = {}
    for name, *_ in head["columns"]:
        ends, records, codes = (_array(view, next(places), dtype) for dtype in ("<u4", "<i4", "<i4"))
        start, end = next(places)
        columns[name.decode("utf-8", "surrogatepass")] = Column(Values(ends, view[start:end]), records, codes)
    return Fields(head["count"], columns, unfit)


def _sections(position: int, head: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """From and to of every array behind the head."""
    sizes: list[int] = [4 * head["unfit"]]
    for _, values, blob, entries in head["columns"]:
        sizes += [4 * values, 4 * entries, 4 * entries, blob]
    for size in sizes:
        position += -position % _ALIGNMENT
        yield position, position + size
        position += size


def _array(view: memoryview, section: tuple[int, int], dtype: str) -> Any:
    start, end = section
    return np.frombuffer(view[start:end], dtype=dtype)


def check(fields: Fields) -> Iterable[str]:
    """What is wrong with fields that were read back; nothing when all is well."""
    for name, column in fields.columns.items():
        if len(column.records) and not 0 <= int(column.records.min()) <= int(column.records.max()) < fields.count:
            yield f"column {name!r} has values of a record that is not there"
        if (np.diff(column.records) < 0).any():
            yield f"column {name!r} is not in record order"
        if any(one >= other for one, other in pairwise(column.values)):
            yield f"column {name!r} has its values out of order"
