"""How much of indexes a worker may hold in memory: beyond it indexing pauses, searches go on (design/vector.md, Memory budget).

What counts is `PartitionIndex.memory_bytes`: rows of growing segments, graphs and columns of sealed ones. The models, their caches and
the segments that are being built (a seal and a merge at a time, in all indexes together) come on top.
"""

import time
from collections.abc import Callable

from vector.index.partition_index import PartitionIndex
from vector.index.settings import Run

MEASURE_INTERVAL_S = 0.5
"""How often it is looked whether there is room again: each time costs some 10 us for each partition."""


class MemoryBudget:
    """One per worker; `opened`, `closed` and `take` belong to the index thread.

    `seal` starts the build of what `PartitionIndex.seal_early` has ended: sealed rows take less than growing ones.
    """

    def __init__(
        self,
        limit_bytes: int | None = None,
        seal: Callable[[PartitionIndex], object] = lambda _: None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit_bytes = limit_bytes
        self._seal = seal
        self._monotonic = monotonic
        self._indexes: set[PartitionIndex] = set()
        self._at_most = 0
        """No less than what is used: builds and retention make it less without telling."""
        self._empty_bytes = 0
        """Of a segment that begins, at most: kept free, so that the one before it can always be ended."""
        self._measure_at = 0.0

    def opened(self, index: PartitionIndex) -> None:
        """Counts an index from now on."""
        self._indexes.add(index)
        self._at_most += index.memory_bytes
        self._empty_bytes = max(self._empty_bytes, index.empty_bytes)

    def closed(self, index: PartitionIndex) -> None:
        """Counts it no more."""
        self._indexes.discard(index)

    def take(self, index: PartitionIndex, run: Run) -> bool:
        """Whether an index may take the run in now; then it counts. Else something is sealed early, where that gives room."""
        if self.limit_bytes is None:
            return True
        more_bytes = index.growth_bytes(run) + index.empty_bytes
        usable_bytes = self.limit_bytes - self._empty_bytes
        if self._at_most + more_bytes > usable_bytes and self._monotonic() >= self._measure_at:
            self._measure_at = self._monotonic() + MEASURE_INTERVAL_S
            self._at_most = self.used_bytes
            if self._at_most + more_bytes > usable_bytes:
                self._make_room(usable_bytes)
        if self._at_most + more_bytes > usable_bytes:
            return False
        self._at_most += more_bytes
        return True

    def _make_room(self, usable_bytes: int) -> None:
        if self._at_most > usable_bytes:
            return
        for index in sorted(self._indexes, key=lambda one: -one.growing_bytes):
            if index.seal_early():
                self._at_most += index.empty_bytes
                self._seal(index)
                return

    @property
    def used_bytes(self) -> int:
        """What all open indexes take. Any thread."""
        return sum(index.memory_bytes for index in list(self._indexes))

    def told(self) -> str:
        """For people: why nothing is indexed."""
        return (
            f"indexing waits for memory: the worker's indexes take {self.used_bytes:,} of the {self.limit_bytes:,} bytes of "
            "vector.worker.memory.bytes; searches go on"
        )

    def status(self) -> dict[str, int | None]:
        """JSON-able. Any thread."""
        return {"memory_bytes": self.used_bytes, "memory_limit_bytes": self.limit_bytes}
