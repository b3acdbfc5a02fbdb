"""Whose workers may write indexes. A broker that was killed leaves workers behind, for as long as they take to checkpoint and end: two
processes with one index would write over one another's files, under the names of what the other one searches."""

import asyncio
from pathlib import Path

import structlog

from storage.errors import DirectoryLocked
from storage.file_system import OsFile, OsFileSystem

LOCK_NAME = "vector.lock"
"""Beside the folder of the indexes, which anyone may delete."""
POLL_S = 0.05
logger = structlog.get_logger(__name__)


class WorkerFolder:
    """The lock, as long as any process has it: workers inherit it from the broker that starts them, and keep it when that is gone."""

    def __init__(self, data_directory: Path) -> None:
        self._path = data_directory / LOCK_NAME
        self._lock: OsFile | None = None

    async def own(self) -> int:
        """The lock's descriptor. Waits for workers that another broker has left behind. Raises OSError."""
        told = False
        while (descriptor := self.own_now()) is None:
            if not told:
                logger.warning("workers of the broker before have not ended yet", lock=str(self._path))
            told = True
            await asyncio.sleep(POLL_S)
        return descriptor

    def own_now(self) -> int | None:
        """The lock's descriptor; None while others have it. Raises OSError."""
        if self._lock is None:
            try:
                self._lock = OsFileSystem().lock(self._path)
            except DirectoryLocked:
                return None
        return self._lock.descriptor

    def close(self) -> None:
        """What this process has of it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
