"""The vector worker's supervisor: a broker that stops is not kept by a worker that has just died."""

import asyncio
import os
import signal

import pytest

from broker.search import supervisor
from broker.search.supervisor import WorkerSupervisor, _end
from vector.channel import Channel


async def test_a_stop_while_a_dead_worker_is_waited_for_is_not_swallowed() -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    ending = asyncio.create_task(_end(process))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert process.returncode is not None


async def test_a_worker_that_cannot_be_prepared_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key file that is not text raised UnicodeDecodeError, which ended the supervision without a word."""
    monkeypatch.setattr(supervisor, "BACKOFF_MIN_S", 0.001)
    again = asyncio.Event()
    tries: list[int] = []

    async def run_once(_: WorkerSupervisor) -> None:
        tries.append(1)
        if len(tries) == 2:
            again.set()
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr(WorkerSupervisor, "_run_once", run_once)
    supervised = WorkerSupervisor({}, lambda _: asyncio.sleep(0))
    supervised.start()
    async with asyncio.timeout(10):
        await again.wait()
    await supervised.stop()


async def test_a_worker_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches ran into their time-outs until somebody restarted the broker."""
    monkeypatch.setattr(supervisor, "PING_INTERVAL_S", 0.05)
    monkeypatch.setattr(supervisor, "PING_TIMEOUT_S", 2.0)
    monkeypatch.setattr(supervisor, "STOP_TIMEOUT_S", 0.1)

    async def prepare(channel: Channel) -> None:
        await channel.call("ping", None)

    supervised = WorkerSupervisor({}, prepare)
    supervised.start()
    async with asyncio.timeout(60):
        while supervised.channel is None:
            await asyncio.sleep(0.01)
        hung = supervised.process_id
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        while supervised.channel is None or supervised.process_id == hung:
            await asyncio.sleep(0.01)
    await supervised.stop()


async def test_a_worker_that_never_gets_ready_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PREPARE_TIMEOUT_S", 0.01)
    monkeypatch.setattr(supervisor, "BACKOFF_MIN_S", 0.001)
    again = asyncio.Event()
    tries: list[int] = []

    async def prepare(_: Channel) -> None:
        tries.append(1)
        if len(tries) == 2:
            again.set()
        await asyncio.Event().wait()

    supervised = WorkerSupervisor({}, prepare)
    supervised.start()
    async with asyncio.timeout(60):
        await again.wait()
    await supervised.stop()
