"""What to do with the segments of an index next. Pure: sizes in, a plan out."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from vector.index.settings import POSTINGS_PER_ROW_MAX, IndexSettings

MERGE_MIN = 8
"""Neighbours merged at a time. Until then they are scanned, 0.022 ms for 1,000 vectors: at most 2 ms."""
MUCH_SMALLER = 0.7
"""Sealed segments differ by less in size: the run that fills one is indexed whole."""
DEAD_FRACTION_MAX = 0.2
Lane = Literal["seal", "merge"]
LANES: tuple[Lane, ...] = ("seal", "merge")
"""Builds of an index that may go on at the same time, one in each: a seal reads a frozen segment, all others read sealed ones, so that
whichever ends first may be swapped in first."""


@dataclass(slots=True, frozen=True)
class SegmentFacts:
    """What planning needs to know of a segment. `dead`: postings of records that the log has no more; `age_s`: since the first append;
    `graph`: whether it has one, to which a build adds what follows instead of making a new one."""

    identity: int
    kind: Literal["growing", "frozen", "sealed"]
    base_offset: int
    next_offset: int
    nodes: int
    postings: int
    dead: int = 0
    age_s: float = 0.0
    graph: bool = False


@dataclass(slots=True, frozen=True)
class Plan:
    """Build one sealed segment out of neighbouring segments, which it replaces."""

    reason: Literal["seal", "merge", "rebuild"]
    sources: tuple[int, ...]

    @property
    def lane(self) -> Lane:
        return "seal" if self.reason == "seal" else "merge"


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


def next_plan(
    segments: Sequence[SegmentFacts], settings: IndexSettings, lanes: Collection[Lane] = LANES
) -> Plan | None:
    """The most useful build of these lanes, None when there is none: seal first (it frees memory), then rebuild, then merge."""
    frozen = next((segment for segment in segments if segment.kind == "frozen"), None)
    if frozen is not None and "seal" in lanes:
        return Plan("seal", (frozen.identity,))
    if "merge" not in lanes:
        return None
    for segment in segments:
        if segment.kind == "sealed" and DEAD_FRACTION_MAX * segment.postings < segment.dead:
            return Plan("rebuild", (segment.identity,))
    sealed = [segment for segment in segments if segment.kind == "sealed"]
    return _extension_plan(sealed, settings) or _merge_plan(sealed, settings)


def _extension_plan(sealed: Sequence[SegmentFacts], settings: IndexSettings) -> Plan | None:
    """A graph and the first `MERGE_MIN` segments behind it, where they have none: so that each vector goes into a graph once."""
    for first in range(len(sealed) - MERGE_MIN):
        graph, *others = sealed[first : first + 1 + MERGE_MIN]
        if not graph.graph or graph.dead or any(segment.graph for segment in others):
            continue
        if graph.nodes + sum(segment.nodes for segment in others) <= settings.segment_rows_max:
            return Plan("merge", tuple(segment.identity for segment in (graph, *others)))
    return None


def _merge_plan(sealed: Sequence[SegmentFacts], settings: IndexSettings) -> Plan | None:
    """The smallest window of neighbours that is worth merging: no member more than half of it, so that work stays logarithmic. Of windows
    about as small the first: a few segments between two large ones would stay so, and be scanned, for ever."""
    choice: Sequence[SegmentFacts] = ()
    for first in range(len(sealed)):
        total, largest = 0, 0
        for end in range(first, len(sealed)):
            total += sealed[end].nodes
            largest = max(largest, sealed[end].nodes)
            if total > settings.segment_rows_max:
                break
            enough = end - first + 1 >= MERGE_MIN and 2 * largest <= total
            if enough and (not choice or total < MUCH_SMALLER * sum(segment.nodes for segment in choice)):
                choice = sealed[first : end + 1]
    return Plan("merge", tuple(segment.identity for segment in choice)) if choice else None
