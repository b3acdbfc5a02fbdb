"""How much of what is freed glibc's heap keeps. Elsewhere nothing happens.

An index is built out of large pieces that live for seconds, in several threads: left to itself, glibc had 160 MB free, and resident, after a
million vectors had been indexed, and twice that while they were.
"""

import ctypes
import os
from typing import Any

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
MAPPED_BYTES_MIN = 1 << 20
"""What is as large comes from the kernel and goes back to it. glibc raises its own bound up to 32 MB, the size of what was freed last."""
ARENAS = 2
"""Of all threads together; each keeps what was freed in it. The default is eight for each core."""


def keep_small() -> None:
    """For this process, from now on: call it before there are threads."""
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
        mallopt(M_ARENA_MAX, ARENAS)


def return_freed() -> None:
    """Gives the kernel what is free now."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
