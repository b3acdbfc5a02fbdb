"""The real disk, where the simulated one cannot stand for it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.record_batch import Record, build_batch, parse_batches
from storage.clock import SystemClock
from storage.config import LogConfig, StorageConfig
from storage.file_system import OsFile, OsFileSystem
from storage.log_manager import LogManager
from storage.worker import InlineWorker


def test_a_cold_read_that_nobody_loads_leaks_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long poll reads again and again until there is enough, and drops what it has read before."""
    turn: list[Callable[[], None]] = []
    manager = LogManager.open(
        tmp_path,
        StorageConfig(wal_file_bytes=1 << 20, min_free_bytes=0),
        clock=SystemClock(),
        file_system=OsFileSystem(),
        post=turn.append,
        new_worker=lambda _: InlineWorker(),
    )
    log = manager.create_log(b"t" * 16, "t", 0, LogConfig())
    data = memoryview(build_batch([Record(0, 1, None, b"v", [])]))
    log.append(data, parse_batches(data), now_ms=1)
    manager.commit()
    manager.checkpoint()
    while turn:
        turn.pop(0)()
    monkeypatch.setattr(OsFile, "resident", lambda *_: False)
    assert log.read(0, 1000, up_to=1, at_least_one=True).cold
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        log.read(0, 1000, up_to=1, at_least_one=True)
    assert len(os.listdir("/proc/self/fd")) == before
    manager.close()
