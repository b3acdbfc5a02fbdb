"""CPU priority of single threads: work that can wait yields to the broker and to queries."""

import contextlib
import os
import threading


def lower_priority(niceness: int) -> None:
    """Makes the calling thread nicer, and those it starts; on Linux alone, elsewhere nothing happens."""
    if hasattr(os, "setpriority"):
        # Linux: a thread id names one thread, where POSIX would mean the process.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
