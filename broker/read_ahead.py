"""Brings cold log data into the page cache on a thread, so that a lagging consumer never blocks the event loop."""

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

# More threads would only queue up in the disk; every connection has at most one Fetch in progress, so the queue is
# bounded by `max.connections`.
THREADS = 2


class ReadAhead:
    """Touches memory-mapped pages outside the event loop."""

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        """`post` runs a callback on the event loop, from any thread."""
        self._post = post
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="read-ahead")

    def load(self, buffers: Sequence[memoryview], done: Callable[[], None]) -> None:
        """Reads every page of the buffers, then posts `done`."""
        self._threads.submit(self._touch, buffers, done)

    def _touch(self, buffers: Sequence[memoryview], done: Callable[[], None]) -> None:
        for buffer in buffers:
            # A page fault inside Python code would hold the GIL; crc32 gives it back for buffers over 5 KiB.
            zlib.crc32(buffer)
        self._post(done)

    def close(self) -> None:
        """Drops what is queued and waits for what is running."""
        self._threads.shutdown(wait=True, cancel_futures=True)
