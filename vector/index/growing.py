"""The growing segment: rows in memory, searchable at once by an exact scan."""

from collections import Counter
from itertools import chain, repeat
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from vector.arrays import Bool, Float32, Int64, Stored
from vector.index.columns import Columns
from vector.index.fields import Fields, appended
from vector.index.scan import nearest_rows
from vector.index.scoring import stored_form
from vector.index.segment import Trust
from vector.index.settings import POSTINGS_PER_ROW_MAX, Counts, IndexSettings, Run

if TYPE_CHECKING:
    from vector.index.lexical import GrowingTexts, Texts

INITIAL_ROWS = 256
Scalar = TypeVar("Scalar", bound=np.generic)


class GrowingSegment:
    """Rows in the stored precision, one per distinct content, with postings. Appended to by one thread; any thread may search a view.

    Arrays only grow: a view remembers how many rows and postings were published when it was taken.
    """

    def __init__(self, identity: int, base_offset: int, settings: IndexSettings) -> None:
        self.identity = identity
        self.base_offset = base_offset
        self.settings = settings
        self.counts = Counts()
        self.outdated = False
        """Read back from a journal of a version that kept no fields."""
        self._next_offset = base_offset
        self._nodes: dict[bytes, int] = {}
        self._hashes: list[bytes] = []
        self._texts: list[str | None] = []
        self._text_bytes = 0
        self._searchable_texts: GrowingTexts | None = None
        self._node_postings: list[list[int]] = []
        self._vectors: Stored = np.empty((INITIAL_ROWS, settings.dimensions), dtype=settings.vector_dtype)
        self._columns = Columns(
            offsets=np.empty(INITIAL_ROWS, dtype=np.int64),
            timestamps_ms=np.empty(INITIAL_ROWS, dtype=np.int64),
            flags=np.empty(INITIAL_ROWS, dtype=np.uint8),
            nodes=np.empty(INITIAL_ROWS, dtype=np.int32),
            node_count=0,
            timestamp_min=0,
            timestamp_max=-1,
            chunked=False,
        )
        # nodes, postings, timestamp_min, timestamp_max, chunked, fields
        self._published: tuple[int, int, int, int, bool, tuple[Fields, ...]] = (0, 0, 0, -1, False, ())

    @property
    def next_offset(self) -> int:
        return self._next_offset

    @property
    def node_count(self) -> int:
        return self._published[0]

    @property
    def posting_count(self) -> int:
        return self._published[1]

    @property
    def full(self) -> bool:
        """Whether the next run belongs into a new segment."""
        rows_max = self.settings.growing_rows_max
        return self.node_count >= rows_max or self.posting_count >= rows_max * POSTINGS_PER_ROW_MAX

    @property
    def memory_bytes(self) -> int:
        columns = self._columns
        arrays = (self._vectors, columns.offsets, columns.timestamps_ms, columns.flags, columns.nodes)
        # About 150 bytes of dict, list and bytes objects for a node and 36 for a posting index.
        fields = sum(part.nbytes for part in self._published[5])
        return (
            sum(array.nbytes for array in arrays)
            + fields
            + self._text_bytes
            + 150 * self.node_count
            + 36 * self.posting_count
        )

    def growth_bytes(self, run: Run) -> int:
        """The most that `memory_bytes` rises by when the run is appended."""
        new = {content for content in run.hashes if content not in self._nodes}
        texts = sum(50 + len(run.texts[content]) for content in new if content in run.texts)
        columns, postings = self._columns, self.posting_count + len(run.offsets)
        arrays = (columns.offsets, columns.timestamps_ms, columns.flags, columns.nodes)
        grown = _growth_bytes(self._vectors, self.node_count + len(new))
        grown += sum(_growth_bytes(array, postings) for array in arrays)
        fields = run.fields.nbytes if run.fields is not None else 4 * len(run.offsets)
        return grown + fields + texts + 150 * len(new) + 36 * len(run.offsets)

    def append(self, run: Run) -> Float32:
        """Adds a run; returns the rows of contents that were new, in the order of their first occurrence, as stored."""
        new_rows: list[int] = []
        fresh: set[bytes] = set()
        for row, content in enumerate(run.hashes):
            if content not in self._nodes and content not in fresh:
                fresh.add(content)
                new_rows.append(row)
        stored = stored_form(run.vectors[new_rows], self.settings)
        self.append_stored(run, stored)
        return stored

    def append_stored(self, run: Run, new_rows: Float32) -> None:
        """Adds a run whose new contents have `new_rows`, float32[contents, d] as stored; `run.vectors` is not read."""
        nodes, postings = self.node_count, self.posting_count
        node_column = np.empty(len(run.offsets), dtype=np.int32)
        for row, content in enumerate(run.hashes):
            node = self._nodes.get(content)
            if node is None:
                node = len(self._hashes)
                text = run.texts.get(content) if self.settings.texts else None
                self._text_bytes += 0 if text is None else 50 + len(text)
                self._texts.append(text)
                self._hashes.append(content)
                self._node_postings.append([])
                self._nodes[content] = node
            node_column[row] = node
            self._node_postings[node].append(postings + row)
        end = postings + len(run.offsets)
        self._reserve(nodes + len(new_rows), end)
        self._vectors[nodes : nodes + len(new_rows)] = new_rows
        columns = self._columns
        columns.offsets[postings:end] = run.offsets
        columns.timestamps_ms[postings:end] = run.timestamps_ms
        columns.flags[postings:end] = run.flags
        columns.nodes[postings:end] = node_column
        self._publish(run, nodes + len(new_rows), end)

    def _publish(self, run: Run, nodes: int, postings: int) -> None:
        _, old, timestamp_min, timestamp_max, chunked, fields = self._published
        distinct = len(set(run.offsets.tolist()))
        if len(run.offsets):
            fields = appended(fields, run.fields or Fields.unknown(distinct))
            low, high = int(run.timestamps_ms.min()), int(run.timestamps_ms.max())
            timestamp_min, timestamp_max = (min(low, timestamp_min), max(high, timestamp_max)) if old else (low, high)
        chunked = chunked or distinct < len(run.offsets)
        self._published = (nodes, postings, timestamp_min, timestamp_max, chunked, fields)
        self.counts = self.counts + Counts(distinct, Counter(run.skipped), run.failed)
        self._next_offset = run.next_offset

    def _reserve(self, nodes: int, postings: int) -> None:
        if nodes > len(self._vectors):
            self._vectors = _grown(self._vectors, nodes)
        columns = self._columns
        if postings > len(columns.offsets):
            self._columns = Columns(
                _grown(columns.offsets, postings),
                _grown(columns.timestamps_ms, postings),
                _grown(columns.flags, postings),
                _grown(columns.nodes, postings),
                *(0, 0, -1, False),
            )

    def view(self) -> "GrowingView":
        return GrowingView(self)

    def picture(self) -> tuple[Columns, tuple[Fields, ...], Stored]:
        """Published columns, fields and rows ([n, d]), without copying."""
        nodes, postings, timestamp_min, timestamp_max, chunked, fields = self._published
        columns = self._columns  # read after the counts: it can only be longer than they say
        return (
            Columns(
                columns.offsets[:postings],
                columns.timestamps_ms[:postings],
                columns.flags[:postings],
                columns.nodes[:postings],
                *(nodes, timestamp_min, timestamp_max, chunked),
            ),
            fields,
            self._vectors[:nodes],
        )

    def text(self, node: int) -> str | None:
        """The text of a node, None where it has none."""
        return self._texts[node]

    def searchable_texts(self, nodes: int) -> "Texts | None":
        """The texts of at least the first `nodes` nodes, searchable by words."""
        if not self.settings.texts:
            return None
        if self._searchable_texts is None:
            from vector.index.lexical import GrowingTexts

            self._searchable_texts = GrowingTexts()  # two threads at once: one of them is used once, and right
        return self._searchable_texts.texts(self._texts[:nodes])

    def nodes_of(self, hashes: list[bytes]) -> Int64:
        """Nodes of content hashes, -1 where unknown."""
        return np.fromiter(map(self._nodes.get, hashes, repeat(-1)), dtype=np.int64, count=len(hashes))

    def contents(self, nodes: list[int]) -> list[bytes]:
        return list(map(self._hashes.__getitem__, nodes))

    def node_postings(self, nodes: list[int]) -> tuple[Int64, Int64]:
        """How many postings each of the nodes has, and all of them, node by node."""
        lists = list(map(self._node_postings.__getitem__, nodes))
        while True:
            sizes = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
            postings = np.fromiter(chain.from_iterable(lists), dtype=np.int64)
            if sizes.sum() == len(postings):  # else the owner has just appended to one
                return sizes, postings


class GrowingView:
    """A growing segment as it was when a search began."""

    graph_trust: tuple[Trust, ...] = ()

    def __init__(self, segment: GrowingSegment) -> None:
        self.columns, self.fields, self._vectors = segment.picture()
        self._segment = segment
        self._metric = segment.settings.metric

    def texts(self) -> "Texts | None":
        return self._segment.searchable_texts(self.columns.node_count)

    def texts_of(self, nodes: Int64) -> list[str | None]:
        return [self._segment.text(int(node)) for node in nodes]

    def rows(self, nodes: Int64) -> Stored:
        return self._vectors[nodes]

    def exact(self, vector: Float32, mask: Bool | None, wanted: int) -> Int64:
        return nearest_rows(self._vectors, vector, self._metric, mask, wanted)

    def graph(self, vector: Float32, count: int, ef: int) -> tuple[Int64, Float32, float]:
        raise NotImplementedError("a growing segment has no graph")

    def postings_of(self, nodes: Int64) -> tuple[Int64, Int64]:
        sizes, postings = self._segment.node_postings(nodes.tolist())
        places, known = np.repeat(np.arange(len(nodes)), sizes), postings < len(self.columns)
        return places[known], postings[known]

    def nodes_of(self, hashes: list[bytes]) -> Int64:
        nodes = self._segment.nodes_of(hashes)
        nodes[nodes >= self.columns.node_count] = -1
        return nodes

    def hashes_of(self, nodes: Int64) -> list[bytes]:
        return self._segment.contents(nodes.tolist())


def _growth_bytes(array: npt.NDArray[Scalar], length: int) -> int:
    """By how much `_grown` makes it larger, if it is not long enough."""
    rows = max(length, 2 * len(array)) - len(array) if length > len(array) else 0
    return rows * array.nbytes // len(array)


def _grown(array: npt.NDArray[Scalar], length: int) -> npt.NDArray[Scalar]:
    """A copy of `array` with room for at least `length` rows; doubling, so appends cost O(1) on average."""
    grown = np.empty((max(length, 2 * len(array)), *array.shape[1:]), dtype=array.dtype)
    grown[: len(array)] = array
    return grown
