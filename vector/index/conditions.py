"""A filter on the columns of a segment: which records pass, and of which only the log can tell. Pure.

Three-valued: a condition gives two masks, `yes` (passes) and `maybe` (passes, or unknown); `yes` is part of `maybe`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vector.arrays import Bool, Int64
from vector.filter.tree import AtLeast, Condition, HasValue, InOffsets, InPartitions, InTimes, Not, is_below
from vector.index.fields import Column, Fields


@dataclass(slots=True, frozen=True)
class RecordColumns:
    """What conditions are evaluated on: n records of a partition, in offset order, whose fields come in consecutive parts."""

    partition: int
    offsets: Int64
    timestamps_ms: Int64
    fields: Sequence[Fields]


def evaluate(condition: Condition, records: RecordColumns) -> tuple[Bool, Bool]:
    """(yes, maybe), bool[n] each."""
    match condition:
        case HasValue():
            parts = [_has_value(condition, fields) for fields in records.fields]
            if not parts:
                return _constant(records, value=False)
            return np.concatenate([yes for yes, _ in parts]), np.concatenate([maybe for _, maybe in parts])
        case InPartitions(partitions):
            return _constant(records, value=records.partition in partitions)
        case InOffsets(low, high, partition):
            if partition not in (-1, records.partition):
                return _constant(records, value=False)
            return _within(records.offsets, low, high)
        case InTimes(low, high):
            return _within(records.timestamps_ms, low, high)
        case Not(part):
            yes, maybe = evaluate(part, records)
            return ~maybe, ~yes
        case AtLeast(count, parts):
            return _at_least(count, parts, records)


def _at_least(count: int, parts: Sequence[Condition], records: RecordColumns) -> tuple[Bool, Bool]:
    certain = np.zeros(len(records.offsets), dtype=np.int16)
    possible = np.zeros(len(records.offsets), dtype=np.int16)
    for part in parts:
        yes, maybe = evaluate(part, records)
        certain += yes
        possible += maybe
    return certain >= count, possible >= count


def _constant(records: RecordColumns, *, value: bool) -> tuple[Bool, Bool]:
    mask = np.full(len(records.offsets), value, dtype=np.bool_)
    return mask, mask


def _within(column: Int64, low: int, high: int) -> tuple[Bool, Bool]:
    mask = column >= low if low >= 0 else np.ones(len(column), dtype=np.bool_)
    if high >= 0:
        mask &= column < high
    return mask, mask


def _has_value(condition: HasValue, fields: Fields) -> tuple[Bool, Bool]:
    yes = np.zeros(fields.count, dtype=np.bool_)
    maybe = np.zeros(fields.count, dtype=np.bool_)
    columns = [fields.columns[condition.column]] if condition.column in fields.columns else []
    if condition.below:
        columns += [column for name, column in fields.columns.items() if is_below(name, condition.column)]
    for column in columns:
        _mark(condition, column, yes, maybe)
    maybe[fields.unfit] = True
    return yes, maybe | yes


def _mark(condition: HasValue, column: Column, yes: Bool, maybe: Bool) -> None:
    if condition.below:  # anything will do
        yes[column.records] = True
        return
    wanted: Bool | None = None
    for interval in condition.intervals:
        first, end, unknown = column.codes_in(interval)
        for code in unknown:
            maybe[column.records[column.codes == code]] = True
        if first == end:
            continue
        if len(condition.intervals) == 1:
            passing = column.codes == first if end == first + 1 else (column.codes >= first) & (column.codes < end)
            yes[column.records[passing]] = True
            return
        if wanted is None:
            wanted = np.zeros(len(column.values), dtype=np.bool_)
        wanted[first:end] = True
    if wanted is not None:
        yes[column.records[wanted[column.codes]]] = True
