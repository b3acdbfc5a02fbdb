"""Brings cold log data into the page cache on a thread, so that a lagging consumer never blocks the event loop."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

# More threads would only queue up in the disk; every connection has at most one Fetch in progress, so the queue is
# bounded by `max.connections`.
THREADS = 2

logger = structlog.get_logger(__name__)


class ReadAhead:
    """Threads that wait for the disk instead of the event loop."""

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        """`post` runs a callback on the event loop, from any thread."""
        self._post = post
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="read-ahead")

    def load(self, loads: Sequence[Callable[[], None]], done: Callable[[], None]) -> None:
        """Runs the loads, which give back the GIL while they wait for the disk, then posts `done`."""
        self._threads.submit(self._load, loads, done)

    def _load(self, loads: Sequence[Callable[[], None]], done: Callable[[], None]) -> None:
        try:
            for load in loads:
                load()
        except OSError as error:
            # The pages are then read when they are sent; a disk that fails is found by whoever writes to it.
            logger.warning("read-ahead failed", error=str(error))
        self._post(done)

    def close(self) -> None:
        """Drops what is queued and waits for what is running."""
        self._threads.shutdown(wait=True, cancel_futures=True)
