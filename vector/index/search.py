"""Nearest records over segments: nearest nodes, rescoring, postings, merge (design/vector.md, Searching).

A graph is only believed as far as it was measured (`Trust`). FAISS's own selector (IDSelectorBitmap) counts non-matching
nodes against its stop rule and returns what it met on the way: under a filter that correlates with the query's neighbourhood
(an offset range over clustered data) that is a full list with recall 0.88 to 0.91, and nothing in the answer betrays it. So a
filtered search asks the graph for the nearest nodes *without* the filter and keeps the matching ones: if enough of them lie
within the depth down to which the graph finds the true neighbours, they are the nearest matching ones (recall 1.0 measured);
if not, the segment is scanned exactly. Figures: benchmarks/index_recall.py.
"""

import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import faiss
import numpy as np

from vector.arrays import Bool, Float32, Int64
from vector.index.columns import distinct, newest
from vector.index.query import Candidate, IndexQuery, RecordFilter
from vector.index.scoring import similarities
from vector.index.segment import SegmentView
from vector.index.selection import Matches, ReadRecords, of_postings, select
from vector.index.settings import IndexSettings

_thread = threading.local()


def cap_faiss_threads() -> None:
    """One FAISS thread for the calling thread: OpenMP's cap is per thread, and each would otherwise own a pool of all cores."""
    if not getattr(_thread, "capped", False):
        faiss.omp_set_num_threads(1)
        _thread.capped = True


@dataclass(slots=True)
class SearchCounters:
    """How segments were searched, since the index was opened."""

    skipped: int = 0
    exact: int = 0
    graph: int = 0
    graph_refused: int = 0


@dataclass(slots=True, frozen=True)
class Part:
    """A segment of a partition and what of it passes the filter."""

    partition: int
    view: SegmentView
    matching: Matches
    settings: IndexSettings
    counters: SearchCounters

    def without(self, postings: Bool) -> "Part":
        """What is left when rows, bool[p], are taken out."""
        passing = ~postings if self.matching.postings is None else self.matching.postings & ~postings
        return replace(self, matching=of_postings(self.view.columns, passing))


@dataclass(slots=True, frozen=True)
class Found:
    """A record that one way of searching found; `score` is what it sorts by. `posting` is its row in the part."""

    score: float
    timestamp_ms: int
    partition: int
    offset: int
    content: bytes
    part: Part
    posting: int

    @property
    def order(self) -> tuple[float, int, int, int, bytes]:
        """Score falling, timestamp falling, partition, offset (design/search-api.md)."""
        return (-self.score, -self.timestamp_ms, self.partition, self.offset, self.content)


def plan(
    views: Iterable[SegmentView],
    wanted: RecordFilter,
    settings: IndexSettings,
    counters: SearchCounters,
    read: ReadRecords,
) -> list[Part]:
    """The segments of a partition that hold anything that passes `wanted`."""
    parts = []
    for view in views:
        matching = select(view, wanted, read)
        if matching.nodes:
            parts.append(Part(wanted.partition, view, matching, settings, counters))
        else:
            counters.skipped += 1
    return parts


def search(parts: Sequence[Part], query: IndexQuery, vector: Float32) -> list[Candidate]:
    """The min(limit, matches) most similar records over all parts; `vector` as `query_vector` returns it."""
    chosen = nearest(parts, query, vector)
    duplicates = count_duplicates(parts, [hit.content for hit in chosen])
    return [
        Candidate(
            hit.partition,
            hit.offset,
            hit.timestamp_ms,
            hit.score,
            duplicates[hit.content] - 1,
            int(hit.part.view.columns.flags[hit.posting]),
        )
        for hit in chosen
    ]


def nearest(parts: Sequence[Part], query: IndexQuery, vector: Float32) -> list[Found]:
    """The min(limit, matches) most similar records over all parts, in order; fewer when `min_similarity` cuts."""
    cap_faiss_threads()
    if query.collapse or any(part.view.columns.chunked for part in parts):
        found = [hit for part in parts for hit in _search_segment(part, query, vector)]
    else:
        found = _search_together(parts, query, vector)
    found.sort(key=lambda hit: hit.order)
    if query.min_similarity is not None and not math.isnan(query.min_similarity):
        least = query.min_similarity
        found = [hit for hit in found if hit.score >= least]
    return first_distinct(found, query.limit, collapse=query.collapse)


def first_distinct(found: list[Found], limit: int, *, collapse: bool) -> list[Found]:
    """The first `limit` hits; a record once (its best chunk), and with collapse a content once."""
    chosen: list[Found] = []
    seen: set[tuple[int, int] | bytes] = set()
    for hit in found:
        place = hit.partition, hit.offset
        if place in seen or (collapse and hit.content in seen):
            continue
        seen.add(place)
        seen.add(hit.content)
        chosen.append(hit)
        if len(chosen) == limit:
            break
    return chosen


def _search_together(parts: Sequence[Part], query: IndexQuery, vector: Float32) -> list[Found]:
    """Where each node has records of its own: only the nodes that are among the best of all parts are looked up."""
    asked = []
    for part in parts:
        nodes = _nearest(part, min(query.limit, part.matching.nodes), query, vector)
        asked.append((part, nodes, similarities(part.view.rows(nodes), vector, part.settings.metric)))
    scores = np.concatenate([scores for _, _, scores in asked]) if asked else np.empty(0, dtype=np.float32)
    last = len(scores) - query.limit
    floor = np.partition(scores, last)[last] if last > 0 else -np.inf
    found: list[Found] = []
    for part, nodes, of_part in asked:
        kept = of_part >= floor
        if kept.any():
            found += expand(part, nodes[kept], of_part[kept], query.limit, collapse=False)
    return found


def _search_segment(part: Part, query: IndexQuery, vector: Float32) -> list[Found]:
    matching, limit = part.matching, query.limit
    needed = min(limit, matching.nodes if query.collapse else matching.records)
    # A chunk's content may be left only older records, when the newest is a hit by another chunk: then all of them are looked at.
    collapsed_chunks = query.collapse and part.view.columns.chunked
    count = matching.nodes if collapsed_chunks else min(limit, matching.nodes)
    while True:
        nodes = _nearest(part, count, query, vector)
        scores = similarities(part.view.rows(nodes), vector, part.settings.metric)
        found = expand(part, nodes, scores, limit, collapse=query.collapse)
        hits = len({hit.content for hit in found}) if query.collapse else len({hit.offset for hit in found})
        if hits >= needed or count >= matching.nodes:
            return found
        count = min(count * 4, matching.nodes)  # chunks of the same few records filled the list


def _nearest(part: Part, count: int, query: IndexQuery, vector: Float32) -> Int64:
    """At least the `count` nearest nodes that match."""
    view, matching, counters = part.view, part.matching, part.counters
    if view.graph_trust and not query.exact and matching.nodes > part.settings.exact_matches_max:
        nodes = _ask_graph(view, matching, count, query.ef, vector)
        if nodes is not None:
            counters.graph += 1
            return nodes
        counters.graph_refused += 1
    counters.exact += 1
    return view.exact(vector, matching.mask, count)


def fetch_count(depth: int) -> int:
    """Nodes to fetch for the first `depth`: sq8 codes misplace some, rescoring puts them right."""
    return 2 * depth + 32


def _ask_graph(view: SegmentView, matching: Matches, count: int, ef: int, vector: Float32) -> Int64 | None:
    """The nearest matching nodes and more, or None when the graph cannot vouch for `count` of them."""
    if matching.mask is None and ef > 0:
        # The caller chose the width, and with it the recall.
        nodes, _ = view.graph(vector, min(fetch_count(count), max(ef, count)), ef)
        return nodes if len(nodes) >= count else None
    wanted_depth = count
    if matching.mask is not None:
        # Where the filter is independent of the query, the last of `count` matches lies here, give or take a few.
        wanted_depth = math.ceil(1.5 * count * view.columns.node_count / matching.nodes)
    searched = 0
    for trust in view.graph_trust:
        level = trust.width_for(wanted_depth)
        if level is None:
            return None
        width, depth = level
        if width > searched:
            nodes, near = view.graph(vector, fetch_count(depth), max(width, ef))
            searched = width
        if near >= trust.closeness_min:
            if matching.mask is None:
                return nodes[: fetch_count(count)] if len(nodes) >= count else None
            passed = matching.mask[nodes]
            return nodes[passed] if np.count_nonzero(passed[:depth]) >= count else None
    return None


def expand(part: Part, nodes: Int64, scores: Float32, limit: int, *, collapse: bool) -> list[Found]:
    """Records of the best nodes, best first, until the limit is reached and the next node is strictly worse."""
    view, matching = part.view, part.matching
    order = np.argsort(-scores, kind="stable")
    columns = view.columns
    found: list[Found] = []
    offsets: set[int] = set()
    last = math.inf
    collapsed_chunks = collapse and columns.chunked
    most = 1 if collapse and not columns.chunked else limit
    for place in order:
        score = float(scores[place])
        if len(offsets) >= limit and score < last and not collapsed_chunks:
            break
        last = score
        node = int(nodes[place])
        content = view.hashes_of(nodes[place : place + 1])[0]
        for posting in newest(columns, matching.of(view.postings_of(node)), most):
            offset = int(columns.offsets[posting])
            offsets.add(offset)
            time = int(columns.timestamps_ms[posting])
            found.append(Found(score, time, part.partition, offset, content, part, int(posting)))
    return found


def count_duplicates(parts: Sequence[Part], contents: list[bytes]) -> dict[bytes, int]:
    """How many matching records each content has, over all parts."""
    counts = dict.fromkeys(contents, 0)
    hashes = list(counts)
    for part in parts if hashes else ():
        columns = part.view.columns
        for content, node in zip(hashes, part.view.nodes_of(hashes), strict=True):
            if node >= 0:
                postings = part.matching.of(part.view.postings_of(int(node)))
                counts[content] += distinct(columns.offsets[postings]) if columns.chunked else len(postings)
    return counts
