"""The vector worker's supervisor: a broker that stops is not kept by a worker that has just died."""

import asyncio
import itertools
import os
import signal
import sys

import pytest

from broker.search import supervisor
from broker.search.supervisor import WorkerSupervisor, _end
from broker.search.worker_process import WorkerProcess
from vector.channel import Channel


async def test_a_stop_while_a_dead_worker_is_waited_for_is_not_swallowed() -> None:
    process = WorkerProcess()  # which ends when its connection does
    ending = asyncio.create_task(_end(process))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert await process.ended() == -signal.SIGKILL
    process.connection.close()


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
    """Searches ran into their time-outs until somebody restarted the broker. One that does nothing is known sooner than one that does."""
    monkeypatch.setattr(supervisor, "PING_INTERVAL_S", 0.05)
    monkeypatch.setattr(supervisor, "IDLE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(supervisor, "PING_TIMEOUT_S", 3600.0)
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


class _Silent:
    """A channel whose other end never answers."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def call(self, name: str, payload: None) -> None:
        assert (name, payload) == ("ping", None)
        await asyncio.Event().wait()


@pytest.mark.parametrize(("works", "silent"), [(True, "0.06 s"), (False, "0.02 s")])
async def test_a_silent_worker_that_works_is_given_more_time(
    monkeypatch: pytest.MonkeyPatch, works: bool, silent: str
) -> None:
    """Importing a large library holds the interpreter; a restart would only begin it again."""
    monkeypatch.setattr(supervisor, "IDLE_TIMEOUT_S", 0.02)
    monkeypatch.setattr(supervisor, "PING_TIMEOUT_S", 0.05)
    done = itertools.count()
    with pytest.raises(TimeoutError, match=f"hangs: no answer within {silent}"):
        await supervisor.heed(_Silent(), lambda: next(done) if works else 0)  # type: ignore[arg-type]


async def test_the_cpu_time_of_a_process_says_whether_it_works() -> None:
    idle = await asyncio.create_subprocess_exec("sleep", "60")
    busy = await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass")
    before = supervisor._cpu_ns(busy.pid)
    async with asyncio.timeout(60):
        while supervisor._cpu_ns(busy.pid) == before:
            await asyncio.sleep(0.01)
    os.kill(busy.pid, signal.SIGSTOP)
    async with asyncio.timeout(60):
        stopped = -1
        while supervisor._cpu_ns(busy.pid) != stopped:  # it tells that it stops before it leaves the processor
            stopped = supervisor._cpu_ns(busy.pid)
            await asyncio.sleep(0.05)
    assert stopped > 0
    for process in (idle, busy):
        process.kill()
        await process.wait()
    assert supervisor._cpu_ns(busy.pid) == -1


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
