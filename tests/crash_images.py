"""What a crash at any file operation would leave of a folder on a real disk: `SimulatedFileSystem`'s counterpart for code that has
libraries write its files (FAISS, tantivy), which no simulated disk can hold.

A kill leaves all that was written; a power failure may take whatever was not synced: contents, torn or whole, and names.
"""

import io
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

SECTOR = 512
OPERATIONS = ("mkdir", "rmdir", "unlink", "remove", "rename", "replace", "fsync", "write", "ftruncate")


class WatchedFolder:
    """Calls `on_step(name of the operation)` before every operation that changes something below `root`, and after the last one.

    One step at a time, from whichever thread: no watched operation goes on while `on_step` looks at the folder.
    """

    def __init__(self, root: Path, on_step: Callable[[str], None]) -> None:
        self.root = root
        self.steps = 0
        self._on_step = on_step
        self._lock = threading.RLock()
        self._within = False
        self._names: dict[int, dict[str, int]] = {}
        """Of each folder (its inode): what its last sync made durable."""
        self._contents: dict[int, bytes] = {}
        self._held: dict[int, int] = {}
        """Open descriptors, so that no inode's number is given to another file."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """What was there before is durable. The folder must be left by the operations that this sees."""
        for path, folders, files in os.walk(self.root):
            for name in (".", *folders, *files):
                self._synced(os.path.join(path, name))
        patches = [patch.object(os, name, self._wrapped(name, getattr(os, name))) for name in OPERATIONS]
        patches.append(patch.object(io, "open", self._opened(io.open)))
        try:
            for one in patches:
                one.start()
            yield
            self.step("the end")
        finally:
            for one in patches:
                one.stop()
            for descriptor in self._held.values():
                os.close(descriptor)

    def step(self, name: str) -> None:
        """As if an operation were about to happen: for what is not one of the disk's."""
        with self._lock:
            if not self._within:
                self._within = True
                try:
                    self.steps += 1
                    self._on_step(name)
                finally:
                    self._within = False

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, **options: Any) -> Any:
            with self._lock:
                if not self._below(target, options.get("dir_fd", options.get("src_dir_fd"))):
                    return real(target, *arguments, **options)
                if self._within:
                    return None if name == "fsync" else real(target, *arguments, **options)
                self.step(name)
                if name == "write" and len(arguments[0]) > 1:  # a write is not atomic
                    written = real(target, memoryview(arguments[0])[: len(arguments[0]) // 2])
                    self.step("half a write")
                    return written
                if name == "fsync":  # the real one would only cost time
                    self._synced(f"/proc/self/fd/{target}")
                    return None
                return real(target, *arguments, **options)

        return call

    def _opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if mode not in ("r", "rb") and not isinstance(path, int) and self._below(path, None):
                self.step("open")
            return real(path, mode, *arguments, **options)

        return call

    def _below(self, target: Any, folder: int | None) -> bool:
        if isinstance(target, int):
            path = os.readlink(f"/proc/self/fd/{target}")
        else:
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}") if folder is not None else "", target)
        return os.path.abspath(path).startswith(f"{self.root}{os.sep}") or path == str(self.root)

    def _synced(self, path: str) -> None:
        state = os.stat(path)
        self._hold(path, state.st_ino)
        if stat.S_ISDIR(state.st_mode):
            self._names[state.st_ino] = {entry.name: entry.inode() for entry in os.scandir(path)}
            for name, inode in self._names[state.st_ino].items():
                self._hold(os.path.join(path, name), inode)
        else:
            self._contents[state.st_ino] = Path(path).read_bytes()

    def _hold(self, path: str, inode: int) -> None:
        if inode not in self._held:
            self._held[inode] = os.open(path, os.O_RDONLY)

    # Images

    def after_kill(self, target: Path) -> None:
        """Makes `target` what the folder is now."""
        shutil.copytree(self.root, target)

    def after_power_failure(self, target: Path, chance: Random) -> None:
        """Makes `target` what a disk may hold after the power has failed now."""
        self._fill(os.stat(self.root).st_ino, str(self.root), target, chance)

    def _fill(self, inode: int, now: str | None, target: Path, chance: Random) -> None:
        target.mkdir()
        current = {entry.name: entry.inode() for entry in os.scandir(now)} if now else {}
        durable = self._names.get(inode, {})
        for name in sorted({*current, *durable}):
            choice = chance.choice([current.get(name), durable.get(name)])
            if choice is None:
                continue
            path = os.path.join(now, name) if now and current.get(name) == choice else None
            source = path or f"/proc/self/fd/{self._held[choice]}"
            if stat.S_ISDIR(os.stat(source).st_mode):
                self._fill(choice, source, target / name, chance)
            else:
                (target / name).write_bytes(self._survived(choice, Path(source).read_bytes(), chance))

    def _survived(self, inode: int, current: bytes, chance: Random) -> bytes:
        durable = self._contents.get(inode, b"")
        if current == durable:
            return current
        fate = chance.random()
        if fate < 0.3:
            return durable
        if fate < 0.5:
            return current
        if fate < 0.7:
            appended = current.startswith(durable)
            return current[: chance.randint(len(durable) if appended else 0, len(current))]
        hole = (
            chance.randrange(len(current) + 1) // SECTOR * SECTOR
        )  # the disk orders nothing: any sector may be missing
        kept = durable[hole : hole + SECTOR].ljust(min(SECTOR, len(current) - hole), b"\0")
        return current[:hole] + kept + current[hole + SECTOR :]
