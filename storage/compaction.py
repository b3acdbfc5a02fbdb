"""What to compact: a pure decision over a log's segments, oldest first. As Kafka's LogCleanerManager and Cleaner."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from storage.config import LogConfig
from storage.segment import RELATIVE_OFFSET_MAX, Segment


@dataclass(frozen=True, slots=True)
class CompactionPlan:
    """One log's next compaction."""

    segments: tuple[Segment, ...]
    """All that may be rewritten, from the log's first on."""
    first_dirty_offset: int
    """Keys of the records from here on are not known yet."""
    dirty_ratio: float
    """The share of the segments' bytes that lies from there on."""


def plan_compaction(
    segments: Sequence[Segment],
    config: LogConfig,
    *,
    cleaned_offset: int,
    last_stable_offset: int,
    busy: Container[Segment],
    now_ms: int,
) -> CompactionPlan | None:
    """None while it is not worth it, or not allowed.

    Left alone: the active segment, everything from an open transaction on, segments with records younger than
    min.compaction.lag.ms, and `busy` ones, whose files a checkpoint has yet to complete.
    """
    if not config.compacts:
        return None
    cleanable = []
    for segment in segments[:-1]:
        young = config.min_compaction_lag_ms > 0 and segment.max_timestamp > now_ms - config.min_compaction_lag_ms
        if not segment.sealed or segment.end_offset > last_stable_offset or young or segment in busy:
            break
        cleanable.append(segment)
    dirty = [segment for segment in cleanable if segment.end_offset > cleaned_offset]
    if not dirty:
        return None
    ratio = sum(segment.size for segment in dirty) / sum(segment.size for segment in cleanable)
    oldest_ms = min((segment.first_timestamp for segment in dirty if segment.first_timestamp >= 0), default=now_ms)
    overdue = now_ms - oldest_ms > config.max_compaction_lag_ms
    if ratio <= config.min_cleanable_dirty_ratio and not overdue:
        return None
    return CompactionPlan(tuple(cleanable), max(cleaned_offset, dirty[0].base_offset), ratio)


def group_segments(segments: Sequence[Segment], segment_bytes: int) -> Iterator[tuple[Segment, ...]]:
    """Neighbours that become one segment: together no larger than one may be, so that small remains do not pile up."""
    group: list[Segment] = []
    for segment in segments:
        size = sum(member.size for member in group) + segment.size
        if group and (size > segment_bytes or segment.end_offset - group[0].base_offset > RELATIVE_OFFSET_MAX):
            yield tuple(group)
            group = []
        group.append(segment)
    if group:
        yield tuple(group)
