"""What the vector worker gets from the broker: topics, the bell when a log moves, and the log itself."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from broker.topics import Topic, Topics
from protocol.errors import ErrorCode, KafkaError
from storage.aborted_transactions import without_aborted
from storage.log import PartitionLog
from vector.channel import Channel
from vector.placement import LEAD, worker_of

READ_BYTES_MAX = 1024 * 1024

State = tuple[int, int, int, int]


def log_state(log: PartitionLog) -> State:
    """(log start offset, high watermark, last stable offset, cleaned offset)."""
    return log.log_start_offset, log.high_watermark, log.last_stable_offset, log.cleaned_offset


class _Watched:
    """One partition. After a bell there is none until the worker has read again, so a busy log costs one bell per read."""

    __slots__ = ("armed", "feed", "log", "partition", "recovered_end_offset", "topic_id")

    def __init__(self, feed: "WorkerFeed", log: PartitionLog) -> None:
        self.feed = feed
        self.log = log
        self.topic_id = log.topic_id
        self.partition = log.partition
        self.armed = False
        self.recovered_end_offset: int | None = log.log_end_offset

    def moved(self, _: PartitionLog) -> None:
        if self.armed:
            self.armed = False
            self.feed.ring(self)


class WorkerFeed:
    """Watches every topic with vectors; all on the event loop. An observer of `Topics`.

    Each partition has one worker (`vector.placement`).
    """

    def __init__(self, topics: Topics, default_model: str, workers: int = 1, remote: int = 0) -> None:
        """The last `remote` of the workers are on other machines."""
        self.roles: dict[bytes, Mapping[str, Any]] = {}
        """What the lead told last of generations, by topic: workers that come later begin with it."""
        self._channels: dict[int, Channel] = {}
        self._workers = workers
        self._local = workers - remote
        self._topics = topics
        self._default_model = default_model
        self._watched: dict[tuple[bytes, int], _Watched] = {}
        self._rung: list[_Watched] = []
        self._calls: set[asyncio.Task[Any]] = set()

    @property
    def topics_with_vectors(self) -> list[Topic]:
        return [topic for topic in self._topics if topic.vector is not None]

    def watch_all(self) -> None:
        """At start: what the logs hold now is what they recovered."""
        for topic in self.topics_with_vectors:
            self._watch(topic)

    async def attach(self, worker: int, channel: Channel) -> None:
        """Hands everything that is its to a new worker. Raises ChannelClosed, KafkaError."""
        self._channels[worker] = channel
        for topic in self.topics_with_vectors:
            if self._has(worker, topic):
                await channel.call("assign", self._assignment(topic, worker))

    def followers(self, topic_id: bytes) -> list[Channel | None]:
        """Of the workers that have partitions of a topic and do not lead, None for one that has not come yet."""
        topic = self._topics.get_by_id(topic_id)
        count = 0 if topic is None else len(topic.partitions)
        workers = {self._worker(topic_id, partition) for partition in range(count)} - {LEAD}
        return [self._channels.get(worker) for worker in workers]

    def _worker(self, topic_id: bytes, partition: int) -> int:
        return worker_of(topic_id, partition, self._workers)

    def _has(self, worker: int, topic: Topic) -> bool:
        """The lead has every topic, if only its generations."""
        return worker == LEAD or any(self._worker(topic.topic_id, log.partition) == worker for log in topic.partitions)

    def opened(self, topic_id: bytes, partition: int) -> None:
        """The worker has the partition's index open, and has compared it with what the log recovered."""
        watched = self._watched.get((topic_id, partition))
        if watched is not None:
            watched.recovered_end_offset = None

    # The worker's calls

    async def read(self, request: tuple[bytes, int, int, int]) -> tuple[bytes, int, State]:
        """(topic id, partition, offset, most bytes) -> batches of committed records, the offset behind them, the log's state.

        An offset beyond the log's end is answered with that end. Raises KafkaError for a partition that is gone.
        """
        topic_id, partition, offset, max_bytes = request
        topic = self._topics.get_by_id(topic_id)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID)
        log = topic.partition(partition)
        watched = self._watched.get((topic_id, partition))
        if watched is not None:
            watched.armed = True
        if offset > log.log_end_offset:
            return b"", log.log_end_offset, log_state(log)
        start = max(offset, log.log_start_offset)
        result = log.read(
            start,
            min(max_bytes, READ_BYTES_MAX),
            up_to=log.last_stable_offset,
            at_least_one=True,
        )
        if result.cold:
            await asyncio.get_running_loop().run_in_executor(None, result.load)
        batches = b"".join(result.buffers)
        aborted = log.aborted_transactions(start, result.next_offset)
        if aborted:
            batches = b"".join(without_aborted(memoryview(batches), aborted))
        return batches, result.next_offset, log_state(log)

    def ring(self, watched: _Watched) -> None:
        """Once per turn of the loop, one notice for all partitions that have moved."""
        if not self._rung:
            asyncio.get_running_loop().call_soon(self._send_bell)
        self._rung.append(watched)

    def _send_bell(self) -> None:
        rung, self._rung = self._rung, []
        bells: dict[int, list[tuple[bytes, int, State]]] = {}
        for one in rung:
            worker = self._worker(one.topic_id, one.partition)
            bells.setdefault(worker, []).append((one.topic_id, one.partition, log_state(one.log)))
        for worker, moved in bells.items():
            if worker in self._channels:
                self._channels[worker].notify("bell", moved)

    # TopicObserver

    def topic_created(self, topic: Topic) -> None:
        if topic.vector is not None:
            self._watch(topic)
            for worker, channel in self._channels.items():
                if self._has(worker, topic):
                    self._tell([(channel, "assign", self._assignment(topic, worker))])

    def topic_changed(self, topic: Topic) -> None:
        if topic.vector is not None:
            self.topic_created(topic)
        elif self._forget(topic):
            for channel in self._channels.values():
                self._tell([(channel, "unassign", {"topic_id": topic.topic_id, "delete": False})])

    def topic_deleted(self, topic: Topic) -> None:
        self._forget(topic)
        self.roles.pop(topic.topic_id, None)
        # The lead, which deletes the folder that they share, last.
        last_first = [self._channels[worker] for worker in sorted(self._channels, reverse=True)]
        self._tell([(one, "unassign", {"topic_id": topic.topic_id, "delete": True}) for one in last_first])

    # Helpers

    def _watch(self, topic: Topic) -> None:
        for log in topic.partitions:
            if (topic.topic_id, log.partition) not in self._watched:
                watched = self._watched[topic.topic_id, log.partition] = _Watched(self, log)
                log.listeners.add(watched.moved)

    def _forget(self, topic: Topic) -> bool:
        gone = [key for key in self._watched if key[0] == topic.topic_id]
        for key in gone:
            watched = self._watched.pop(key)
            watched.log.listeners.discard(watched.moved)
        return bool(gone)

    def _assignment(self, topic: Topic, worker: int) -> dict[str, Any]:
        assert topic.vector is not None
        recovered = {}
        logs = [log for log in topic.partitions if self._worker(topic.topic_id, log.partition) == worker]
        for log in logs:
            watched = self._watched[topic.topic_id, log.partition]
            watched.armed = True
            if watched.recovered_end_offset is not None:
                recovered[log.partition] = watched.recovered_end_offset
        return {
            "topic": topic.name,
            "topic_id": topic.topic_id,
            "config": asdict(topic.vector),
            "model": topic.vector.embedding_model or self._default_model,
            "states": {log.partition: log_state(log) for log in logs},
            "recovered": recovered,
            "foreign": self._foreign(topic, worker),
            "leads": worker == LEAD,
            "roles": None if worker == LEAD else self.roles.get(topic.topic_id),
        }

    def _foreign(self, topic: Topic, worker: int) -> list[int]:
        """Those with folders elsewhere; of the workers here one looks after the folder that they share."""
        owners = [(log.partition, self._worker(topic.topic_id, log.partition)) for log in topic.partitions]
        if worker >= self._local:
            return [partition for partition, owner in owners if owner != worker]
        return [partition for partition, owner in owners if owner >= self._local] if worker == LEAD else []

    def _tell(self, calls: Sequence[tuple[Channel, str, dict[str, Any]]]) -> None:
        """One after the other; a worker that dies meanwhile hears everything anew when it is back."""
        task = asyncio.get_running_loop().create_task(self._call(calls))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _call(self, calls: Sequence[tuple[Channel, str, dict[str, Any]]]) -> None:
        for channel, name, message in calls:
            try:
                await channel.call(name, message)
            except Exception:
                # Without the call the worker would index the wrong topics; a new one starts from what is true now.
                channel.close()
