"""What an index's own searches miss, sampled while it serves: recall@10 of the graph against the exact scan.

Queries are those that were asked lately, else stored vectors. One low-priority thread, at most one hundredth of its time.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vector.arrays import Float32
from vector.index.partition_index import PartitionIndex
from vector.index.query import IndexQuery
from vector.priority import LOWEST_PRIORITY, lower_priority

LIMIT = 10
QUERIES_PER_SAMPLE = 4
QUERIES_KEPT = 100
"""The figure is the mean of as many: two decimals."""
INTERVAL_S = 30.0
DUTY = 100.0
"""After a sample as many times its duration passes: an exact scan of a million vectors takes a tenth of a second."""


class SampledRecall:
    """The outcomes of one partition."""

    def __init__(self) -> None:
        self._outcomes: deque[float] = deque(maxlen=QUERIES_KEPT)

    def add(self, outcomes: Iterable[float]) -> None:
        self._outcomes.extend(outcomes)

    @property
    def value(self) -> float | None:
        """In [0, 1]; None before the first sample."""
        return sum(self._outcomes) / len(self._outcomes) if self._outcomes else None


def sample_recall(index: PartitionIndex, queries: Sequence[Float32]) -> list[float]:
    """Of each query: the share of its `LIMIT` exact hits, or hits as near as those, that the graph finds too. Any thread."""
    outcomes = []
    for vector in queries:
        exact = index.search(IndexQuery(vector=vector, limit=LIMIT, exact=True))
        if not exact:
            continue
        found = index.search(IndexQuery(vector=vector, limit=LIMIT))
        last = exact[-1].similarity  # equal ones may change places
        outcomes.append(sum(hit.similarity >= last for hit in found) / len(exact))
    return outcomes


def stored_queries(index: PartitionIndex, chance: random.Random) -> list[Float32]:
    """float32[d] of some records, where nobody has asked yet."""
    end = index.indexed_offset
    if end <= 0:
        return []
    offsets = [chance.randrange(end) for _ in range(4 * QUERIES_PER_SAMPLE)]
    return list(index.vectors_at(offsets).values())[:QUERIES_PER_SAMPLE]


Sampled = tuple[PartitionIndex, list[Float32], SampledRecall]
"""What is sampled: an index, the latest queries of its topic, where the outcome goes."""


class RecallSampler:
    """Goes round all indexes that have a graph."""

    def __init__(self, indexes: Callable[[], list[Sampled]]) -> None:
        self._indexes = indexes
        self._thread = ThreadPoolExecutor(1, "recall", initializer=lower_priority, initargs=(LOWEST_PRIORITY,))
        self._chance = random.Random()  # noqa: S311 - which records are asked for is no secret

    async def run(self) -> None:
        """Until cancelled."""
        turn = 0
        pause_s = INTERVAL_S
        while True:
            await asyncio.sleep(pause_s)
            indexes = [one for one in self._indexes() if one[0].has_graph]
            if not indexes:
                pause_s = INTERVAL_S
                continue
            index, queries, recall = indexes[turn % len(indexes)]
            turn += 1
            started = time.monotonic()
            outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, self._sample, index, queries)
            recall.add(outcomes)
            pause_s = max(INTERVAL_S / len(indexes), DUTY * (time.monotonic() - started))

    def _sample(self, index: PartitionIndex, queries: list[Float32]) -> list[float]:
        fitting = [query for query in queries if len(query) == index.settings.dimensions]
        chosen: list[Any] = self._chance.sample(fitting, min(QUERIES_PER_SAMPLE, len(fitting)))
        outcomes = sample_recall(index, chosen or stored_queries(index, self._chance))
        index.let_go()  # every vector has been read: more than all that searches by graphs need
        return outcomes

    def close(self) -> None:
        """Drops what has not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)
