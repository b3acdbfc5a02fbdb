"""All vector workers of a broker: which of them has which partition, and how to ask them."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from broker.config import Config
from broker.search.feed import WorkerFeed
from broker.search.folder import WorkerFolder
from broker.search.relay import WorkerRelay
from broker.search.remote_workers import RemotePlace, RemoteWorkers
from broker.search.supervisor import WorkerSupervisor
from broker.search.worker_process import EarlyWorkers
from broker.topics import Topic
from protocol.errors import ErrorCode, KafkaError
from vector.channel import Channel, ChannelClosed, Handler
from vector.placement import LEAD, worker_of

STATUS_TIMEOUT_S = 5.0
ASK_TIMEOUT_S = 60.0
SILENT_S = 2.0
"""A worker answers a ping each second; one of which nothing is heard for longer may hang."""


class WorkerFleet:
    """`prepare` is awaited with a worker's number and each of its new channels before anyone else may use that."""

    def __init__(
        self,
        config: Config,
        feed: WorkerFeed,
        handlers: Callable[[int], Mapping[str, Handler]],
        prepare: Callable[[int, Channel], Awaitable[None]],
        early: EarlyWorkers | None = None,
    ) -> None:
        self._folder = early.folder if early else WorkerFolder(Path(config.data_dir))
        relayed = WorkerRelay(self.channel_of, feed).handlers

        def parts(number: int) -> tuple[Mapping[str, Handler], Callable[[Channel], Awaitable[None]], str]:
            name = f"vector worker {number}" if config.workers > 1 else "vector worker"
            return {**handlers(number), **relayed}, partial(prepare, number), name

        processes = early.processes if early else (None,) * config.vector_workers
        here = [
            WorkerSupervisor(*parts(number), own=self._folder.own, early=process)
            for number, process in enumerate(processes)
        ]
        self._here = here
        elsewhere = [RemotePlace(*parts(number)) for number in range(config.vector_workers, config.workers)]
        self.workers: list[WorkerSupervisor | RemotePlace] = [*here, *elsewhere]
        self._remote = RemoteWorkers(config, elsewhere, config.vector_workers) if elsewhere else None

    def listen(self) -> None:
        """For workers from other machines. Raises OSError."""
        if self._remote is not None:
            self._remote.listen()

    def start(self) -> None:
        """Starts those that have not been started."""
        for worker in self.workers:
            worker.start()

    def send_home(self) -> None:
        """Ends those that were started early: no topic needs them."""
        for worker in self._here:
            worker.send_home()

    async def stop(self) -> None:
        """Lets them checkpoint and end."""
        if self._remote is not None:
            self._remote.close()
        await asyncio.gather(*(worker.stop() for worker in self.workers))
        self._folder.close()

    @property
    def numbers_running(self) -> list[int]:
        """Of the workers that are there."""
        return [number for number, worker in enumerate(self.workers) if worker.channel is not None]

    @property
    def running(self) -> bool:
        """Whether none is missing."""
        return all(worker.channel is not None for worker in self.workers)

    # Who has what

    def holders(self, topic_id: bytes, partitions: Collection[int]) -> dict[int, list[int]]:
        """The partitions by worker."""
        if len(self.workers) == 1:
            return {LEAD: list(partitions)}
        found: dict[int, list[int]] = {}
        for partition in partitions:
            found.setdefault(worker_of(topic_id, partition, len(self.workers)), []).append(partition)
        return found

    def channel_of(self, worker: int) -> Channel:
        """Raises KafkaError COORDINATOR_LOAD_IN_PROGRESS while there is none."""
        channel = self.workers[worker].channel
        if channel is None:
            raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, self._loading(worker))
        return channel

    def _loading(self, worker: int) -> str:
        return f"the index is loading: {self.workers[worker].name} {self.workers[worker].state}"

    def silent(self, workers: Collection[int]) -> str:
        """Which of them do not answer at the moment and since when, for people; empty when all do."""
        channels = [(self.workers[number].name, self.workers[number].channel) for number in workers]
        silent = [(name, channel.silent_s) for name, channel in channels if channel is not None]
        return ", ".join(f"{name} has not answered for {since:.0f} s" for name, since in silent if since > SILENT_S)

    # Asking

    async def ask(self, call: str, message: Any, worker: int = LEAD) -> Any:
        """A worker's answer, for administration. Raises KafkaError: 7 when it takes too long, 14 while there is no worker."""
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                return await self.channel_of(worker).call(call, message)
        except TimeoutError:
            raise KafkaError(
                ErrorCode.REQUEST_TIMED_OUT, f"the vector worker did not {call} in {ASK_TIMEOUT_S:g} s"
            ) from None
        except ChannelClosed:
            raise KafkaError(
                ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "the index is loading: the vector worker is restarted"
            ) from None

    async def told(self, topic: Topic) -> dict[int, dict[str, Any]]:
        """What each worker says of a topic; those that are not there, or do not know it, say nothing."""
        numbers = sorted({LEAD, *self.holders(topic.topic_id, range(len(topic.partitions)))})
        answers = await asyncio.gather(*(self._status(number, topic.topic_id) for number in numbers))
        return {number: answer for number, answer in zip(numbers, answers, strict=True) if answer is not None}

    async def _status(self, worker: int, topic_id: bytes) -> dict[str, Any] | None:
        channel = self.workers[worker].channel
        if channel is None:
            return None
        try:
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                answer = await channel.call("status", topic_id)
        except (TimeoutError, ChannelClosed):
            return None
        return dict(answer) if answer is not None else None
