"""What a worker has freed is not resident, though something that lives on lies behind it."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
from pathlib import Path
from vector.heap import keep_small, return_freed

def resident():
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) * 1024

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
{prepare}
libc.free(libc.malloc({size}))  # glibc thinks from this that as large ones come and go
before = resident()
piece = libc.malloc({size})
ctypes.memset(piece, 1, {size})
behind = libc.malloc(2_000)
libc.free(piece)
{finish}
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize(
    ("prepare", "finish", "size"),
    [("keep_small()", "", 8_000_000), ("", "return_freed()", 800_000)],
    ids=["large ones go back at once", "others when asked"],
)
def test_what_is_freed_goes_back_to_the_kernel(prepare: str, finish: str, size: int) -> None:
    program = PROGRAM.format(prepare=prepare, finish=finish, size=size)
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(told.stdout) < size / 2
