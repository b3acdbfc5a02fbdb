"""Background threads as a port: the engine hands over whole jobs, a test runs them one by one in any order."""

import queue
import threading
from collections.abc import Callable
from typing import Protocol

from storage.errors import StorageFailure

ALIVE_CHECK_S = 1.0
"""How often who waits for a thread looks whether there still is one: without it the loop would wait for ever."""
Job = Callable[[], None]


class Worker(Protocol):
    """Runs jobs one after the other, in the order of submission."""

    def submit(self, job: Job, delay_s: float = 0.0) -> None:
        """Run `job` later; it must not raise. With a delay: wait that long first (cut short by `close`)."""
        ...

    def wait(self) -> None:
        """Return when the jobs submitted so far are done, without their delays; StorageFailure if they never will be."""
        ...

    def close(self) -> None:
        """Finish the jobs submitted so far; jobs submitted afterwards run at once in the caller."""
        ...


class InlineWorker:
    """Runs every job in the caller: at the start nothing else waits for the loop."""

    def submit(self, job: Job, delay_s: float = 0.0) -> None:  # noqa: ARG002 - the port's
        """Run a job, at once whatever the delay."""
        job()

    def wait(self) -> None:
        """Nothing is ever queued."""

    def close(self) -> None:
        """Nothing is ever queued."""


class ThreadWorker:
    """One thread, started by the first job: a broker without traffic has none."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[tuple[Job, float] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        """Somebody waits: no delays."""
        self._thread: threading.Thread | None = None

    def submit(self, job: Job, delay_s: float = 0.0) -> None:
        """Queue a job."""
        if self._stopping.is_set():
            job()
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put((job, delay_s))

    def wait(self) -> None:
        """Block until the thread has come to the end of its queue."""
        thread = self._thread
        if thread is None:
            return
        done = threading.Event()
        self._hurry.set()
        self._jobs.put((done.set, 0.0))
        while not done.wait(ALIVE_CHECK_S):
            if not thread.is_alive():
                raise StorageFailure(f"the thread {self._name} has ended")
        self._hurry.clear()

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._stopping.set()
        self._hurry.set()
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, delay_s = item
            if delay_s:
                self._hurry.wait(delay_s)
            job()
