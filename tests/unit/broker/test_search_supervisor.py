"""The vector worker's supervisor: a broker that stops is not kept by a worker that has just died."""

import asyncio

import pytest

from broker.search.supervisor import _end


async def test_a_stop_while_a_dead_worker_is_waited_for_is_not_swallowed() -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    ending = asyncio.create_task(_end(process))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert process.returncode is not None
