"""The sidecar of a segment: which record has which vector, in columns. Pure.

A *node* is one distinct content with one vector; a *posting* is one record of it. Postings are kept in offset order, so an
offset range is a slice; the way back from a node to its postings is `starts` and `by_node`.
"""

from dataclasses import dataclass

import numpy as np

from vector.arrays import Bool, Int32, Int64, UInt8

_NUMBERS = np.arange(1024)
_NUMBERS.flags.writeable = False
MANY_POSTINGS = 1000
"""Of a text with more records only those are sorted that can be among the newest."""


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


def counting(count: int) -> Int64:
    """0, 1, 2 …: int64[count], not to be written to. For a few not by numpy, which lets go of the interpreter meanwhile: to get it back
    takes longer when many search at the same time."""
    return _NUMBERS[:count] if count <= len(_NUMBERS) else np.arange(count)


def distinct(offsets: Int64) -> int:
    """How many different values an ascending int64[n] holds."""
    return int(np.count_nonzero(offsets[1:] != offsets[:-1])) + 1 if len(offsets) else 0


def record_of_posting(columns: Columns) -> Int64 | None:
    """Number of each posting's record: int64[p]; None where postings are records."""
    if not columns.chunked:
        return None
    numbers = np.zeros(len(columns), dtype=np.int64)
    np.cumsum(columns.offsets[1:] != columns.offsets[:-1], out=numbers[1:])
    return numbers


def first_postings(columns: Columns) -> Int64 | None:
    """The first posting of each record: int64[records]; None where postings are records."""
    return np.unique(columns.offsets, return_index=True)[1] if columns.chunked else None


def postings_at(columns: Columns, offsets: Int64) -> Bool:
    """Which postings are of records at these offsets (int64[n], ascending): bool[p]."""
    steps = np.zeros(len(columns) + 1, dtype=np.int64)
    np.add.at(steps, np.searchsorted(columns.offsets, offsets), 1)
    np.subtract.at(steps, np.searchsorted(columns.offsets, offsets, side="right"), 1)
    return np.cumsum(steps[:-1]) > 0


def newest(columns: Columns, postings: Int64, count: int) -> Int64:
    """The first `count` of one node's postings in result order: timestamp descending, then offset ascending."""
    times = columns.timestamps_ms[postings]
    if len(postings) > 4 * count:
        # A text repeated a million times: sort only what can be among the first.
        cut = np.partition(times, len(times) - count)[len(times) - count]
        kept = times >= cut
        postings, times = postings[kept], times[kept]
    return postings[np.lexsort((columns.offsets[postings], -times))][:count]


def newest_of_each(columns: Columns, places: Int64, postings: Int64, count: int) -> tuple[Int64, Int64]:
    """`newest` of every group: `places`, int64[m], says of which group each of `postings` is. In any order."""
    if len(places) <= count:
        return places, postings
    sizes = np.bincount(places)
    if sizes.max(initial=0) <= count:
        return places, postings
    kept_places, kept = [], []
    for place in np.flatnonzero(sizes > MANY_POSTINGS):
        found = newest(columns, postings[places == place], count)
        kept_places.append(np.full(len(found), place))
        kept.append(found)
    few = sizes[places] <= MANY_POSTINGS
    places, postings = places[few], postings[few]
    order = np.lexsort((columns.offsets[postings], -columns.timestamps_ms[postings], places))
    places, postings = places[order], postings[order]
    first = np.arange(len(places)) - np.searchsorted(places, places) < count
    return np.concatenate([places[first], *kept_places]), np.concatenate([postings[first], *kept])


def group_by_node(nodes: Int32, node_count: int) -> tuple[Int64, Int32]:
    """The way back: starts int64[node_count + 1] and posting indices int32[p] grouped by node, ascending in each group."""
    starts = np.zeros(node_count + 1, dtype=np.int64)
    np.cumsum(np.bincount(nodes, minlength=node_count), out=starts[1:])
    return starts, np.argsort(nodes, kind="stable").astype(np.int32)
