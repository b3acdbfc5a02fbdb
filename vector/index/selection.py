"""Which records of a segment may be hits: ranges first, then the filter's columns, and the log for what those cannot tell."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from protocol.record_batch import Record
from vector.arrays import Bool, Int64
from vector.filter.record_fields import all_values
from vector.filter.tree import Condition, Subject, passes
from vector.index.columns import Columns, distinct, first_postings, postings_at, record_of_posting
from vector.index.conditions import RecordColumns, evaluate
from vector.index.query import RecordFilter
from vector.index.segment import SegmentView

ReadRecords = Callable[[int, Sequence[int]], Mapping[int, Record]]
"""(partition, offsets ascending) -> those of the records that the log still has, by offset. Raises KafkaError."""


@dataclass(slots=True, frozen=True)
class Matches:
    """What a filter leaves of a segment: `mask` bool[node_count] and `postings` bool[p] (None = all), nodes and distinct records."""

    mask: Bool | None
    nodes: int
    records: int
    postings: Bool | None = None


def read_nothing(partition: int, offsets: Sequence[int]) -> Mapping[int, Record]:
    """Where there is no log, or all that filters ask for is in the columns."""
    del partition, offsets
    return {}


def select(view: SegmentView, wanted: RecordFilter, read: ReadRecords) -> Matches:
    """Evaluates `wanted` on the segment; `read` is asked for records that have more than the columns hold."""
    columns = view.columns
    first, end = 0, len(columns)
    if end and not wanted.offset_from <= columns.offsets[0] <= columns.offsets[-1] < wanted.offset_until:
        first, end = np.searchsorted(columns.offsets, [wanted.offset_from, wanted.offset_until]).tolist()
    if first >= end or wanted.timestamp_from > columns.timestamp_max or wanted.timestamp_until <= columns.timestamp_min:
        return _nothing(columns)
    buried = between(wanted.buried, int(columns.offsets[first]), int(columns.offsets[end - 1]) + 1)
    all_times = wanted.timestamp_from <= columns.timestamp_min and wanted.timestamp_until > columns.timestamp_max
    if all_times and end - first == len(columns) and wanted.condition is None and not len(buried):
        return Matches(None, columns.node_count, distinct(columns.offsets) if columns.chunked else len(columns))
    postings = np.zeros(len(columns), dtype=np.bool_)
    postings[first:end] = True
    if not all_times:
        times = columns.timestamps_ms[first:end]
        postings[first:end] = (times >= wanted.timestamp_from) & (times < wanted.timestamp_until)
    if len(buried):
        postings &= ~postings_at(columns, buried)
    if wanted.condition is not None:
        _apply(wanted.condition, view, wanted.partition, postings, read)
    return of_postings(columns, postings)


def between(offsets: Int64 | None, start: int, end: int) -> Int64:
    """Those of ascending offsets that lie in [start, end)."""
    if offsets is None:
        return np.empty(0, dtype=np.int64)
    first, last = np.searchsorted(offsets, [start, end])
    return offsets[first:last]


def of_postings(columns: Columns, postings: Bool) -> Matches:
    """The matches that a mask of postings, bool[p], makes."""
    mask = np.zeros(columns.node_count, dtype=np.bool_)
    mask[columns.nodes[postings]] = True
    records = distinct(columns.offsets[postings]) if columns.chunked else int(np.count_nonzero(postings))
    return Matches(mask, int(np.count_nonzero(mask)), records, postings)


def _nothing(columns: Columns) -> Matches:
    return Matches(None, 0, 0, np.zeros(len(columns), dtype=np.bool_))


def _apply(condition: Condition, view: SegmentView, partition: int, postings: Bool, read: ReadRecords) -> None:
    """Takes those out of `postings` that do not pass."""
    columns = view.columns
    firsts, numbers = first_postings(columns), record_of_posting(columns)
    offsets = columns.offsets if firsts is None else columns.offsets[firsts]
    times = columns.timestamps_ms if firsts is None else columns.timestamps_ms[firsts]
    yes, maybe = evaluate(condition, RecordColumns(partition, offsets, times, view.fields))
    unknown = maybe & ~yes & (postings if firsts is None else postings[firsts])
    if unknown.any():
        yes = yes.copy()
        places = np.flatnonzero(unknown)
        records = read(partition, offsets[places].tolist())
        for place in places.tolist():
            record = records.get(int(offsets[place]))
            if record is not None:
                yes[place] = passes(condition, _subject(partition, record, int(times[place])))
    postings &= yes if numbers is None else yes[numbers]


def _subject(partition: int, record: Record, timestamp_ms: int) -> Subject:
    return Subject(partition, record.offset, timestamp_ms, all_values(record.key, record.value, record.headers))
