"""The models a worker has open: one scheduler each, shared by all topics that use it."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from vector.embed.circuit import Circuit
from vector.embed.port import Embedder, EmbedError, EmbedSettings
from vector.embed.registry import open_embedder
from vector.embed.scheduler import EmbedScheduler
from vector.threads import WorkerThreads

RETRY_MIN_S = 1.0
RETRY_MAX_S = 30.0
CLOSE_AFTER_S = 60.0
"""A model that nobody uses any more is kept so long: searches that began with it end, and whoever comes back finds it."""

OpenEmbedder = Callable[[str, int, EmbedSettings], Embedder]


class Models:
    """Opens models on demand and keeps them; one that cannot be opened is tried again, with the reason in `troubles`."""

    def __init__(
        self, settings: EmbedSettings, threads: WorkerThreads, open_model: OpenEmbedder = open_embedder
    ) -> None:
        self._settings = settings
        self._threads = threads
        self._open_model = open_model
        self._circuits: dict[str, Circuit] = {}
        self._opening: dict[tuple[str, int], asyncio.Task[EmbedScheduler]] = {}
        self._users: dict[tuple[str, int], set[object]] = {}
        self._again = asyncio.Event()
        self.troubles: dict[tuple[str, int], str] = {}

    async def get(self, name: str, dimensions: int, user: object = None) -> EmbedScheduler:
        """The model's scheduler; waits until it can be opened, however long that takes. Open until the last user has `left`."""
        key = (name, dimensions)
        if user is not None:
            self._users.setdefault(key, set()).add(user)
        task = self._opening.get(key)
        if task is None:
            task = self._opening[key] = asyncio.get_running_loop().create_task(self._open(name, dimensions))
        return await asyncio.shield(task)

    async def _open(self, name: str, dimensions: int) -> EmbedScheduler:
        loop, key, wait_s = asyncio.get_running_loop(), (name, dimensions), RETRY_MIN_S
        while True:
            try:
                embedder = await loop.run_in_executor(
                    self._threads.open, self._open_model, name, dimensions, self._settings
                )
                scheduler = EmbedScheduler(embedder, circuit=self._circuits.setdefault(embedder.provider, Circuit()))
                await scheduler.prepare()
            except Exception as error:  # of whatever library opens it; everybody waits for this task
                known = isinstance(error, EmbedError | OSError)
                self.troubles[key] = str(error) if known else f"{name}: {type(error).__name__}: {error}"
                await self._wait(wait_s)
                wait_s = min(RETRY_MAX_S, wait_s * 2)
            else:
                self.troubles.pop(key, None)
                return scheduler

    async def _wait(self, wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._again.wait()
        self._again.clear()

    def retry_now(self) -> None:
        """Ends every cooldown, also of models that could not be opened: a person says that the cause is mended."""
        self._again.set()
        for circuit in self._circuits.values():
            circuit.retry_now()

    def left(self, user: object) -> None:
        """The user needs no model any more."""
        for key, users in self._users.items():
            if user in users:
                users.discard(user)
                asyncio.get_running_loop().call_later(CLOSE_AFTER_S, self._close_unused, key)

    def _close_unused(self, key: tuple[str, int]) -> None:
        if self._users.get(key) or key not in self._opening:
            return
        task = self._opening.pop(key)
        if _succeeded(task):
            task.result().close()
        else:
            task.cancel()
        self.troubles.pop(key, None)
        self._users.pop(key, None)

    def opened(self, name: str) -> EmbedScheduler | None:
        """The scheduler of a model that is open, with any dimensions."""
        found = (task for (known, _), task in self._opening.items() if known == name and _succeeded(task))
        task = next(found, None)
        return None if task is None else task.result()

    def schedulers(self) -> list[EmbedScheduler]:
        """Of the models that are open."""
        return [task.result() for task in self._opening.values() if _succeeded(task)]

    def status(self) -> list[dict[str, Any]]:
        """JSON-able, one per open model."""
        return [scheduler.status() for scheduler in self.schedulers()]

    def close(self) -> None:
        """Stops opening and embedding."""
        for scheduler in self.schedulers():
            scheduler.close()
        for task in self._opening.values():
            task.cancel()


def _succeeded(task: "asyncio.Task[EmbedScheduler]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
