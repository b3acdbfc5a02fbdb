"""The vector worker: a process of its own, so that models and FAISS never touch the broker's event loop, GIL or life.

Started by `broker.search.supervisor` with one end of a socket pair; ends when the other end closes.
"""

import argparse
import asyncio
import logging
import socket
import sys
from collections.abc import Awaitable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import faiss
import msgpack
import numpy as np

from protocol.errors import ErrorCode, KafkaError
from vector.assignment import Assignment
from vector.channel import Channel
from vector.embed.port import EmbedSettings
from vector.event_loop import run
from vector.extract import content_hash
from vector.followers import Followers
from vector.generation_index import WorkerParts
from vector.heap import keep_small
from vector.index.builder import Builder
from vector.log_source import LogRun, LogState, PartitionPlace
from vector.memory import MemoryBudget
from vector.models import Models
from vector.objects import ObjectStore
from vector.persistence import Persistence
from vector.prepare import Failure
from vector.priority import lower_priority
from vector.recall import RecallSampler
from vector.remote_shard import RELAYED
from vector.threads import WorkerThreads
from vector.topic_index import TopicIndex
from vector.topic_search import TopicSearch

PROGRESS_INTERVAL_S = 0.25
GAUGES_INTERVAL_S = 5.0
"""Figures that only metrics show: collecting them takes about 10 us for each partition."""
# Threads hand over to one another on the way from record to hit; Python's default of 5 ms would be felt there.
SWITCH_INTERVAL_S = 0.0005
WORKER_NICENESS = 5

logger = logging.getLogger(__name__)


class _BrokerLog:
    """The broker's log, read over the channel."""

    def __init__(self) -> None:
        self.channel: Channel

    async def read(self, topic_id: bytes, partition: int, offset: int, max_bytes: int) -> LogRun:
        batches, next_offset, state = await self.channel.call("read", (topic_id, partition, offset, max_bytes))
        return LogRun(batches, next_offset, LogState(*state))

    async def quarantine(self, place: PartitionPlace, model: str, failures: Sequence[Failure]) -> None:
        rows = [(failure.offset, failure.reason, failure.records) for failure in failures]
        await self.channel.call("quarantine", (place.topic_id, place.generation, place.partition, model, rows))


@dataclass(frozen=True, slots=True)
class OwnMachine:
    """What a worker that is not on the broker's machine has in place of what the broker says. `threads` 0: all cores."""

    directory: Path
    model_directory: Path
    threads: int = 0


class Worker:
    """Everything one worker process holds. `channel` is to be connected to the broker; then `run`."""

    def __init__(self, machine: OwnMachine | None = None) -> None:
        self._machine = machine
        self._log = _BrokerLog()
        self._threads = WorkerThreads()
        self._builder = Builder(self._threads.post_to_index, on_swap=lambda _: self._notice_segments())
        self._memory = MemoryBudget()
        self._parts: WorkerParts | None = None
        self._topics: dict[bytes, TopicIndex] = {}
        self._searches: dict[bytes, TopicSearch] = {}
        self._changes = asyncio.Lock()
        self._told: dict[str, Any] = {}
        self._persistence: Persistence | None = None
        self._leads = True
        """Whether this one decides about generations, and about folders that others share with it."""
        self._background: list[asyncio.Task[None]] = []
        self._gauges_due = 0.0
        self._sampler = RecallSampler(lambda: [one for topic in self._topics.values() for one in topic.sampled()])
        self.channel = Channel(
            {
                "start": self._start,
                "assign": self._assign,
                "unassign": self._unassign,
                "bell": self._bell,
                "search": self._search,
                **{name: partial(self._asked, name) for name in RELAYED},
                "follow": self._follow,
                "hold": self._hold,
                "release": self._release,
                "status": self._status,
                "cut_over": self._cut_over,
                "go_back": self._go_back,
                "rebuild": self._rebuild,
                "retry_now": self._retry_now,
                "embed": self._embed,
                "stop": self._stop,
                "ping": lambda _: None,
            }
        )
        self._log.channel = self.channel

    async def run(self) -> None:
        """Serves the broker until one of them closes the channel; then checkpoints."""
        loop = asyncio.get_running_loop()
        self._background.append(loop.create_task(self._sampler.run()))
        while not self.channel.closed.is_set():
            self._tell_progress()
            self._tell_gauges(loop.time())
            try:
                async with asyncio.timeout(PROGRESS_INTERVAL_S):
                    await self.channel.closed.wait()
            except TimeoutError:
                continue
        await self.end()

    # The broker's calls

    def _start(self, message: Mapping[str, Any]) -> None:
        self._leads = message["leads"]
        self._memory = MemoryBudget(message["memory_bytes"], self._builder.submit)
        embed, directory = EmbedSettings.from_message(message["embed"]), Path(message["directory"])
        if self._machine is not None:
            directory = self._machine.directory / "vector"
            own = self._machine.model_directory, self._machine.threads
            embed = replace(embed, model_directory=str(own[0]), threads=own[1])
        models = Models(embed, self._threads)
        if message["objects_url"] is not None:
            self._persistence = Persistence(ObjectStore(message["objects_url"]), self._threads, leads=self._leads)
            self._background.append(asyncio.create_task(self._persistence.run(lambda: list(self._topics.values()))))
        self._parts = WorkerParts(
            directory,
            self._log,
            models,
            self._threads,
            self._builder,
            forget_failures=lambda topic_id, number: self.channel.notify("forget_failures", (topic_id, number)),
            persistence=self._persistence,
            memory=self._memory,
            own_directory=self._machine is not None,
            followers=Followers(self.channel) if self._leads and message["workers"] > 1 else None,
        )
        directory.mkdir(parents=True, exist_ok=True)
        if self._keeps_folders:
            _remove_deleted(directory, {bytes(topic_id).hex() for topic_id in message["topics"]})

    @property
    def _keeps_folders(self) -> bool:
        """Whether it deletes those of topics: the lead does where several workers share them."""
        return self._leads or self._machine is not None

    async def _assign(self, message: Mapping[str, Any]) -> None:
        assert self._parts is not None
        assignment = Assignment.from_message(message)
        async with self._changes:
            current = self._topics.get(assignment.topic_id)
            if current is not None:
                if current.take_over(assignment):
                    return
                await current.close()
            topic = TopicIndex(assignment, self._parts)
            self._topics[assignment.topic_id] = topic
            self._searches[assignment.topic_id] = TopicSearch(
                topic, self._log, self._threads, self._relay, alone=lambda: self.channel.answering == 1
            )
            topic.start()

    async def _unassign(self, message: Mapping[str, Any]) -> None:
        """Vectors were switched off (the index is kept for when they are on again), or the topic was deleted."""
        async with self._changes:
            topic = self._topics.pop(message["topic_id"], None)
            self._searches.pop(message["topic_id"], None)
            if topic is None:
                return
            await topic.close()
            if message["delete"] and self._keeps_folders:
                await asyncio.get_running_loop().run_in_executor(self._threads.index, _remove, topic.directory)
            if message["delete"] and self._persistence is not None:
                self._persistence.forget_topic(topic.topic_id)

    def _notice_segments(self) -> None:
        if self._persistence is not None:
            self._persistence.notice()

    def _bell(self, moved: list[tuple[bytes, int, tuple[int, int, int, int]]]) -> None:
        for topic_id, partition, state in moved:
            topic = self._topics.get(topic_id)
            if topic is not None:
                topic.ring(partition, LogState(*state))

    async def _search(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return await self._topic_search(message["topic_id"]).search(message)

    def _topic_search(self, topic_id: bytes) -> TopicSearch:
        search = self._searches.get(topic_id)
        if search is None:
            raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "the index is loading")
        return search

    # What workers ask one another, through the broker

    async def _relay(self, call: str, request: tuple[int, Any]) -> Any:
        """Packed: the broker, which passes it on, need not look at each hit of each shard."""
        worker, payload = request
        answer = await self.channel.call("relay", (call, worker, msgpack.packb(payload)), abandon=True)
        return msgpack.unpackb(answer, strict_map_key=False)

    async def _asked(self, call: str, packed: bytes) -> bytes:
        """What another worker asks by `_relay`."""
        payload = msgpack.unpackb(packed, strict_map_key=False)
        answer = getattr(self._topic_search(payload["topic_id"]), call)(payload)
        return bytes(msgpack.packb(await answer if isinstance(answer, Awaitable) else answer))

    async def _follow(self, message: tuple[bytes, dict[str, Any]]) -> None:
        topic_id, roles = message
        async with self._changes:  # behind the assignment that it is about
            topic = self._topic(topic_id)
        await topic.follow(roles)

    async def _hold(self, message: tuple[bytes, int]) -> bool:
        topic_id, generation = message
        return await self._topic(topic_id).hold(generation)

    def _release(self, topic_id: bytes) -> None:
        self._topic(topic_id).release()

    # Administration

    def _status(self, topic_id: bytes) -> dict[str, Any] | None:
        topic = self._topics.get(topic_id)
        return None if topic is None else topic.status()

    def _topic(self, topic_id: bytes) -> TopicIndex:
        topic = self._topics.get(topic_id)
        if topic is None:
            raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "the index is loading")
        return topic

    async def _cut_over(self, topic_id: bytes) -> None:
        await self._topic(topic_id).cut_over()

    async def _go_back(self, topic_id: bytes) -> None:
        await self._topic(topic_id).go_back()

    async def _rebuild(self, topic_id: bytes) -> None:
        await self._topic(topic_id).rebuild()

    def _retry_now(self, _: bytes) -> None:
        assert self._parts is not None
        self._parts.models.retry_now()

    async def _embed(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Texts by a model or by that of a topic's live generation, as it embeds queries."""
        assert self._parts is not None
        if message["topic_id"] is not None:
            scheduler = self._topic(message["topic_id"]).scheduler
            if scheduler is None:
                raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "the model is loading")
        else:
            scheduler = self._parts.models.opened(message["model"])
            if scheduler is None:  # opening whatever is named would fill the memory
                raise KafkaError(ErrorCode.RESOURCE_NOT_FOUND, f"model: no topic is embedded by {message['model']}")
        texts = [scheduler.embedder.split(text, 1)[0][0] for text in message["texts"]]
        vectors = await scheduler.query(texts, [content_hash(text) for text in texts])
        return {
            "model": scheduler.embedder.name,
            "dimensions": scheduler.embedder.dimensions,
            "vectors": [np.asarray(vector, dtype="<f4").tobytes() for vector in vectors],
        }

    async def _stop(self, _: object) -> None:
        """Checkpoints; the broker closes the channel then."""
        async with self._changes:
            for topic in self._topics.values():
                await topic.close()

    # Progress, for status and metrics

    def _tell_progress(self) -> None:
        if self._parts is None:
            return
        offsets = [
            (topic_id, partition, index.indexed_offset, index.counts.failed)
            for topic_id, topic in self._topics.items()
            for partition, index in list(topic.indexes.items())
        ]
        progress = {"offsets": offsets, "models": self._parts.models.status()}
        if progress != self._told:
            self._told = progress
            self.channel.notify("progress", progress)

    def _tell_gauges(self, now: float) -> None:
        for topic in self._topics.values():
            topic.look()
        if self._parts is not None and now >= self._gauges_due:
            self._gauges_due = now + GAUGES_INTERVAL_S
            rows = [(topic_id, *row) for topic_id, topic in self._topics.items() for row in topic.gauges()]
            self.channel.notify("gauges", {"partitions": rows, "memory": self._memory.status()})

    async def end(self) -> None:
        """Checkpoints and lets go of everything."""
        self.channel.close()
        for task in self._background:
            task.cancel()
        self._sampler.close()
        if self._persistence is not None:
            self._persistence.close()
        for topic in list(self._topics.values()):
            await topic.close()
        if self._parts is not None:
            self._parts.models.close()
        self._builder.close()
        self._threads.close()


def _remove_deleted(directory: Path, known: Container[str]) -> None:
    """Of topics that were deleted while no worker was there to hear of it."""
    for path in directory.iterdir():
        if path.is_dir() and path.name not in known:
            rmtree(path, ignore_errors=True)


def _remove(directory: Path) -> None:
    rmtree(directory, ignore_errors=True)


def main(arguments: list[str] | None = None) -> None:
    """`python -m vector.worker --socket-descriptor N`."""
    parser = argparse.ArgumentParser(prog="vector.worker", description=__doc__)
    parser.add_argument("--socket-descriptor", type=int, required=True)
    options = parser.parse_args(arguments)
    prepare_process()
    import signal

    # Ctrl-C reaches the whole process group; the broker decides when the worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run(_serve(options.socket_descriptor))


def prepare_process() -> None:
    """Logs to standard error, makes way for others, and keeps no memory that is free."""
    keep_small()
    faiss.InterruptCallback.clear_instance()  # it would take the interpreter's lock in every search to look for a Ctrl-C that we ignore
    logging.basicConfig(stream=sys.stderr, format="level=%(levelname)s event=%(message)r process=vector-worker")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    lower_priority(WORKER_NICENESS)


async def _serve(descriptor: int) -> None:
    worker = Worker()
    connection = socket.socket(fileno=descriptor)
    await asyncio.get_running_loop().create_connection(lambda: worker.channel, sock=connection)
    await worker.run()


if __name__ == "__main__":
    main()
