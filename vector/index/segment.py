"""What a search needs of a segment, growing or sealed."""

from typing import Protocol

import numpy as np

from vector.index.columns import Columns
from vector.index.scoring import rounding_margin
from vector.index.settings import Bool, Counts, Float32, Int64, Metric


class SegmentView(Protocol):
    """A consistent picture of a segment, taken at the start of a search; the segment may grow meanwhile."""

    columns: Columns
    graph_levels: tuple[tuple[int, int], ...]
    """(search width, depth), ascending: with that width the graph was measured to find the true nearest neighbours down to
    that rank. Empty: there is no graph, or none to be believed."""

    def rows(self, nodes: Int64) -> Float32:
        """Stored vectors of `nodes` (int64[n]) as float32[n, d]."""

    def exact(self, vector: Float32, mask: Bool | None, wanted: int) -> Int64:
        """The `wanted` nearest nodes that `mask` allows, with all ties of the last one, by scanning; any order."""

    def graph(self, vector: Float32, count: int, ef: int) -> Int64:
        """About the `count` nearest nodes, unfiltered, by the graph; any order."""

    def postings_of(self, node: int) -> Int64:
        """Indices of a node's postings, ascending."""

    def nodes_of(self, hashes: list[bytes]) -> Int64:
        """Node of each content hash, -1 where the segment does not hold it: int64[n]."""

    def hashes_of(self, nodes: Int64) -> list[bytes]:
        """Content hashes of `nodes`."""


class Segment(Protocol):
    """A stretch of the log in the index: [base_offset, next_offset)."""

    identity: int
    base_offset: int
    counts: Counts

    @property
    def next_offset(self) -> int: ...

    @property
    def node_count(self) -> int: ...

    @property
    def posting_count(self) -> int: ...

    def view(self) -> SegmentView: ...


def best(scores: Float32, nodes: Int64, wanted: int, vector: Float32, metric: Metric) -> Int64:
    """Those of `nodes` whose score is among the `wanted` highest of `scores`, and all that may tie with the last of them."""
    if wanted >= len(scores):
        return nodes
    cut = np.partition(scores, len(scores) - wanted)[len(scores) - wanted]
    kept: Int64 = nodes[scores >= cut - rounding_margin(scores, vector, metric)]
    return kept
