"""Building a sealed segment out of immutable ones. Runs off the search path, touches only its own new files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from vector.index.columns import Columns, distinct, group_by_node
from vector.index.files import FileReference, sync_directory, write_durable, write_faiss
from vector.index.growing import GrowingSegment
from vector.index.sealed import SealedSegment
from vector.index.search import cap_faiss_threads
from vector.index.segment_files import (
    COLUMNS_SUFFIX,
    GRAPH_SUFFIX,
    VECTORS_SUFFIX,
    SegmentColumns,
    SegmentHeader,
    encode,
    segment_name,
)
from vector.index.settings import HASH_BYTES, Counts, Float32, IndexSettings, Int64

SAMPLE_QUERIES = 100
SAMPLE_NEIGHBOURS = 10
SAMPLE_FETCH = 64
RECALL_WANTED = 0.995
EF_TRIED = (64, 128, 256, 512)
COPY_ROWS = 4096

Source = GrowingSegment | SealedSegment


@dataclass(slots=True, frozen=True)
class Built:
    """A sealed segment on disk, not yet named by the manifest, and the segments it replaces."""

    segment: SealedSegment
    sources: tuple[int, ...]


@dataclass(slots=True, frozen=True)
class _Merged:
    data: SegmentColumns
    places: tuple[Int64, ...]
    """Per source: its nodes that go into the new segment, in the order of the new segment's nodes."""


def build(directory: Path, identity: int, sources: Sequence[Source], log_start_offset: int, settings: IndexSettings) -> Built | None:
    """Writes and fsyncs the files of one segment made of neighbouring `sources`, without rows below `log_start_offset`.

    None when no row is left. Raises OSError when the disk does.
    """
    cap_faiss_threads()
    merged = _merge_columns(sources, log_start_offset)
    if merged is None:
        return None
    name = segment_name(identity)
    vectors = _vector_index(sources, merged, settings)
    nodes = merged.data.columns.node_count
    files = [write_faiss(directory / (name + VECTORS_SUFFIX), vectors)]
    graph_ef, recall = 0, 1.0
    if nodes > settings.exact_matches_max:  # below, every search is exact: a graph would never be read
        graph = build_graph(vectors, settings)
        graph_ef, recall = calibrate(graph, vectors, settings)
        if graph_ef:
            files.append(write_faiss(directory / (name + GRAPH_SUFFIX), graph))
    header = _header(identity, sources, merged.data.columns, settings, graph_ef, recall, files)
    write_durable(directory / (name + COLUMNS_SUFFIX), encode(header, merged.data))
    sync_directory(directory)
    return Built(SealedSegment.open(directory, name), tuple(source.identity for source in sources))


def _header(
    identity: int,
    sources: Sequence[Source],
    columns: Columns,
    settings: IndexSettings,
    graph_ef: int,
    recall: float,
    files: list[FileReference],
) -> SegmentHeader:
    counts = Counts()
    for source in sources:
        counts = counts + source.counts
    return SegmentHeader(
        identity=identity,
        base_offset=sources[0].base_offset,
        next_offset=sources[-1].next_offset,
        counts=replace(counts, skipped=Counter(counts.skipped)),
        dimensions=settings.dimensions,
        metric=settings.metric,
        storage=settings.storage,
        nodes=columns.node_count,
        postings=len(columns),
        timestamp_min=columns.timestamp_min,
        timestamp_max=columns.timestamp_max,
        chunked=columns.chunked,
        graph_ef=graph_ef,
        recall=recall,
        files=tuple(files),
    )


def _merge_columns(sources: Sequence[Source], log_start_offset: int) -> _Merged | None:
    """Postings of all sources in offset order, equal contents of different sources made one node."""
    views = [source.view() for source in sources]
    known: dict[bytes, int] = {}
    parts: list[tuple[Int64, Int64]] = []  # per source: postings kept, new node of each old node (-1: gone)
    places: list[Int64] = []
    for view in views:
        kept = np.flatnonzero(view.columns.offsets >= log_start_offset)
        old_nodes = view.columns.nodes[kept]
        unique, first = np.unique(old_nodes, return_index=True)
        alive = unique[np.argsort(first, kind="stable")].astype(np.int64)  # in the order of first offsets
        new_of_old = np.full(view.columns.node_count, -1, dtype=np.int64)
        fresh: list[int] = []
        for old, content in zip(alive.tolist(), view.hashes_of(alive), strict=True):
            new = known.get(content)
            if new is None:
                new = known[content] = len(known)
                fresh.append(old)
            new_of_old[old] = new
        places.append(np.array(fresh, dtype=np.int64))
        parts.append((kept, new_of_old))
    if not known:
        return None

    def joined(name: str, dtype: str) -> Any:
        return np.concatenate([getattr(v.columns, name)[kept] for v, (kept, _) in zip(views, parts, strict=True)]).astype(dtype)

    nodes = np.concatenate([new[v.columns.nodes[kept]] for v, (kept, new) in zip(views, parts, strict=True)]).astype(np.int32)
    offsets, times = joined("offsets", "i8"), joined("timestamps_ms", "i8")
    chunked = distinct(offsets) < len(offsets)
    columns = Columns(offsets, times, joined("flags", "u1"), nodes, len(known), int(times.min()), int(times.max()), chunked)
    hashes = np.array(list(known), dtype=f"S{HASH_BYTES}")
    starts, by_node = group_by_node(nodes, len(known))
    order = np.argsort(hashes, kind="stable").astype(np.int32)
    return _Merged(SegmentColumns(columns, starts, by_node, hashes, order), tuple(places))


def _vector_index(sources: Sequence[Source], merged: _Merged, settings: IndexSettings) -> Any:
    """A flat FAISS index with the stored vectors in node order."""
    metric = faiss.METRIC_L2 if settings.metric == "l2" else faiss.METRIC_INNER_PRODUCT
    if settings.storage == "fp32":
        index = faiss.IndexFlat(settings.dimensions, metric)
    else:
        index = faiss.IndexScalarQuantizer(settings.dimensions, faiss.ScalarQuantizer.QT_fp16, metric)
    for source, places in zip(sources, merged.places, strict=True):
        view = source.view()
        for start in range(0, len(places), COPY_ROWS):
            index.add(np.ascontiguousarray(view.rows(places[start : start + COPY_ROWS])))
    return index


def build_graph(vectors: Any, settings: IndexSettings) -> Any:
    """HNSW over all rows of a flat index, added in one call: FAISS then inserts them in random order, which a log, whose
    neighbours in time are neighbours in meaning, needs."""
    metric = faiss.METRIC_L2 if settings.metric == "l2" else faiss.METRIC_INNER_PRODUCT
    if settings.storage == "fp32":
        graph = faiss.IndexHNSWFlat(settings.dimensions, settings.hnsw_m, metric)
    else:
        codes = faiss.ScalarQuantizer.QT_8bit if settings.storage == "sq8" else faiss.ScalarQuantizer.QT_fp16
        graph = faiss.IndexHNSWSQ(settings.dimensions, codes, settings.hnsw_m, metric)
    graph.hnsw.efConstruction = settings.ef_construction
    rows = vectors.reconstruct_n(0, vectors.ntotal)
    graph.train(rows)
    graph.add(rows)
    return graph


def calibrate(graph: Any, vectors: Any, settings: IndexSettings) -> tuple[int, float]:
    """The least search width at which the graph finds the true neighbours of sampled queries, and its recall@10 there.

    (0, recall) when even the widest does not reach RECALL_WANTED: such a graph is not used. Queries are rows moved
    towards other rows, since a row itself is easier to find than a question is.
    """
    random = np.random.default_rng(vectors.ntotal)
    picked, other = (vectors.reconstruct_batch(random.integers(0, vectors.ntotal, SAMPLE_QUERIES)) for _ in range(2))
    queries: Float32 = np.ascontiguousarray(picked + np.float32(0.3) * other, dtype=np.float32)
    _, truth = vectors.search(queries, SAMPLE_NEIGHBOURS)
    recall = 0.0
    for ef in (max(settings.ef_search, EF_TRIED[0]), *(ef for ef in EF_TRIED if ef > settings.ef_search)):
        _, found = graph.search(queries, SAMPLE_FETCH, params=faiss.SearchParametersHNSW(efSearch=ef))
        hits = sum(np.isin(one, other).sum() for one, other in zip(truth, found, strict=True))
        recall = float(hits) / truth.size
        if recall >= RECALL_WANTED:
            return ef, recall
    return 0, recall
