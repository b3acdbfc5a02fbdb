"""A record that a search found, wherever its segment lies: what answers are ordered, merged and fused by."""

from typing import NamedTuple


class RecordHit(NamedTuple):
    """`score` is what it sorts by; `piece` says which of the record's `pieces` it is: a long text has several.

    `name`: of its group under collapse, None where it is one of its own. `similarity` where the score is another's.
    """

    score: float
    timestamp_ms: int
    partition: int
    offset: int
    content: bytes
    piece: int
    pieces: int
    flags: int
    name: bytes | None
    similarity: float | None

    @property
    def order(self) -> tuple[float, int, int, int, bytes]:
        """Score falling, timestamp falling, partition, offset (design/search-api.md)."""
        return (-self.score, -self.timestamp_ms, self.partition, self.offset, self.content)
