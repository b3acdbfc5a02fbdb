"""The builder: seals and merges for all indexes of a worker, off the search path; its long calls run at the lowest priority."""

import threading
from collections import deque
from collections.abc import Callable

from vector.heap import return_freed
from vector.index.build import Built
from vector.index.partition_index import BuildTask, PartitionIndex
from vector.index.planner import LANES, Lane

CLOSE_TIMEOUT_S = 1.0
"""A graph under construction cannot be interrupted; its thread is a daemon and its files are removed at the next open."""


class Builder:
    """Plans, builds and swaps. `submit` and `close` belong to the owner of the indexes.

    `post` runs a callback in the owner's thread (as `loop.call_soon_threadsafe` does): plans and swaps happen there, one at a time, only
    the builds themselves here: by one thread that seals and one that merges, so that no seal, of whichever index, waits for a merge, which
    may take minutes where others want the processor. An index has at most one task of each, so the queues are bounded by the number of
    indexes.
    """

    def __init__(
        self, post: Callable[[Callable[[], None]], object], on_swap: Callable[[PartitionIndex], None] | None = None
    ) -> None:
        self._post = post
        self._on_swap = on_swap
        self._tasks: dict[Lane, deque[tuple[PartitionIndex, BuildTask]]] = {lane: deque() for lane in LANES}
        self._changed = threading.Condition()
        self._closed = False
        self._threads: dict[Lane, threading.Thread] = {}

    def submit(self, index: PartitionIndex) -> bool:
        """Starts what there is to build of `index` now, and after it all that follows from it; False when there is nothing to do."""
        started = False
        while not self._closed and (task := index.plan()) is not None:
            self._start(index, task)
            started = True
        return started

    def _start(self, index: PartitionIndex, task: BuildTask) -> None:
        lane = task.plan.lane
        with self._changed:
            self._tasks[lane].append((index, task))
            self._changed.notify_all()
        if lane not in self._threads:
            thread = threading.Thread(target=self._run, args=(lane,), name=f"index-{lane}", daemon=True)
            self._threads[lane] = thread
            thread.start()

    def forget(self, index: PartitionIndex) -> None:
        """Takes the waiting tasks of an index that is about to be closed back; the swap of one under way does nothing."""
        with self._changed:
            for lane, tasks in self._tasks.items():
                self._tasks[lane] = deque(entry for entry in tasks if entry[0] is not index)

    def close(self) -> None:
        """Stops after the builds under way, without waiting long for them."""
        with self._changed:
            self._closed = True
            for tasks in self._tasks.values():
                tasks.clear()
            self._changed.notify_all()
        for thread in self._threads.values():
            thread.join(CLOSE_TIMEOUT_S / len(LANES))

    def _run(self, lane: Lane) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._tasks[lane]) or self._closed)
                if self._closed:
                    return
                index, task = self._tasks[lane].popleft()
            outcome: Built | Exception
            try:
                outcome = index.build(task)
            except Exception as error:  # of FAISS, tantivy or the disk: without this thread nobody would build
                outcome = error
            with self._changed:
                if self._closed:
                    return
            self._post(_Finish(self, index, task, outcome))
            del index, task, outcome  # else what was merged stays mapped until the next merge
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
