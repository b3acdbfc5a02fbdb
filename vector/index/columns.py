"""The sidecar of a segment: which record has which vector, in columns. Pure.

A *node* is one distinct content with one vector; a *posting* is one record of it. Postings are kept in offset order, so an
offset range is a slice; the way back from a node to its postings is `starts` and `by_node`.
"""

from dataclasses import dataclass

import numpy as np

from vector.index.query import RecordFilter
from vector.index.settings import Bool, Int32, Int64, UInt8


@dataclass(slots=True, frozen=True)
class Columns:
    """Postings in offset order: offsets int64[p] (equal only for chunks of one record), timestamps_ms int64[p], flags uint8[p],
    nodes int32[p]; `node_count` distinct contents, every one of which has at least one posting."""

    offsets: Int64
    timestamps_ms: Int64
    flags: UInt8
    nodes: Int32
    node_count: int
    timestamp_min: int
    timestamp_max: int
    chunked: bool

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(slots=True, frozen=True)
class Matches:
    """What a filter leaves of a segment: `mask` bool[node_count] (None = every node), how many nodes and distinct records."""

    mask: Bool | None
    nodes: int
    records: int


NOTHING = Matches(None, 0, 0)


def distinct(offsets: Int64) -> int:
    """How many different values an ascending int64[n] holds."""
    return int(np.count_nonzero(offsets[1:] != offsets[:-1])) + 1 if len(offsets) else 0


def matches(columns: Columns, wanted: RecordFilter) -> Matches:
    """Evaluates `wanted` on the columns."""
    first, end = (int(i) for i in np.searchsorted(columns.offsets, [wanted.offset_from, wanted.offset_until]))
    if first >= end or wanted.timestamp_from > columns.timestamp_max or wanted.timestamp_until <= columns.timestamp_min:
        return NOTHING
    all_times = wanted.timestamp_from <= columns.timestamp_min and wanted.timestamp_until > columns.timestamp_max
    if all_times and end - first == len(columns):
        return Matches(None, columns.node_count, distinct(columns.offsets) if columns.chunked else len(columns))
    nodes, offsets = columns.nodes[first:end], columns.offsets[first:end]
    if not all_times:
        times = columns.timestamps_ms[first:end]
        kept = (times >= wanted.timestamp_from) & (times < wanted.timestamp_until)
        nodes, offsets = nodes[kept], offsets[kept]
    mask = np.zeros(columns.node_count, dtype=np.bool_)
    mask[nodes] = True
    return Matches(mask, int(np.count_nonzero(mask)), distinct(offsets) if columns.chunked else len(offsets))


def eligible(columns: Columns, postings: Int64, wanted: RecordFilter) -> Int64:
    """Those of `postings` (indices, ascending) whose record passes the filter."""
    offsets = columns.offsets[postings]
    kept = (offsets >= wanted.offset_from) & (offsets < wanted.offset_until)
    if wanted.timestamp_from > columns.timestamp_min or wanted.timestamp_until <= columns.timestamp_max:
        times = columns.timestamps_ms[postings]
        kept &= (times >= wanted.timestamp_from) & (times < wanted.timestamp_until)
    return postings[kept]


def newest(columns: Columns, postings: Int64, count: int) -> Int64:
    """The first `count` of one node's postings in result order: timestamp descending, then offset ascending."""
    times = columns.timestamps_ms[postings]
    if len(postings) > 4 * count:
        # A text repeated a million times: sort only what can be among the first.
        cut = np.partition(times, len(times) - count)[len(times) - count]
        kept = times >= cut
        postings, times = postings[kept], times[kept]
    return postings[np.lexsort((columns.offsets[postings], -times))][:count]


def group_by_node(nodes: Int32, node_count: int) -> tuple[Int64, Int32]:
    """The way back: starts int64[node_count + 1] and posting indices int32[p] grouped by node, ascending in each group."""
    starts = np.zeros(node_count + 1, dtype=np.int64)
    np.cumsum(np.bincount(nodes, minlength=node_count), out=starts[1:])
    return starts, np.argsort(nodes, kind="stable").astype(np.int32)
