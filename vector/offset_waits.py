"""Callers who wait until an index has come as far as they have written."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class _Waiter:
    offsets: dict[int, int]
    future: "asyncio.Future[None]"


class OffsetWaits:
    """`behind`: whether a partition has not been indexed up to its offset."""

    def __init__(self, behind: Callable[[Mapping[int, int]], bool]) -> None:
        self._behind = behind
        self._waiters: set[_Waiter] = set()

    async def wait_for(self, offsets: Mapping[int, int], wait_s: float) -> bool:
        """Until the index is that far, at most `wait_s`; whether it is."""
        if not self._behind(offsets):
            return True
        waiter = _Waiter(dict(offsets), asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(wait_s):
                await waiter.future
        except TimeoutError:
            return not self._behind(offsets)
        finally:
            self._waiters.discard(waiter)
        return True

    def progress(self) -> None:
        """The index has come further."""
        for waiter in list(self._waiters):
            if not self._behind(waiter.offsets) and not waiter.future.done():
                waiter.future.set_result(None)
