"""`senselog check` and its repair, on a real directory."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.cli import app
from protocol.record_batch import Record, build_batch, parse_batches
from storage.clock import SystemClock
from storage.config import LogConfig, StorageConfig
from storage.errors import CorruptStorage
from storage.file_system import OsFileSystem
from storage.log_manager import LogManager

runner = CliRunner()


def _open(directory: Path) -> LogManager:
    return LogManager.open(
        directory,
        StorageConfig(wal_file_bytes=1 << 20, min_free_bytes=0),
        clock=SystemClock(),
        file_system=OsFileSystem(),
        post=lambda _: None,
    )


def _fill(directory: Path) -> Path:
    """One log with one segment of two batches; returns the segment."""
    manager = _open(directory)
    log = manager.create_log(b"t" * 16, "t", 0, LogConfig())
    for value in (b"first", b"second"):
        data = memoryview(build_batch([Record(0, 1, None, value, [])]))
        log.append(data, parse_batches(data), now_ms=1)
    manager.close()
    return directory / "t-0" / "00000000000000000000.log"


def test_what_is_damaged_is_named_and_repaired_only_when_asked(tmp_path: Path) -> None:
    segment = _fill(tmp_path)
    assert runner.invoke(app, ["check", str(tmp_path)]).output.endswith("no problems found\n")
    damaged = segment.read_bytes()[:-1]
    segment.write_bytes(damaged)
    found = runner.invoke(app, ["check", str(tmp_path)])
    assert (found.exit_code, segment.name in found.output, segment.read_bytes()) == (1, True, damaged)
    with pytest.raises(CorruptStorage) as refused:
        _open(tmp_path)
    assert f"senselog check {tmp_path} --repair" in str(refused.value)
    repaired = runner.invoke(app, ["check", str(tmp_path), "--repair"])
    assert (repaired.exit_code, segment.name in repaired.output) == (0, True)
    assert [path.read_bytes() for path in segment.parent.glob("*.damaged")] == [damaged]
    manager = _open(tmp_path)
    assert [log.log_end_offset for log in manager.logs()] == [1]
    manager.close()
    assert runner.invoke(app, ["check", str(tmp_path)]).exit_code == 0


def test_a_healthy_directory_needs_no_repair(tmp_path: Path) -> None:
    _fill(tmp_path)
    result = runner.invoke(app, ["check", str(tmp_path), "--repair"])
    assert (result.exit_code, "nothing keeps the broker from starting" in result.output) == (0, True)
