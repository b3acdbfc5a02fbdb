"""The newest offset of each key in a stretch of a log, within a bound of memory (Kafka: SkimpyOffsetMap)."""

from collections.abc import Sequence
from hashlib import blake2b

DIGEST_BYTES = 32
"""Longer keys are told apart by a digest, which no two of them share; shorter ones are kept as they are."""
ENTRY_BYTES = 160
"""Of memory beside the key itself: the dict's share, the key's and the offset's objects. Measured with keys of 8 to 40 bytes: 95 to 125,
and 156 while the dict grows."""


class OffsetMap:
    """Filled with records in offset order, then only read."""

    __slots__ = ("_memory_bytes", "_memory_bytes_max", "_offsets", "end_offset")

    def __init__(self, memory_bytes_max: int) -> None:
        self._memory_bytes_max = memory_bytes_max
        self._memory_bytes = 0
        self._offsets: dict[bytes, int] = {}
        """By key or digest."""
        self.end_offset = 0
        """All records below have been seen."""

    @property
    def full(self) -> bool:
        """Whether the bound is reached: what comes later has to wait for another run."""
        return self._memory_bytes >= self._memory_bytes_max

    def add(self, keys: Sequence[bytes | None], offsets: Sequence[int], end_offset: int) -> None:
        """Records that follow, up to `end_offset` or until the map is full; at least one. Those without a key leave no trace."""
        known, used, most = self._offsets, self._memory_bytes, self._memory_bytes_max
        for key, offset in zip(keys, offsets, strict=True):
            if key is None:
                continue
            slot = key if len(key) < DIGEST_BYTES else blake2b(key, digest_size=DIGEST_BYTES).digest()
            if slot not in known:
                used += ENTRY_BYTES + len(slot)
            known[slot] = offset
            if used >= most:
                end_offset = offset + 1
                break
        self._memory_bytes, self.end_offset = used, end_offset

    def newest(self, key: bytes) -> int:
        """The newest offset of a key; -1 if it was not seen."""
        slot = key if len(key) < DIGEST_BYTES else blake2b(key, digest_size=DIGEST_BYTES).digest()
        return self._offsets.get(slot, -1)
