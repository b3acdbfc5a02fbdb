"""Workers that are started before their broker: only where there is work for them, never two with one folder, and they end with it."""

import asyncio
import signal
from pathlib import Path

import pytest

from broker.config import Config
from broker.search.folder import WorkerFolder
from broker.search.supervisor import WorkerSupervisor
from broker.search.worker_process import DIRECTORY, WorkerProcess, start_early
from vector.channel import Channel

WAIT_S = 30.0


def config(directory: Path, workers: int = 1) -> Config:
    return Config.load(None, [f"vector.workers={workers}"], data_dir=directory)


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """A data directory that has an index."""
    (tmp_path / DIRECTORY / ("0" * 32)).mkdir(parents=True)
    return tmp_path


async def ended(process: WorkerProcess) -> int:
    async with asyncio.timeout(WAIT_S):
        return await process.ended()


def test_without_indexes_no_worker_is_started(tmp_path: Path) -> None:
    assert start_early(config(tmp_path / "new")) is None
    (tmp_path / DIRECTORY).mkdir()
    assert start_early(config(tmp_path)) is None
    assert not (tmp_path / "new").exists()


async def test_workers_of_another_broker_are_not_joined_by_others(indexed: Path) -> None:
    """Two processes with one index would write over one another's files."""
    other = WorkerFolder(indexed)
    await other.own()
    assert start_early(config(indexed)) is None
    other.close()
    early = start_early(config(indexed))
    assert early is not None
    assert WorkerFolder(indexed).own_now() is None
    early.folder.close()
    assert WorkerFolder(indexed).own_now() is None  # its worker has it still
    early.processes[0].connection.close()
    await ended(early.processes[0])
    folder = WorkerFolder(indexed)
    assert folder.own_now() is not None
    folder.close()


async def test_they_end_by_themselves_when_their_broker_does_not_start(indexed: Path) -> None:
    early = start_early(config(indexed, workers=2))
    assert early is not None
    for process in early.processes:
        process.connection.close()
        assert await ended(process) == 0
    early.folder.close()


async def test_an_early_process_is_the_supervisors_first(indexed: Path) -> None:
    """And when it has died, the next one is started as ever."""
    early = start_early(config(indexed))
    assert early is not None
    prepared: asyncio.Queue[int | None] = asyncio.Queue()

    async def prepare(channel: Channel) -> None:
        await channel.call("ping", None)
        prepared.put_nowait(supervised.process_id)

    supervised = WorkerSupervisor({}, prepare, own=early.folder.own, early=early.processes[0])
    supervised.start()
    async with asyncio.timeout(WAIT_S):
        assert await prepared.get() == early.processes[0].pid
        early.processes[0].kill()
        assert await prepared.get() not in (None, early.processes[0].pid)
    await supervised.stop()
    assert await ended(early.processes[0]) == -signal.SIGKILL
    early.folder.close()


async def test_one_that_no_topic_needs_is_sent_home(indexed: Path) -> None:
    """Of a topic whose vectors were switched off only the folder is left."""
    early = start_early(config(indexed))
    assert early is not None
    supervised = WorkerSupervisor({}, lambda _: asyncio.sleep(0), early=early.processes[0])
    supervised.send_home()
    assert await ended(early.processes[0]) == -signal.SIGKILL
    await supervised.stop()
    early.folder.close()
