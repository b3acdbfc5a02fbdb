"""Building a sealed segment out of immutable ones. Runs off the search path, touches only its own new files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from vector.arrays import Float32, Float64, Hashes, Int32, Int64
from vector.index.columns import Columns, distinct, group_by_node, postings_at, record_of_posting
from vector.index.fields import Fields
from vector.index.fields import encode as encode_fields
from vector.index.fields import merge as merge_fields
from vector.index.files import (
    DamagedFile,
    FileReference,
    read_faiss,
    sync_directory,
    sync_file,
    write_durable,
    write_faiss,
)
from vector.index.growing import GrowingSegment
from vector.index.query import NO_LIMIT
from vector.index.scan import singles
from vector.index.sealed import SealedSegment
from vector.index.search import cap_faiss_threads, fetch_count
from vector.index.segment import SegmentView, Trust, closeness
from vector.index.segment_files import (
    COLUMNS_SUFFIX,
    FIELDS_SUFFIX,
    GRAPH_SUFFIX,
    TEXTS_SUFFIX,
    VECTORS_SUFFIX,
    SegmentColumns,
    SegmentHeader,
    encode,
    segment_name,
)
from vector.index.settings import HASH_BYTES, Counts, IndexSettings
from vector.priority import at_lowest_priority

SAMPLE_QUERIES = 100
RECALL_WANTED = 0.995
BELIEVED_MIN = 0.7
"""Of the queries that are near enough, how many a width must serve; the others are asked again with a larger one."""
MIXTURES = ((1.0, 0.3), (1.0, 0.6), (1.0, 0.8), (1.0, 1.0), (-1.0,) * 8)
WIDTHS_TRIED = (64, 128, 256, 512, 1024, 2048)
DEPTHS_TRIED = (10, 20, 40, 80, 160, 320)
COPY_ROWS = 4096
RECALL_LOST_MAX = 0.05
"""Of the sampled recall, when vectors are added to a graph: more says that they are of another kind than those it was made of. Recall of
what is believed varies by 0.003 from sample to sample; of all walks, some of which end in the wrong cluster, it would by 0.05."""

Source = GrowingSegment | SealedSegment
Levels = tuple[tuple[int, int], ...]
"""See `Trust`."""


@dataclass(slots=True, frozen=True)
class Built:
    """A sealed segment on disk, not yet named by the manifest, and the segments it replaces."""

    segment: SealedSegment
    sources: tuple[int, ...]


@dataclass(slots=True, frozen=True)
class _Merged:
    data: SegmentColumns
    fields: Fields
    places: tuple[Int64, ...]
    """Per source: its nodes that go into the new segment, in the order of the new segment's nodes."""


@dataclass(slots=True, frozen=True)
class _Kind:
    """Sampled queries float32[q, d], their true neighbours int64[q, depth] and their `closeness` [q]."""

    queries: Float32
    truth: Int64
    near: Float32 | Float64


def build(
    directory: Path,
    identity: int,
    sources: Sequence[Source],
    log_start_offset: int,
    buried: Int64,
    settings: IndexSettings,
) -> Built:
    """Writes and fsyncs the files of one segment made of neighbouring `sources`, without rows below `log_start_offset` or `buried`.

    Raises OSError when the disk does.
    """
    cap_faiss_threads()
    merged = _merge_columns(sources, log_start_offset, buried)
    name = segment_name(identity)
    nodes = merged.data.columns.node_count
    files = [
        write_faiss(directory / (name + VECTORS_SUFFIX), _vector_index(sources, merged, settings)),
        write_durable(directory / (name + FIELDS_SUFFIX), [encode_fields(merged.fields)]),
    ]
    if settings.texts:
        files += _write_texts(directory, name, sources, merged.places)
    trust: tuple[Trust, ...] = ()
    recall = 1.0
    if nodes > settings.exact_matches_max:  # below, every search is exact: a graph would never be read
        written, trust, recall = _write_graph(directory, name, sources, merged, settings)
        files += written
    header = _header(identity, sources, merged.data.columns, settings, trust, recall, files)
    write_durable(directory / (name + COLUMNS_SUFFIX), encode(header, merged.data))
    sync_directory(directory)
    return Built(SealedSegment.open(directory, name), tuple(source.identity for source in sources))


def _header(
    identity: int,
    sources: Sequence[Source],
    columns: Columns,
    settings: IndexSettings,
    trust: tuple[Trust, ...],
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
        graph_trust=trust,
        recall=recall,
        files=tuple(files),
    )


def _merge_columns(sources: Sequence[Source], log_start_offset: int, buried: Int64) -> _Merged:
    """Postings of all sources in offset order, equal contents of different sources made one node."""
    views = [source.view() for source in sources]
    kept_of = [
        np.flatnonzero((view.columns.offsets >= log_start_offset) & ~postings_at(view.columns, buried))
        for view in views
    ]
    alive_of = []
    for view, kept in zip(views, kept_of, strict=True):
        unique, first = np.unique(view.columns.nodes[kept], return_index=True)
        alive_of.append(unique[np.argsort(first, kind="stable")].astype(np.int64))  # in the order of first offsets
    every = np.concatenate([_hashes(view, alive) for view, alive in zip(views, alive_of, strict=True)])
    new_nodes, firsts, order = _numbered(every)
    parts: list[tuple[Int64, Int64]] = []  # per source: postings kept, new node of each old node (-1: gone)
    places: list[Int64] = []
    start = 0
    for view, kept, alive in zip(views, kept_of, alive_of, strict=True):
        end = start + len(alive)
        new_of_old = np.full(view.columns.node_count, -1, dtype=np.int64)
        new_of_old[alive] = new_nodes[start:end]
        first, last = np.searchsorted(firsts, [start, end])
        places.append(alive[firsts[first:last] - start])
        parts.append((kept, new_of_old))
        start = end

    def joined(name: str, dtype: str) -> Any:
        return np.concatenate(
            [getattr(v.columns, name)[kept] for v, (kept, _) in zip(views, parts, strict=True)]
        ).astype(dtype)

    nodes = np.concatenate([new[v.columns.nodes[kept]] for v, (kept, new) in zip(views, parts, strict=True)]).astype(
        np.int32
    )
    offsets, times = joined("offsets", "i8"), joined("timestamps_ms", "i8")
    chunked = distinct(offsets) < len(offsets)
    columns = Columns(
        offsets, times, joined("flags", "u1"), nodes, len(firsts),
        int(times.min(initial=NO_LIMIT)), int(times.max(initial=-1)), chunked,
    )  # fmt: skip
    starts, by_node = group_by_node(nodes, len(firsts))
    fields = merge_fields([_fields_kept(view, kept) for view, (kept, _) in zip(views, parts, strict=True)])
    return _Merged(SegmentColumns(columns, starts, by_node, every[firsts], order), fields, tuple(places))


def _hashes(view: SegmentView, nodes: Int64) -> Hashes:
    """Content hashes of `nodes`; piece by piece, since their bytes objects are several times as large."""
    found = np.empty(len(nodes), dtype=f"S{HASH_BYTES}")
    for start in range(0, len(nodes), COPY_ROWS):
        found[start : start + COPY_ROWS] = view.hashes_of(nodes[start : start + COPY_ROWS])
    return found


def _numbered(hashes: Hashes) -> tuple[Int64, Int64, Int32]:
    """Of contents that may repeat: the number of each, by first occurrence; where each number occurs first, ascending; and the numbers
    in the order of their hashes."""
    sorting = np.argsort(hashes, kind="stable")
    in_order = hashes[sorting]
    begins = np.ones(len(hashes), dtype=np.bool_)
    begins[1:] = in_order[1:] != in_order[:-1]
    firsts = sorting[begins]  # stable: the first of equals
    by_hash = np.empty(len(firsts), dtype=np.int64)
    by_hash[np.argsort(firsts)] = np.arange(len(firsts))
    numbers = np.empty(len(hashes), dtype=np.int64)
    numbers[sorting] = by_hash[np.cumsum(begins) - 1]
    return numbers, np.sort(firsts), by_hash.astype(np.int32)


def _fields_kept(view: SegmentView, kept: Int64) -> tuple[Fields, Int64 | None]:
    """The fields of a source, and which of its records go on, from which of its postings do."""
    fields = merge_fields([(part, None) for part in view.fields])
    numbers = record_of_posting(view.columns)
    records = kept if numbers is None else np.unique(numbers[kept])
    return fields, None if len(records) == fields.count else records


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
            index.add(singles(view.rows(places[start : start + COPY_ROWS])))
    return index


def _write_texts(directory: Path, name: str, sources: Sequence[Source], places: Sequence[Int64]) -> list[FileReference]:
    """The texts of the new nodes, searchable by words."""
    from vector.index.lexical import write_texts

    texts = (text for source, nodes in zip(sources, places, strict=True) for text in source.view().texts_of(nodes))
    folder = name + TEXTS_SUFFIX
    written = write_texts(directory / folder, ((node, text) for node, text in enumerate(texts) if text is not None))
    references = [sync_file(directory, f"{folder}/{file}") for file in written]
    sync_directory(directory / folder)
    return references


def _write_graph(
    directory: Path, name: str, sources: Sequence[Source], merged: _Merged, settings: IndexSettings
) -> tuple[list[FileReference], tuple[Trust, ...], float]:
    """The file of a graph over the vectors that have been written, how far it can be believed, and its recall; none, if not at all."""
    vectors = read_faiss(directory / (name + VECTORS_SUFFIX))  # mapped: memory is for the graph
    graph, trust, recall = at_lowest_priority(lambda: _graph(directory, sources, merged, vectors, settings))
    return [write_faiss(directory / (name + GRAPH_SUFFIX), graph)] if trust else [], trust, recall


def _graph(
    directory: Path, sources: Sequence[Source], merged: _Merged, vectors: Any, settings: IndexSettings
) -> tuple[Any, tuple[Trust, ...], float]:
    """A graph over all vectors with how far it can be believed: that of the first source with the others' vectors added, where all of
    its nodes go on in their order (records that are gone change it) and it finds hardly less then; else a new one."""
    cap_faiss_threads()
    first = sources[0]
    if isinstance(first, SealedSegment) and np.array_equal(merged.places[0], np.arange(first.node_count)):
        graph = _own_graph(directory, first, settings)
        if graph is not None:
            graph.hnsw.efConstruction = settings.ef_construction
            graph.add(vectors.reconstruct_n(graph.ntotal, vectors.ntotal - graph.ntotal))
            trust, recall = calibrate(graph, vectors, settings)
            if trust and recall >= first.header.recall - RECALL_LOST_MAX:
                return graph, trust, recall
    graph = build_graph(vectors, settings)
    return graph, *calibrate(graph, vectors, settings)


def _own_graph(directory: Path, segment: SealedSegment, settings: IndexSettings) -> Any | None:
    """A copy of a segment's graph, to be added to; None where it has none of the form wanted, or it has become unreadable."""
    if not segment.graph_trust or segment.header.storage != settings.storage:
        return None
    try:
        graph = read_faiss(directory / (segment_name(segment.identity) + GRAPH_SUFFIX), mapped=False)
    except DamagedFile:
        return None
    return graph if graph.hnsw.nb_neighbors(1) == settings.hnsw_m else None


def build_graph(vectors: Any, settings: IndexSettings) -> Any:
    """HNSW over all rows of a flat index, added in one call: FAISS then inserts them in random order, which a log, whose
    neighbours in time are neighbours in meaning, needs."""
    graph = _new_graph(settings)
    rows = vectors.reconstruct_n(0, vectors.ntotal)
    graph.train(rows)
    graph.add(rows)
    return graph


def _new_graph(settings: IndexSettings) -> Any:
    metric = faiss.METRIC_L2 if settings.metric == "l2" else faiss.METRIC_INNER_PRODUCT
    if settings.storage == "fp32":
        graph = faiss.IndexHNSWFlat(settings.dimensions, settings.hnsw_m, metric)
    else:
        codes = faiss.ScalarQuantizer.QT_8bit if settings.storage == "sq8" else faiss.ScalarQuantizer.QT_fp16
        graph = faiss.IndexHNSWSQ(settings.dimensions, codes, settings.hnsw_m, metric)
    graph.hnsw.efConstruction = settings.ef_construction
    return graph


def calibrate(graph: Any, vectors: Any, settings: IndexSettings) -> tuple[tuple[Trust, ...], float]:
    """How far the graph can be believed, and recall@10 of what is believed at the first width, for the nearest kind of queries.

    A graph finds the first few neighbours and then, where the data lies in clusters, others than the true ones; and it finds
    less for a query that is far from all data. Both are properties of the data, so they are measured, against exact search, with
    five kinds of queries, from near a row over between two rows to anywhere in the span of some rows. A query that may be of either of
    two kinds counts as the farther one, and that is believed only as deep as the nearer one too: near one cluster, what is behind it is
    hard to find, between two clusters it is not asked for. A kind for which no width serves ends the list: queries as far as that are
    answered exactly.
    """
    random = np.random.default_rng(vectors.ntotal)
    kinds = [_kind(_sample_queries(vectors, mixture, random), vectors, settings) for mixture in MIXTURES]
    trust: list[Trust] = []
    first_recall = 0.0
    for number, kind in enumerate(kinds):
        least = float(np.percentile(kind.near, 5))
        if number + 1 < len(kinds):
            farther = float(np.percentile(kinds[number + 1].near, 95))
            least = max(least, min(farther, float(np.median(kind.near))))
        levels, recall = _levels(graph, kind, least, settings)
        first_recall = recall if number == 0 else first_recall
        levels = _both(levels, trust[-1].levels) if trust else levels
        if not levels:
            break
        trust.append(Trust(least, levels))
    return tuple(trust), first_recall


def _kind(queries: Float32, vectors: Any, settings: IndexSettings) -> _Kind:
    scores, truth = vectors.search(queries, min(DEPTHS_TRIED[-1], vectors.ntotal))
    return _Kind(queries, truth, closeness(scores, queries, settings.metric))


def _sample_queries(vectors: Any, mixture: tuple[float, ...], random: np.random.Generator) -> Float32:
    """Sums of random rows, weighted by `mixture` (negative weights: of random sign)."""
    queries = np.zeros((SAMPLE_QUERIES, vectors.d), dtype=np.float32)
    for weight in mixture:
        rows = vectors.reconstruct_batch(random.integers(0, vectors.ntotal, SAMPLE_QUERIES))
        signs = random.choice([-1.0, 1.0], SAMPLE_QUERIES) if weight < 0 else np.ones(SAMPLE_QUERIES)
        queries += (abs(weight) * signs).astype(np.float32)[:, None] * rows
    return np.ascontiguousarray(queries / np.float32(np.sqrt(sum(weight * weight for weight in mixture))))


def _levels(graph: Any, kind: _Kind, closeness_min: float, settings: IndexSettings) -> tuple[Levels, float]:
    """By those queries for which hits as close as that are found: a search asks again where they are not, so that a walk that ends
    in the wrong cluster costs time, not hits. And recall of those that are believed at the first width."""
    queries, truth = kind.queries, kind.truth
    to_believe = np.count_nonzero(kind.near >= closeness_min)
    levels: list[tuple[int, int]] = []
    first_recall: float | None = None
    for width in (settings.ef_search, *(width for width in WIDTHS_TRIED if width > settings.ef_search)):
        scores, found = graph.search(queries, width, params=faiss.SearchParametersHNSW(efSearch=width))
        believed = closeness(scores, queries, settings.metric) >= closeness_min
        if first_recall is None:
            first_recall = _believable_depth(truth[believed], found[believed])[1] if believed.any() else 0.0
        if np.count_nonzero(believed) < BELIEVED_MIN * to_believe:
            continue
        depth = _believable_depth(truth[believed], found[believed])[0]
        if depth > (levels[-1][1] if levels else 0):
            levels.append((width, depth))
    return tuple(levels), first_recall or 0.0


def _both(levels: Levels, others: Levels) -> Levels:
    """Down to which depth each width serves according to both."""
    common: list[tuple[int, int]] = []
    for width in sorted({width for width, _ in (*levels, *others)}):
        depth = min(_depth_at(levels, width), _depth_at(others, width))
        if depth > (common[-1][1] if common else 0):
            common.append((width, depth))
    return tuple(common)


def _depth_at(levels: Levels, width: int) -> int:
    return max((depth for least, depth in levels if least <= width), default=0)


def _believable_depth(truth: Int64, found: Int64) -> tuple[int, float]:
    """The last depth at which `found` holds the true neighbours (0 = none), and recall at the first depth."""
    believed, first_recall = 0, 0.0
    for depth in DEPTHS_TRIED:
        if depth > truth.shape[1] or fetch_count(depth) > found.shape[1]:
            break
        rows = zip(truth[:, :depth], found[:, : fetch_count(depth)], strict=True)
        recall = float(sum(np.isin(one, other).sum() for one, other in rows)) / (len(truth) * depth)
        if depth == DEPTHS_TRIED[0]:
            first_recall = recall
        if recall < RECALL_WANTED:
            break
        believed = depth
    return believed, first_recall
