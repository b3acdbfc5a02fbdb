"""CPU priority of single threads: work that can wait yields to the broker and to queries."""

import contextlib
import os
import threading
from collections.abc import Callable
from typing import TypeVar

LOWEST_PRIORITY = 19
Result = TypeVar("Result")


def lower_priority(niceness: int) -> None:
    """Makes the calling thread nicer, and those it starts; on Linux alone, elsewhere nothing happens."""
    if hasattr(os, "setpriority"):
        # Linux: a thread id names one thread, where POSIX would mean the process.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def at_lowest_priority(call: Callable[[], Result]) -> Result:
    """Waits for a call, made in a thread of the lowest priority: one that lets go of the interpreter for most of its time, as FAISS's do.

    A thread of low priority that holds the interpreter while the processor is given to others keeps everybody waiting.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        lower_priority(LOWEST_PRIORITY)
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="lowest-priority", daemon=True)
    thread.start()
    thread.join()
    for error in errors:
        raise error
    return results[0]
