"""Where in the life of its indexes a vector worker is, as it tells itself in a small mapped file that outlives it.

So whoever kills it can wait for a step, and can say afterwards in which one it died. Its segments are small, so that a minute has
hundreds of these steps, and merged ones have graphs. Nothing of the product is changed for that: `marked_worker` puts it around it.
"""

import functools
import inspect
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIABLE = "SENSELOG_CRASH_MARKS"
"""A folder; each worker has a file there, named by its process id."""
FOLDER = Path(__file__).parent / "marked_worker"
STEPS = ("seal", "merge", "rebuild", "manifest", "upload", "restore", "cut-over")
SMALL = {"growing_rows_max": 50, "exact_matches_max": 100, "segment_rows_max": 1500}
MERGED_AT_ONCE = 4
UPLOAD_DELAY_S = 0.3


class Marks:
    """A worker's own: one byte for each step, how many threads and tasks are in it."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(len(STEPS)))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), len(STEPS))
        self._lock = threading.Lock()

    def change(self, step: str, by: int) -> None:
        """Into it, or out of it."""
        with self._lock:
            self._bytes[STEPS.index(step)] += by


def steps_of(folder: Path, process_id: int) -> list[str]:
    """The steps that a worker is in, or was in when it died."""
    path = folder / str(process_id)
    data = path.read_bytes() if path.exists() else b""
    return [step for step, count in zip(STEPS, data, strict=False) if count]


def install(folder: Path) -> None:
    """In the worker, before anything runs."""
    from vector import persistence
    from vector.index import manifest, planner
    from vector.index.partition_index import PartitionIndex
    from vector.index.settings import IndexSettings
    from vector.index.stored import StoredIndex
    from vector.topic_index import TopicIndex

    marks = Marks(folder / str(os.getpid()))
    make = IndexSettings.__init__
    IndexSettings.__init__ = functools.partialmethod(make, **SMALL)  # type: ignore[method-assign,assignment]
    planner.MERGE_MIN = MERGED_AT_ONCE
    persistence.DELAY_S = UPLOAD_DELAY_S
    _mark(marks, PartitionIndex, "build", lambda _, task: task.plan.reason)
    _mark(marks, manifest, "store", lambda *_: "manifest")
    _mark(marks, StoredIndex, "put", lambda *_: "upload")
    _mark(marks, StoredIndex, "restore", lambda *_: "restore")
    _mark(marks, TopicIndex, "_switch", lambda *_: "cut-over")
    _mark(marks, TopicIndex, "_settle", lambda *_: "cut-over")


def _mark(marks: Marks, owner: Any, name: str, step_of: Callable[..., str]) -> None:
    real = getattr(owner, name)

    @functools.wraps(real)
    def call(*arguments: Any) -> Any:
        step = step_of(*arguments)
        marks.change(step, 1)
        try:
            return real(*arguments)
        finally:
            marks.change(step, -1)

    @functools.wraps(real)
    async def wait(*arguments: Any) -> Any:
        step = step_of(*arguments)
        marks.change(step, 1)
        try:
            return await real(*arguments)
        finally:
            marks.change(step, -1)

    setattr(owner, name, wait if inspect.iscoroutinefunction(real) else call)
