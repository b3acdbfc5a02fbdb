"""A filter as a typed tree, and what it says of one record. Pure.

Names of columns: `key`, `h:NAME` for a header, `p:` and the steps of a JSON path. Arrays are looked through: a path has the values
of every element on its way, and a condition on it holds when one of them passes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vector.filter.values import Interval

KEY = "key"
_HEADER, _PATH = "h:", "p:"


@dataclass(frozen=True, slots=True)
class HasValue:
    """A value of `column` lies in one of `intervals`. `below`: anything at or below a JSON path will do (exists)."""

    column: str
    intervals: tuple[Interval, ...]
    below: bool = False


@dataclass(frozen=True, slots=True)
class InPartitions:
    """The record lies in one of these."""

    partitions: frozenset[int]


@dataclass(frozen=True, slots=True)
class InOffsets:
    """Offset ranges, `from` inclusive, `until` exclusive, -1 open: one for all partitions, or one of a partition's own."""

    offset_from: int
    offset_until: int
    partition: int = -1
    """-1: in every partition. Records of other partitions are not in a partition's own range."""


@dataclass(frozen=True, slots=True)
class InTimes:
    """Timestamps in milliseconds, `from` inclusive, `until` exclusive, -1 open."""

    timestamp_from: int
    timestamp_until: int


@dataclass(frozen=True, slots=True)
class AtLeast:
    """`count` of `parts` hold; all of them: must, one: should."""

    count: int
    parts: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """`part` does not hold."""

    part: "Condition"


Condition = HasValue | InPartitions | InOffsets | InTimes | AtLeast | Not


@dataclass(frozen=True, slots=True)
class Subject:
    """A record as a filter sees it: every encoded value it has, by column."""

    partition: int
    offset: int
    timestamp_ms: int
    values: Mapping[str, Sequence[bytes]]


def passes(condition: Condition, record: Subject) -> bool:
    """Whether the record passes."""
    match condition:
        case HasValue(column, intervals, below):
            return any(
                value in interval
                for name, values in record.values.items()
                if name == column or (below and is_below(name, column))
                for value in values
                for interval in intervals
            )
        case InPartitions(partitions):
            return record.partition in partitions
        case InOffsets(low, high, partition):
            inside = partition in (-1, record.partition)
            return inside and record.offset >= low and (high < 0 or record.offset < high)
        case InTimes(low, high):
            return (low < 0 or record.timestamp_ms >= low) and (high < 0 or record.timestamp_ms < high)
        case AtLeast(count, parts):
            return sum(passes(part, record) for part in parts) >= count
        case Not(part):
            return not passes(part, record)


def named_partitions(condition: Condition | None) -> Iterator[int]:
    """Every partition that a filter names."""
    match condition:
        case InPartitions(partitions):
            yield from partitions
        case InOffsets(partition=partition) if partition >= 0:
            yield partition
        case AtLeast(parts=parts):
            for part in parts:
                yield from named_partitions(part)
        case Not(part):
            yield from named_partitions(part)


def header_column(name: str) -> str:
    """The column of a header."""
    return _HEADER + name


def path_column(steps: Sequence[str]) -> str:
    """The column of a JSON path; a name's own dots and backslashes are escaped, so that no two paths share a column."""
    return _PATH + "".join("." + step.replace("\\", "\\\\").replace(".", "\\.") for step in steps)


def is_path(column: str) -> bool:
    """Whether the column is a JSON path's."""
    return column.startswith(_PATH)


def is_below(column: str, ancestor: str) -> bool:
    """Whether the column's path leads on from `ancestor`'s."""
    return column.startswith(ancestor + ".")
