"""The threads of a worker beside its event loop, each for one kind of work."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from vector.priority import lower_priority

SEARCH_THREADS = 2
INDEX_NICENESS = 5


def _index_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "index", initializer=lower_priority, initargs=(INDEX_NICENESS,))


@dataclass(slots=True)
class WorkerThreads:
    """`index` owns every PartitionIndex: it alone appends, checkpoints and swaps. `open` loads models and indexes."""

    index: ThreadPoolExecutor = field(default_factory=_index_thread)
    search: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(SEARCH_THREADS, "search"))
    shards: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(SEARCH_THREADS, "shard"))
    """For searches that other workers run: they wait for these in `search`, so no two workers may wait there for one another."""
    open: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "open"))
    comparing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Indexes are compared with their compacted logs one after the other: after a start all of them are due."""

    def post_to_index(self, callback: Callable[[], None]) -> None:
        """Runs the callback in the index thread, after what is queued there; dropped once the worker closes."""
        with contextlib.suppress(RuntimeError):  # shut down: a build that ends now is made again after the next start
            self.index.submit(callback)

    def close(self) -> None:
        """Waits for what the index thread is doing; everything else is dropped."""
        self.search.shutdown(wait=False, cancel_futures=True)
        self.shards.shutdown(wait=False, cancel_futures=True)
        self.open.shutdown(wait=False, cancel_futures=True)
        self.index.shutdown(wait=True, cancel_futures=False)
