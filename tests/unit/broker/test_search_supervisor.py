"""The vector worker's supervisor: a broker that stops is not kept by a worker that has just died."""

import asyncio

import pytest

from broker.search import supervisor
from broker.search.supervisor import WorkerSupervisor, _end


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
