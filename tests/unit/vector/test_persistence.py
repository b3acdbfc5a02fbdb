"""The keeper of the object store looks when it is told, not every few seconds at every partition."""

import asyncio

import pytest

from vector import persistence
from vector.objects import ObjectError, ObjectStore
from vector.persistence import Persistence, StoredTopic
from vector.threads import WorkerThreads


class Counted(Persistence):
    """Counts its rounds; fails in some."""

    rounds = 0
    fail = 0

    async def catch_up(self, topics: list[StoredTopic]) -> None:
        assert topics == []
        self.rounds += 1
        if self.rounds <= self.fail:
            raise ObjectError("the store is away")


async def until(keeper: Counted, rounds: int) -> None:
    async with asyncio.timeout(20):
        while keeper.rounds < rounds:
            await asyncio.sleep(0.001)


async def test_rounds_follow_changes_and_failures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing changes there is none; several changes at once are one; what failed is tried again by itself."""
    monkeypatch.setattr(persistence, "DELAY_S", 0.001)
    threads = WorkerThreads()
    keeper = Counted(ObjectStore("memory:///"), threads)
    task = asyncio.create_task(keeper.run(list))
    await asyncio.sleep(0.05)
    assert keeper.rounds == 0
    for _ in range(5):
        threads.index.submit(keeper.notice)
    await until(keeper, 1)
    await asyncio.sleep(0.05)
    quiet = keeper.rounds
    assert quiet <= 2
    keeper.fail = quiet + 3
    keeper.notice()
    await until(keeper, quiet + 4)
    await asyncio.sleep(0.05)
    assert (keeper.rounds, keeper.trouble) == (quiet + 4, None)
    task.cancel()
    keeper.close()
    threads.close()
