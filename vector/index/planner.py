"""What to do with the segments of an index next. Pure: sizes in, a plan out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vector.index.settings import POSTINGS_PER_ROW_MAX, IndexSettings

MERGE_MIN = 4
"""Neighbours merged at a time: each vector is rebuilt log4(160k / 10k) = 2 times."""
DEAD_FRACTION_MAX = 0.2


@dataclass(slots=True, frozen=True)
class SegmentFacts:
    """What planning needs to know of a segment. `dead`: postings of records that the log has no more; `age_s`: since the first append."""

    identity: int
    kind: Literal["growing", "frozen", "sealed"]
    base_offset: int
    next_offset: int
    nodes: int
    postings: int
    dead: int = 0
    age_s: float = 0.0


@dataclass(slots=True, frozen=True)
class Plan:
    """Build one sealed segment out of neighbouring segments, which it replaces."""

    reason: Literal["seal", "merge", "rebuild"]
    sources: tuple[int, ...]


def should_freeze(growing: SegmentFacts, settings: IndexSettings) -> bool:
    """Whether the growing segment is full, or old and worth a segment of its own."""
    if (
        growing.nodes >= settings.growing_rows_max
        or growing.postings >= settings.growing_rows_max * POSTINGS_PER_ROW_MAX
    ):
        return True
    return growing.nodes >= settings.seal_rows_min and growing.age_s >= settings.seal_after_s


def should_drop(segment: SegmentFacts, log_start_offset: int) -> bool:
    """Whether nothing in the segment can be found any more."""
    return segment.kind != "growing" and segment.next_offset <= log_start_offset


def next_plan(segments: Sequence[SegmentFacts], settings: IndexSettings) -> Plan | None:
    """The most useful build, None when there is none: seal first (it frees memory), then rebuild, then merge."""
    for segment in segments:
        if segment.kind == "frozen":
            return Plan("seal", (segment.identity,))
    for segment in segments:
        if segment.kind == "sealed" and DEAD_FRACTION_MAX * segment.postings < segment.dead:
            return Plan("rebuild", (segment.identity,))
    return _merge_plan([s for s in segments if s.kind == "sealed"], settings)


def _merge_plan(sealed: Sequence[SegmentFacts], settings: IndexSettings) -> Plan | None:
    """The smallest window of neighbours that is worth merging: no member more than half of it, so that work stays logarithmic."""
    choice: Sequence[SegmentFacts] = ()
    for first in range(len(sealed)):
        total, largest = 0, 0
        for end in range(first, len(sealed)):
            total += sealed[end].nodes
            largest = max(largest, sealed[end].nodes)
            if total > settings.segment_rows_max:
                break
            enough = end - first + 1 >= MERGE_MIN and 2 * largest <= total
            if enough and (not choice or total < sum(segment.nodes for segment in choice)):
                choice = sealed[first : end + 1]
    return Plan("merge", tuple(segment.identity for segment in choice)) if choice else None
