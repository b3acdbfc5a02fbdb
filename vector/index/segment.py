"""What a search needs of a segment, growing or sealed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vector.arrays import Bool, Float32, Float64, Int64, Stored
from vector.index.columns import Columns
from vector.index.fields import Fields
from vector.index.settings import Counts, Metric

if TYPE_CHECKING:
    from vector.index.lexical import Texts


@dataclass(slots=True, frozen=True)
class Trust:
    """Measured: for queries of at least this `closeness`, a search width finds the true neighbours down to a depth.

    `levels`: (search width, depth), ascending.
    """

    closeness_min: float
    levels: tuple[tuple[int, int], ...]

    def width_for(self, depth: int) -> tuple[int, int] | None:
        """The cheapest level that reaches `depth`, None when none does."""
        return next((level for level in self.levels if level[1] >= depth), None)


class SegmentView(Protocol):
    """A consistent picture of a segment, taken at the start of a search; the segment may grow meanwhile."""

    columns: Columns
    graph_trust: tuple[Trust, ...]
    """How far the graph is believed, from the queries nearest to the data to the farthest. Empty: there is no graph."""

    @property
    def fields(self) -> Sequence[Fields]:
        """What filters ask for, of the records in offset order, in consecutive parts."""

    def texts(self) -> "Texts | None":
        """The texts, searchable by words; None where there are none."""

    def texts_of(self, nodes: Int64) -> list[str | None]:
        """The texts of `nodes`, None where it is not known."""

    def rows(self, nodes: Int64) -> Stored:
        """Vectors of `nodes` (int64[n]) as they are stored, float16[n, d] or float32[n, d]."""

    def exact(self, vector: Float32, mask: Bool | None, wanted: int) -> Int64:
        """The `wanted` nearest nodes that `mask` allows, with all ties of the last one, by scanning; any order."""

    def graph(self, vector: Float32, count: int, ef: int) -> tuple[Int64, Float32, float]:
        """About the `count` nearest nodes, unfiltered, by the graph, best first, their scores by its codes (higher is better, comparable
        between graphs), and the query's `closeness`."""

    def postings_of(self, nodes: Int64) -> tuple[Int64, Int64]:
        """Indices of the postings of `nodes`, int64[m], node by node, ascending, and for each its node's place in `nodes`, int64[m]:
        (places, postings)."""

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


CLOSENESS_HIT = 10
"""Which hit tells how near a query lies to the data. The first does not: between two rows it is as close as in a cluster, where 64 is wide
enough. The tenth tells both apart, and a walk that ended in the wrong cluster from one that did not (ADR 5)."""


def closeness(scores: Float32, vectors: Float32, metric: Metric) -> Float32 | Float64:
    """Of FAISS's scores float32[n, k], best first, that of hit CLOSENESS_HIT, comparable between the queries float32[n, d]: cosine-like, or
    minus the squared distance."""
    score: Float32 = scores[:, min(CLOSENESS_HIT, scores.shape[1]) - 1]
    if metric == "l2":
        return -score
    # In float64: the score of a hit that FAISS did not find is the lowest float32.
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return np.asarray(score / np.maximum(lengths, 1e-30), dtype=np.float64)
