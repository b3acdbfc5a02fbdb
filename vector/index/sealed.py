"""The sealed segment: immutable files, memory-mapped. Any thread may search it."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from vector.arrays import Bool, Float32, Int64, Stored
from vector.index.columns import Columns, counting, distinct
from vector.index.content_lookup import ContentLookup
from vector.index.fields import Fields
from vector.index.fields import decode as decode_fields
from vector.index.files import PiecesFile, let_go, map_file, read_by, read_faiss, verify
from vector.index.scan import nearest_rows
from vector.index.segment import closeness
from vector.index.segment_files import (
    COLUMNS_SUFFIX,
    FIELDS_SUFFIX,
    GRAPH_SUFFIX,
    TEXTS_SUFFIX,
    VECTORS_SUFFIX,
    SegmentColumns,
    SegmentHeader,
    decode,
)
from vector.index.settings import HASH_BYTES, Counts, Metric

if TYPE_CHECKING:
    from vector.index.lexical import Texts


WIDTHS_KEPT = 256
ROWS_READ_MAX = 1024
"""Rows read one by one, 1 us each; more are taken from the mapping."""


@lru_cache(WIDTHS_KEPT)
def _width(ef: int) -> Any:
    """What tells FAISS how wide to search. It must always be told: its default is 16, silently (research/vector-search.md 5.4)."""
    return faiss.SearchParametersHNSW(efSearch=ef)


class SealedSegment:
    """Vectors in a flat FAISS file (fp16 or fp32; scans and rescoring), HNSW where the segment is large, sidecar columns.

    Node order is the order of first offsets, so an offset range is nearly contiguous in the vectors too.
    """

    def __init__(
        self,
        header: SegmentHeader,
        data: SegmentColumns,
        fields: Fields | None,
        vectors: memoryview,
        graph: Any | None,
        texts: "Texts | None",
        rows_file: PiecesFile | None,
    ) -> None:
        self.header = header
        self.identity = header.identity
        self.base_offset = header.base_offset
        self.counts: Counts = header.counts
        self.columns: Columns = data.columns
        self.outdated = fields is None
        """Made by a version that kept no fields."""
        self.fields: tuple[Fields, ...] = (
            Fields.unknown(distinct(data.columns.offsets)) if fields is None else fields,
        )
        self.graph_trust = header.graph_trust
        self._data = data
        self._contents = ContentLookup(data.hashes, data.hash_order)
        self._vectors = vectors
        self._rows: Stored = np.frombuffer(vectors[header.rows_start :], dtype=header.row_dtype)
        self._rows = self._rows.reshape(header.nodes, header.dimensions)
        self._graph = graph
        self._texts = texts
        self._rows_file = rows_file
        self._metric: Metric = header.metric

    @classmethod
    def open(cls, directory: Path, name: str) -> "SealedSegment":
        """Maps and verifies every file of segment `name`. Raises DamagedFile, OSError."""
        header, data = decode(directory / (name + COLUMNS_SUFFIX))
        fields, texts, graph, rows_file = None, None, None, None
        for reference in header.files:
            verify(directory, reference)
            if reference.name == name + FIELDS_SUFFIX:
                with read_by("this version", directory / reference.name):
                    fields = decode_fields(map_file(directory / reference.name))
        path = directory / (name + VECTORS_SUFFIX)
        if header.graph_trust:
            graph = read_faiss(directory / (name + GRAPH_SUFFIX))
            rows_file = PiecesFile(path, header.rows_start, header.row_bytes)
        if any(reference.name.startswith(name + TEXTS_SUFFIX) for reference in header.files):
            from vector.index.lexical import open_texts

            texts = open_texts(directory / (name + TEXTS_SUFFIX))
        return cls(header, data, fields, map_file(path), graph, texts, rows_file)

    @property
    def next_offset(self) -> int:
        return self.header.next_offset

    @property
    def node_count(self) -> int:
        return self.header.nodes

    @property
    def posting_count(self) -> int:
        return self.header.postings

    @property
    def graph_bytes(self) -> int:
        """Size of the graph: what stays resident under search, mapped from its file."""
        return self.header.size_of(GRAPH_SUFFIX)

    @property
    def vector_bytes(self) -> int:
        """Size of the stored vectors, mapped; a search by the graph touches only the rows it rescores."""
        return self.header.size_of(VECTORS_SUFFIX)

    @property
    def column_bytes(self) -> int:
        """Size of the sidecar, mapped, and of what is on the heap for it."""
        data, columns = self._data, self.columns
        arrays = (columns.offsets, columns.timestamps_ms, columns.flags, columns.nodes)
        others = self._contents.nbytes + sum(part.nbytes for part in self.fields)
        return others + sum(a.nbytes for a in (*arrays, data.starts, data.by_node, data.hashes, data.hash_order))

    def view(self) -> "SealedSegment":
        """Itself: it never changes."""
        return self

    @property
    def text_bytes(self) -> int:
        """Size of the texts and their words, mapped."""
        return sum(file.size for file in self.header.files if TEXTS_SUFFIX in file.name)

    def texts(self) -> "Texts | None":
        return self._texts

    def texts_of(self, nodes: Int64) -> list[str | None]:
        texts = dict(self._texts.by_node()) if self._texts is not None else {}
        return [texts.get(int(node)) for node in nodes]

    def rows(self, nodes: Int64) -> Stored:
        if self._rows_file is not None and len(nodes) <= ROWS_READ_MAX:
            # A graph's hits: each touched page of the mapping would bring its neighbours and stay, soon the whole file.
            stored = np.frombuffer(self._rows_file.read(nodes.tolist()), dtype=self._rows.dtype)
            return stored.reshape(len(nodes), self.header.dimensions)
        return self._rows[nodes]

    def exact(self, vector: Float32, mask: Bool | None, wanted: int) -> Int64:
        return nearest_rows(self._rows, vector, self._metric, mask, wanted)

    def let_go(self) -> None:
        """Keeps the vectors resident no more, where a graph is searched: a scan has brought in what is larger than all else."""
        if self._graph is not None:
            let_go(self._vectors)

    def graph(self, vector: Float32, count: int, ef: int) -> tuple[Int64, Float32, float]:
        if self._graph is None:
            raise ValueError(f"segment {self.identity} has no graph")
        scores, nodes = np.empty(count, dtype=np.float32), np.empty(count, dtype=np.int64)
        to_scores, to_nodes = faiss.swig_ptr(scores), faiss.swig_ptr(nodes)
        self._graph.search_c(1, faiss.swig_ptr(vector), count, to_scores, to_nodes, _width(max(ef, count)))
        near = float(closeness(scores[None], vector[None], self._metric)[0])
        if nodes[-1] < 0:
            scores, nodes = scores[nodes >= 0], nodes[nodes >= 0]
        return nodes, -scores if self._metric == "l2" else scores, near

    def postings_of(self, nodes: Int64) -> tuple[Int64, Int64]:
        starts = self._data.starts[nodes]
        counts = self._data.starts[nodes + 1] - starts
        if counts.max(initial=0) == 1:
            return counting(len(nodes)), self._data.by_node[starts].astype(np.int64)
        places = np.repeat(np.arange(len(nodes)), counts)
        ends = np.cumsum(counts)
        rows = np.arange(len(places)) + (starts - ends + counts)[places]
        return places, self._data.by_node[rows].astype(np.int64)

    def nodes_of(self, hashes: list[bytes]) -> Int64:
        return self._contents.nodes_of(hashes)

    def hashes_of(self, nodes: Int64) -> list[bytes]:
        raw = self._data.hashes[nodes].tobytes()  # tolist() would strip trailing zero bytes
        return [raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)]
