"""Hybrid search: the nearest records and those with the words, made one ranking. The lists hold each text once, so that a line that
was logged a thousand times takes one place in each, not all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vector.arrays import Float32
from vector.index.hits import RecordHit
from vector.index.scan import singles
from vector.index.scoring import similarities
from vector.index.search import Found, Part, expand, ranked
from vector.request import Fusion

RANK_CONSTANT = 60
"""Of reciprocal rank fusion: 1 / (60 + rank), as published (Cormack, Clarke, Buettcher, SIGIR 2009)."""
CANDIDATES_MIN = 100
"""Distinct texts of each list that are fused, or twice as many as there should be hits."""


@dataclass(slots=True)
class Fused:
    """A record in the lists. `text_score` and the ranks, from 1, where it is in that list."""

    hit: RecordHit
    similarity: float
    text_score: float | None = None
    vector_rank: int | None = None
    text_rank: int | None = None
    score: float = 0.0


def fuse(
    near: Sequence[RecordHit], worded: Sequence[RecordHit], fusion: Fusion, vector_weight: float, *, by_text: bool
) -> list[Fused]:
    """All of both lists, best first; each list holds a record once, and with `by_text` a text, for which another of its records may
    stand in the other list: by words its score in two partitions differs in the last digit. Those of `worded` have their similarity."""

    def key(hit: RecordHit) -> object:
        return hit.content if by_text else (hit.partition, hit.offset)

    records = {key(hit): Fused(hit, hit.score, vector_rank=rank) for rank, hit in enumerate(near, start=1)}
    for rank, hit in enumerate(worded, start=1):
        assert hit.similarity is not None
        record = records.setdefault(key(hit), Fused(hit, hit.similarity))
        record.text_score, record.text_rank = hit.score, rank
    fused = list(records.values())
    if fusion == "rrf":
        for record in fused:
            near_part, worded_part = _reciprocal(record.vector_rank), _reciprocal(record.text_rank)
            record.score = vector_weight * near_part + (1 - vector_weight) * worded_part
    else:
        _weigh(fused, vector_weight)
    return sorted(fused, key=lambda record: -record.score)


def similarities_of(hits: Sequence[Found], vector: Float32) -> list[float]:
    """For each hit that of its record's nearest piece."""
    of_part: dict[int, list[int]] = {}
    for place, hit in enumerate(hits):
        of_part.setdefault(id(hit.part), []).append(place)
    found = [0.0] * len(hits)
    for places in of_part.values():
        part = hits[places[0]].part
        offsets = np.array([hits[place].offset for place in places])
        firsts = np.searchsorted(part.view.columns.offsets, offsets)
        counts = np.searchsorted(part.view.columns.offsets, offsets, side="right") - firsts
        starts = np.cumsum(counts) - counts
        rows = np.arange(counts.sum()) + np.repeat(firsts - starts, counts)
        nodes = part.view.columns.nodes[rows].astype(np.int64)
        scores = similarities(singles(part.view.rows(nodes)), vector, part.settings.metric)
        for place, score in zip(places, np.maximum.reduceat(scores, starts).tolist(), strict=True):
            found[place] = score
    return found


def _reciprocal(rank: int | None) -> float:
    return 0.0 if rank is None else 1.0 / (RANK_CONSTANT + rank)


def _weigh(records: Sequence[Fused], vector_weight: float) -> None:
    """Both scores stretched to 0..1 over all candidates; one without the words has none of them."""
    near = _stretched([record.similarity for record in records])
    worded = _stretched([record.text_score or 0.0 for record in records])
    for record, one, other in zip(records, near, worded, strict=True):
        record.score = vector_weight * one + (1 - vector_weight) * other


def _stretched(values: Sequence[float]) -> list[float]:
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]


def chunked(parts: Sequence[Part]) -> bool:
    """Whether a record may have several texts: then the lists are of records, each with its own similarity, and not of texts."""
    return any(part.view.columns.chunked for part in parts)


def of_same_text(parts: Sequence[Part], texts: Sequence[tuple[bytes, float]], limit: int) -> list[tuple[int, Found]]:
    """The first `limit` records of texts (content hash, score; best first), in order, each with the place of its text."""
    if not texts:
        return []
    contents, scores = [content for content, _ in texts], np.array([score for _, score in texts])
    found = []
    for part in parts:
        nodes = part.view.nodes_of(contents)
        here = nodes >= 0
        matching = here if part.matching.mask is None else here & part.matching.mask[nodes]
        if matching.any():
            found.append(expand(part, nodes[matching], scores[matching], limit, collapse=False))
    numbers = {content: number for number, content in enumerate(contents)}
    return [(numbers[hit.content], hit) for hit in ranked(found, limit, collapse=False)]
