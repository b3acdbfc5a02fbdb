"""The process of a vector worker. It lives as long as its connection: when the broker goes away, however that is, it ends by itself.

Before its broker runs: a restart is over when a record is found again, which takes the code of both processes, 0.5 s and 0.3 s of a
processor. So where indexes are, their workers are started first, and load theirs while the broker loads its own and recovers its logs.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import vector
from broker.config import Config
from broker.search.folder import WorkerFolder

DIRECTORY = "vector"
"""In the data directory."""
END_POLL_S = 0.005


class WorkerProcess:
    """Starts with the object; has the descriptors of `inherited` too. Raises OSError."""

    def __init__(self, inherited: Sequence[int] = ()) -> None:
        self.connection, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "vector.worker", "--socket-descriptor", str(theirs.fileno())]
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own code
                    command,
                    pass_fds=(theirs.fileno(), *inherited),
                    stdin=subprocess.DEVNULL,
                    env=_environment(),
                )
            except OSError:
                self.connection.close()
                raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """At once; nothing where it has ended."""
        self._process.kill()

    async def ended(self) -> int:
        """Waits for its exit code."""
        while (code := self._process.poll()) is None:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(END_POLL_S)
        return code


@dataclass(frozen=True, slots=True)
class EarlyWorkers:
    """The broker's workers on this machine, by number, with the folder that they may write."""

    folder: WorkerFolder
    processes: tuple[WorkerProcess, ...]


def start_early(config: Config) -> EarlyWorkers | None:
    """For a data directory that has indexes and no workers yet; None for any other, whose workers are started when a topic needs them."""
    data_directory = Path(config.data_dir)
    indexes = data_directory / DIRECTORY
    if not indexes.is_dir() or not any(path.is_dir() for path in indexes.iterdir()):
        return None
    folder = WorkerFolder(data_directory)
    lock = folder.own_now()
    if lock is None:
        return None
    return EarlyWorkers(folder, tuple(WorkerProcess((lock,)) for _ in range(config.vector_workers)))


def _environment() -> dict[str, str]:
    """Our packages first on the worker's path, as the launcher does it; FAISS and the tokenizer start no threads of their own."""
    root = str(Path(str(vector.__file__)).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
