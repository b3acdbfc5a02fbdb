"""Which segments a log no longer keeps: a pure decision over its segments, oldest first."""

from collections.abc import Sequence

from storage.config import LogConfig
from storage.segment import Segment


def plan_retention(
    segments: Sequence[Segment],
    config: LogConfig,
    *,
    log_start_offset: int,
    tail_bytes: int,
    now_ms: int,
) -> int:
    """How many segments to drop from the front.

    As Kafka: those below the log's start; with the policy `delete` also those whose newest record is older than
    retention.ms, and those without which the log is still at least retention.bytes long. The last segment goes only
    when nothing newer is waiting to be written to it. Records without a time (-1) have no age: only size removes them,
    where Kafka goes by the file's.
    """
    deletes = "delete" in config.cleanup_policy
    total = sum(segment.size for segment in segments) + tail_bytes
    removable = len(segments) if tail_bytes == 0 else len(segments) - 1
    count = 0
    for segment in segments[:removable]:
        below_start = segment.end_offset <= log_start_offset
        expired = deletes and segment.max_timestamp >= 0 and 0 <= config.retention_ms < now_ms - segment.max_timestamp
        last = count == len(segments) - 1
        too_much = deletes and not last and 0 <= config.retention_bytes <= total - segment.size
        if not (below_start or expired or too_much):
            break
        total -= segment.size
        count += 1
    return count


def rolls_by_age(segment: Segment, config: LogConfig, now_ms: int) -> bool:
    """Whether the newest segment is closed because of its age, so that retention or compaction can take it."""
    return not segment.sealed and 0 <= segment.first_timestamp < now_ms - config.roll_ms
