"""The builder: one thread that seals and merges for all indexes of a worker, off the search path; its long calls run at the lowest priority."""

import threading
from collections import deque
from collections.abc import Callable

from vector.heap import return_freed
from vector.index.build import Built
from vector.index.files import DamagedFile
from vector.index.partition_index import BuildTask, PartitionIndex

CLOSE_TIMEOUT_S = 1.0
"""A graph under construction cannot be interrupted; the thread is a daemon and its files are removed at the next open."""


class Builder:
    """Plans, builds and swaps. `submit` and `close` belong to the owner of the indexes.

    `post` runs a callback in the owner's thread (as `loop.call_soon_threadsafe` does): plans and swaps happen there, only the
    build itself here. An index has at most one task, so the queue is bounded by the number of indexes.
    """

    def __init__(
        self, post: Callable[[Callable[[], None]], object], on_swap: Callable[[PartitionIndex], None] | None = None
    ) -> None:
        self._post = post
        self._on_swap = on_swap
        self._tasks: deque[tuple[PartitionIndex, BuildTask]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, index: PartitionIndex) -> bool:
        """Starts the next build of `index`, and after it all that follow from it; False when there is nothing to do."""
        task = None if self._closed else index.plan()
        if task is None:
            return False
        with self._changed:
            self._tasks.append((index, task))
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="index-builder", daemon=True)
            self._thread.start()
        return True

    def forget(self, index: PartitionIndex) -> None:
        """Takes the waiting task of an index that is about to be closed back; the swap of one under way does nothing."""
        with self._changed:
            self._tasks = deque(entry for entry in self._tasks if entry[0] is not index)

    def close(self) -> None:
        """Stops after the build under way, without waiting long for it."""
        with self._changed:
            self._closed = True
            self._tasks.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._tasks) or self._closed)
                if self._closed:
                    return
                index, task = self._tasks.popleft()
            outcome: Built | Exception
            try:
                outcome = index.build(task)
            except (OSError, DamagedFile, RuntimeError, MemoryError) as error:  # FAISS raises RuntimeError
                outcome = error
            with self._changed:
                if self._closed:
                    return
            self._post(_Finish(self, index, task, outcome))
            return_freed()

    def finish(self, index: PartitionIndex, task: BuildTask, outcome: "Built | Exception") -> None:
        """In the owner's thread: makes what was built visible, and goes on with what follows from it."""
        if self._closed:
            return
        if isinstance(outcome, Exception):
            index.abandon(task, outcome)
            return
        index.swap(task, outcome)
        if self._on_swap is not None:
            self._on_swap(index)
        self.submit(index)


class _Finish:
    """The callback that is posted."""

    def __init__(self, builder: Builder, index: PartitionIndex, task: BuildTask, outcome: Built | Exception) -> None:
        self._arguments = (index, task, outcome)
        self._builder = builder

    def __call__(self) -> None:
        self._builder.finish(*self._arguments)
