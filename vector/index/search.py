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
from typing import NamedTuple

import faiss
import numpy as np

from vector.arrays import Bool, Float32, Float64, Int64
from vector.index.columns import counting, newest_of_each
from vector.index.query import Candidate, IndexQuery, RecordFilter
from vector.index.scan import singles
from vector.index.scoring import as_rough_scores, similarities
from vector.index.segment import SegmentView
from vector.index.selection import Matches, ReadRecords, of_postings, select
from vector.index.settings import HASH_BYTES, IndexSettings

WIDENED = 4
"""How many times as wide as before a graph is asked next: a walk that has ended in a wrong cluster leads to the right one by a width of 256
(0.4 ms among 330,000), where a query that is far from the data needs 1,024 (2 ms)."""
RESCORED_MIN = 16
"""Of the best by their codes so many are looked at at least, to see how wrong codes are."""
ERRORS_ALLOWED = 3
"""How many times as wrong as those that were looked at others may be: sq8 codes of 384 dimensions err by 0.0005 (standard deviation), at
most by ten times that among 50,000."""
LEAST = np.finfo(np.float32).min
"""Below every similarity."""

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


class Found(NamedTuple):
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


@dataclass(slots=True, frozen=True)
class Rows:
    """Records that were found in a part, in columns and any order: scores float[n], nodes and postings int64[n]."""

    part: Part
    scores: Float32 | Float64
    nodes: Int64
    postings: Int64

    @property
    def records(self) -> int:
        """How many different ones."""
        offsets = self.part.view.columns.offsets[self.postings]
        return len(np.unique(offsets)) if self.part.view.columns.chunked else len(offsets)


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
        found = [_search_segment(part, query, vector) for part in parts]
    else:
        found = _search_together(parts, query, vector)
    return ranked(found, query.limit, collapse=query.collapse, least=query.min_similarity)


def ranked(found: Sequence[Rows], limit: int, *, collapse: bool, least: float | None = None) -> list[Found]:
    """The first `limit` records in order (`Found.order`); a record once, by its best chunk, and with collapse a content once. None whose
    score is below `least`."""
    found = [rows for rows in found if len(rows.scores)]
    if not found:
        return []
    parts = [rows.part for rows in found]
    of_part = counting(len(parts)).repeat([len(rows.scores) for rows in found])
    scores, nodes, postings = (
        np.concatenate([getattr(rows, name) for rows in found]) for name in ("scores", "nodes", "postings")
    )
    columns = [part.view.columns for part in parts]
    offsets = np.concatenate([c.offsets[rows.postings] for c, rows in zip(columns, found, strict=True)])
    times = np.concatenate([c.timestamps_ms[rows.postings] for c, rows in zip(columns, found, strict=True)])
    partitions = np.array([part.partition for part in parts])[of_part]
    keys = (offsets, partitions, -times, -scores)
    if any(c.chunked for c in columns):  # of one record's chunks with the same score the least content
        keys = (np.array(_contents(parts, of_part, nodes), dtype=f"S{HASH_BYTES}"), *keys)  # type: ignore[assignment]
    order = np.lexsort(keys)
    if least is not None and not math.isnan(least):
        order = order[scores[order].astype(np.float64) >= least]
    chosen: list[Found] = []
    seen: set[tuple[int, int] | bytes] = set()
    for start in range(0, len(order), limit):
        next_ones = order[start : start + limit]
        columns_of_next = (scores, times, partitions, offsets, of_part, postings)
        rows_of_next = zip(*(column[next_ones].tolist() for column in columns_of_next), strict=True)
        contents = _contents(parts, of_part[next_ones], nodes[next_ones])
        for (score, time, partition, offset, part, posting), content in zip(rows_of_next, contents, strict=True):
            if (partition, offset) in seen or (collapse and content in seen):
                continue
            seen |= {(partition, offset), content}
            chosen.append(Found(score, time, partition, offset, content, parts[part], posting))
            if len(chosen) == limit:
                return chosen
    return chosen


def _contents(parts: Sequence[Part], of_part: Int64, nodes: Int64) -> list[bytes]:
    """The content hashes of nodes, each of the part of this number."""
    contents = [b""] * len(nodes)
    places_of: dict[int, list[int]] = {}
    for place, number in enumerate(of_part.tolist()):
        places_of.setdefault(number, []).append(place)
    for number, places in places_of.items():
        for place, content in zip(places, parts[number].view.hashes_of(nodes[places]), strict=True):
            contents[place] = content
    return contents


def _search_together(parts: Sequence[Part], query: IndexQuery, vector: Float32) -> list[Rows]:
    """Where each node has records of its own: only the nodes that are among the best of all parts are looked up."""
    nearest_of = [_nearest(part, min(query.limit, part.matching.nodes), query, vector) for part in parts]
    if not nearest_of:
        return []
    ends = np.cumsum([len(nodes) for nodes, _ in nearest_of]).tolist()
    nodes = np.concatenate([nodes for nodes, _ in nearest_of])
    rough = [np.full(len(nodes), np.inf, np.float32) if scores is None else scores for nodes, scores in nearest_of]
    scores = _rescored(parts, ends, nodes, np.concatenate(rough), query.limit, vector)
    last = len(scores) - query.limit
    floor = max(np.partition(scores, last)[last], LEAST) if last > 0 else LEAST
    found, start = [], 0
    for part, end in zip(parts, ends, strict=True):
        kept = scores[start:end] >= floor
        if kept.any():
            found.append(expand(part, nodes[start:end][kept], scores[start:end][kept], query.limit, collapse=False))
        start = end
    return found


def _rescored(
    parts: Sequence[Part], ends: Sequence[int], nodes: Int64, rough: Float32, limit: int, vector: Float32
) -> Float32:
    """Similarities, by the stored vectors, of those nodes that may be among the first `limit`, -inf for others: float32[n].

    `rough`, float32[n]: what codes say of them, inf where an exact scan has found them; those up to `ends[i]` are of part i. To read a
    vector takes 2 us: the best by their codes come first, others where they may be as near, for all that the codes are wrong by.
    """
    metric = parts[0].settings.metric
    scores = np.full(len(nodes), -np.inf, dtype=np.float32)

    def rescore(places: Int64) -> None:
        chosen = np.zeros(len(nodes), dtype=np.bool_)
        chosen[places] = True
        starts = (0, *ends[:-1])
        rows = [part.view.rows(nodes[a:b][chosen[a:b]]) for part, a, b in zip(parts, starts, ends, strict=True)]
        scores[chosen] = similarities(singles(np.concatenate(rows)), vector, metric)

    order = np.argsort(-rough, kind="stable")
    scanned = int(np.count_nonzero(rough == np.inf))
    first = scanned + max(3 * limit // 2, RESCORED_MIN)
    rescore(order[:first])
    others = order[first : scanned + fetch_count(limit)]
    if len(others):
        coded, known = order[scanned:first], scores[order[:first]]
        wrong_by = np.abs(rough[coded] - as_rough_scores(scores[coded], metric)).max()
        nearest_kept = as_rough_scores(np.partition(known, -limit)[-limit], metric)
        others = others[rough[others] >= nearest_kept - ERRORS_ALLOWED * wrong_by]
        if len(others):
            rescore(others)
    return scores


def _search_segment(part: Part, query: IndexQuery, vector: Float32) -> Rows:
    matching, limit = part.matching, query.limit
    needed = min(limit, matching.nodes if query.collapse else matching.records)
    # A chunk's content may be left only older records, when the newest is a hit by another chunk: then all of them are looked at.
    collapsed_chunks = query.collapse and part.view.columns.chunked
    count = matching.nodes if collapsed_chunks else min(limit, matching.nodes)
    while True:
        nodes, _ = _nearest(part, count, query, vector)
        scores = similarities(singles(part.view.rows(nodes)), vector, part.settings.metric)
        found = expand(part, nodes, scores, limit, collapse=query.collapse)
        hits = len(np.unique(found.nodes)) if query.collapse else found.records
        if hits >= needed or count >= matching.nodes:
            return found
        count = min(count * 4, matching.nodes)  # chunks of the same few records filled the list


def _nearest(part: Part, count: int, query: IndexQuery, vector: Float32) -> tuple[Int64, Float32 | None]:
    """At least the `count` nearest nodes that match, and what a graph says of their scores."""
    view, matching, counters = part.view, part.matching, part.counters
    if view.graph_trust and not query.exact and matching.nodes > part.settings.exact_matches_max:
        found = _ask_graph(view, matching, count, query.ef, vector)
        if found is not None:
            counters.graph += 1
            return found
        counters.graph_refused += 1
    counters.exact += 1
    return view.exact(vector, matching.mask, count), None


def fetch_count(depth: int) -> int:
    """Nodes to fetch for the first `depth`: sq8 codes misplace some, rescoring puts them right."""
    return 2 * depth + 32


def _ask_graph(
    view: SegmentView, matching: Matches, count: int, ef: int, vector: Float32
) -> tuple[Int64, Float32] | None:
    """The nearest matching nodes and more, with their scores by the graph, or None when the graph cannot vouch for `count` of them."""
    if matching.mask is None and ef > 0:
        # The caller chose the width, and with it the recall.
        nodes, scores, _ = view.graph(vector, min(fetch_count(count), max(ef, count)), ef)
        return (nodes, scores) if len(nodes) >= count else None
    wanted_depth = count
    if matching.mask is not None:
        # Where the filter is independent of the query, the last of `count` matches lies here, give or take a few.
        wanted_depth = math.ceil(1.5 * count * view.columns.node_count / matching.nodes)
    searched, easier = 0, None
    for trust in view.graph_trust:
        level = trust.width_for(wanted_depth)
        if level is None:
            return None
        width, depth = level
        while searched < width:
            searched = width if easier is None else min(width, WIDENED * searched)
            at_most = depth if searched == width or easier is None else easier[1]
            nodes, scores, near = view.graph(vector, fetch_count(at_most), max(searched, ef))
            if easier is not None and near >= easier[0]:  # the walk before had ended among others
                return _matching(nodes, scores, matching, count, easier[1])
        if near >= trust.closeness_min:
            return _matching(nodes, scores, matching, count, depth)
        easier = (trust.closeness_min, depth)
    return None


def _matching(nodes: Int64, scores: Float32, matching: Matches, count: int, depth: int) -> tuple[Int64, Float32] | None:
    """What passes of a graph's nodes that are believed down to `depth`; None when that is less than `count`."""
    if matching.mask is None:
        first = slice(fetch_count(count))
        return (nodes[first], scores[first]) if len(nodes) >= count else None
    passed = matching.mask[nodes]
    return (nodes[passed], scores[passed]) if np.count_nonzero(passed[:depth]) >= count else None


def expand(part: Part, nodes: Int64, scores: Float32 | Float64, limit: int, *, collapse: bool) -> Rows:
    """Records of the best nodes: the first `limit` in order, and more. Every node must have one that matches."""
    columns = part.view.columns
    if not columns.chunked and len(nodes) > limit:
        best = scores >= np.partition(scores, -limit)[-limit]
        nodes, scores = nodes[best], scores[best]
    places, postings = _matching_postings(part, nodes)
    places, postings = newest_of_each(columns, places, postings, 1 if collapse and not columns.chunked else limit)
    return Rows(part, scores[places], nodes[places], postings)


def _matching_postings(part: Part, nodes: Int64) -> tuple[Int64, Int64]:
    """As `SegmentView.postings_of`, of those that match."""
    places, postings = part.view.postings_of(nodes)
    if part.matching.postings is None:
        return places, postings
    matching = part.matching.postings[postings]
    return places[matching], postings[matching]


def count_duplicates(parts: Sequence[Part], contents: list[bytes]) -> dict[bytes, int]:
    """How many matching records each content has, over all parts."""
    hashes = list(dict.fromkeys(contents))
    counts = np.zeros(len(hashes), dtype=np.int64)
    for part in parts if hashes else ():
        nodes = part.view.nodes_of(hashes)
        known = (nodes >= 0).nonzero()[0]
        if not len(known):
            continue
        places, postings = _matching_postings(part, nodes[known])
        if part.matching.postings is None and len(places) == len(known):
            counts[known] += 1
            continue
        if part.view.columns.chunked:
            offsets = part.view.columns.offsets[postings]
            again = np.zeros(len(places), dtype=np.bool_)
            again[1:] = (places[1:] == places[:-1]) & (offsets[1:] == offsets[:-1])
            places = places[~again]
        counts[known] += np.bincount(places, minlength=len(known))
    return dict(zip(hashes, counts.tolist(), strict=True))
