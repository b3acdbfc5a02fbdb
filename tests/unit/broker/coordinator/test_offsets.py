"""When committed offsets expire (KIP-211)."""

import pytest

from broker.coordinator.classic_group import ClassicGroup
from broker.coordinator.group_metadata import GroupMetadata, MemberMetadata
from broker.coordinator.group_state import GroupLimits
from broker.coordinator.offsets import OffsetTable, expired_offsets
from broker.coordinator.records import CommittedOffset, GroupRecord

RETENTION_MS = 1000
READS_X = b"\x00\x00\x00\x00\x00\x01\x00\x01x\xff\xff\xff\xff"


def member(subscription: bytes) -> MemberMetadata:
    return MemberMetadata("m", None, "c", "/h", 1000, 1000, subscription, b"")


def group(protocol_type: str | None, *, members=(), state_timestamp_ms=0) -> ClassicGroup:
    restored = ClassicGroup("g", GroupLimits(10, 0), time_ms=lambda: 0, new_id=str)
    restored.take_up(
        GroupRecord("g", GroupMetadata(1, protocol_type, "range", None, state_timestamp_ms, tuple(members)))
    )
    return restored


def table(*commits: tuple[str, int, int]) -> OffsetTable:
    """(topic, commit time, own expiry or -1)"""
    offsets = OffsetTable()
    for topic, committed_ms, expires_ms in commits:
        offsets.put(topic, 0, CommittedOffset(5, -1, "", committed_ms, expires_ms))
    return offsets


@pytest.mark.parametrize(
    ("case", "now_ms", "expected"),
    [
        (group(None), 1100, ["x"]),  # never had members: each by its own commit
        (group("consumer", state_timestamp_ms=500), 1499, []),  # empty: all from the moment it became empty
        (group("consumer", state_timestamp_ms=500), 1500, ["x", "y"]),
        (group("consumer", state_timestamp_ms=-1), 1100, ["x"]),
        (group("consumer", members=[member(READS_X)]), 10_000, ["y"]),  # Stable: topics it no longer reads
        (group("consumer", members=[member(b"?")]), 10_000, []),  # unreadable: nothing while it lives
        (group("connect", members=[member(READS_X)]), 10_000, []),
    ],
)
def test_retention(case, now_ms, expected) -> None:
    """Retention runs from the commit or from when the group became empty, never for what a live group reads."""
    offsets = table(("x", 100, -1), ("y", 200, -1))
    expired = expired_offsets(case, offsets, now_ms=now_ms, retention_ms=RETENTION_MS)
    assert [topic for topic, _ in expired] == expected


def test_own_retention_wins() -> None:
    """An offset committed with retention_time_ms goes by that, in both directions."""
    offsets = table(("early", 100, 150), ("late", 100, 99_000))
    assert expired_offsets(group(None), offsets, now_ms=5000, retention_ms=RETENTION_MS) == [("early", 0)]


def test_the_table_forgets_empty_topics() -> None:
    """A topic without offsets is not listed."""
    offsets = table(("x", 1, -1))
    offsets.remove("x", 3)
    assert offsets.topics() == ["x"]
    offsets.remove("x", 0)
    assert not offsets
    assert list(offsets) == []
