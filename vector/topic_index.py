"""All partitions of one topic in a worker: opened, indexed, waited for, searched."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from protocol.errors import ErrorCode, KafkaError
from vector.channel import ChannelClosed
from vector.config import NO_MODEL, VectorConfig
from vector.embed.port import Float32
from vector.embed.scheduler import EmbedScheduler
from vector.generation import Generation, Identity, latest_generation, open_generation
from vector.index.builder import Builder
from vector.index.partition_index import PartitionIndex
from vector.index.settings import IndexSettings
from vector.indexer import LogSource, LogState, PartitionIndexer, PartitionPlace
from vector.lag import LagClock
from vector.models import Models
from vector.prepare import Extraction
from vector.threads import WorkerThreads

RETRY_S = 5.0
"""After a disk error or damage while indexing: the log has everything, so trying again loses nothing."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Assignment:
    """A topic as the broker hands it over. `model` is never None here: the broker put in its default.

    `recovered` has the log end of each partition at broker start, once: an index beyond it holds what the log has lost.
    """

    topic: str
    topic_id: bytes
    config: VectorConfig
    model: str
    states: dict[int, LogState]
    recovered: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What all topics of a worker share."""

    directory: Path
    source: LogSource
    models: Models
    threads: WorkerThreads
    builder: Builder


@dataclass(slots=True, eq=False)
class _Waiter:
    offsets: dict[int, int]
    future: "asyncio.Future[None]"


class TopicIndex:
    """One topic. `open` runs as long as the topic is assigned."""

    def __init__(self, assignment: Assignment, parts: WorkerParts) -> None:
        self.assignment = assignment
        self.generation: Generation | None = None
        self.scheduler: EmbedScheduler | None = None
        self.indexes: dict[int, PartitionIndex] = {}
        self.indexers: dict[int, PartitionIndexer] = {}
        self.trouble: str | None = None
        self._parts = parts
        self._lags: dict[int, LagClock] = {}
        self._waiters: set[_Waiter] = set()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._opening: asyncio.Task[None] | None = None
        self._running = asyncio.Event()
        if not assignment.config.paused:
            self._running.set()

    @property
    def directory(self) -> Path:
        """The topic's folder; the id, so a topic created again under the name starts empty."""
        return self._parts.directory / self.assignment.topic_id.hex()

    def start(self) -> None:
        """Begins to open and index, in the background."""
        self._follow(self.assignment.states)
        self._opening = asyncio.get_running_loop().create_task(self._keep_opening())

    def _follow(self, states: Mapping[int, LogState]) -> None:
        for partition, state in states.items():
            clock = self._lags.setdefault(partition, LagClock(asyncio.get_running_loop().time))
            clock.saw(state.last_stable_offset)

    async def _keep_opening(self) -> None:
        while True:
            try:
                await self._open()
            except Exception as error:  # whatever it is, nobody else would try again
                self.trouble = str(error) or type(error).__name__
                logger.exception("cannot open the index of %s", self.assignment.topic)
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _open(self) -> None:
        config, model = self.assignment.config, self.assignment.model
        before = latest_generation(self.directory)
        if before is not None and (before.identity.model, before.identity.field) == (model, config.field):
            # Searches by vector work before the model is there, and without it.
            self.generation = before
            await self._open_indexes(before, list(self.assignment.states))
        scheduler = await self._parts.models.get(model, config.dimensions)
        embedder = scheduler.embedder
        identity = Identity(
            config.field, config.long_text, model, embedder.revision, embedder.dimensions, config.metric
        )
        generation = self.generation
        if generation is None or generation.identity != identity:
            # Nothing may be searched between the two: this model's vectors mean nothing in the other's index.
            self.generation = None
            await self._close_indexes()
            generation = await self._in_index_thread(open_generation, self.directory, identity)
            self.generation = generation
        self.scheduler = scheduler
        await self._index_all(generation)

    async def _index_all(self, generation: Generation) -> None:
        """Opens and indexes every partition, those included that are added meanwhile."""
        while missing := [partition for partition in self.assignment.states if partition not in self.indexers]:
            await self._open_indexes(generation, missing)
            for partition in missing:
                self._start_indexer(partition)
        self.trouble = None

    async def _open_indexes(self, generation: Generation, partitions: Iterable[int]) -> None:
        for partition in partitions:
            await self._open_index(generation, partition)

    async def _open_index(self, generation: Generation, partition: int) -> None:
        while partition not in self.indexes:
            try:
                await self._in_index_thread(self._open_in_thread, generation, partition)
            except (OSError, ValueError) as error:
                self.trouble = f"partition {partition}: {error}"
                logger.exception("cannot open the index of %s-%d", self.assignment.topic, partition)
                await asyncio.sleep(RETRY_S)
            else:
                self.trouble = None

    def _open_in_thread(self, generation: Generation, partition: int) -> None:
        config, identity = self.assignment.config, generation.identity
        settings = IndexSettings(
            dimensions=identity.dimensions,
            metric=identity.metric,  # type: ignore[arg-type]  # checked when the topic was configured
            hnsw_m=config.hnsw_m,
            ef_construction=config.hnsw_ef_construction,
            ef_search=config.hnsw_ef_search,
            storage=config.storage,  # type: ignore[arg-type]
        )
        index = PartitionIndex.open(generation.partition_directory(partition), settings)
        recovered = self.assignment.recovered.get(partition)
        if recovered is not None and index.indexed_offset > recovered:
            index.truncate(recovered)
        # Here, not by who waits for it: one that is cancelled meanwhile must still find the index, to close it.
        self.indexes[partition] = index
        self._parts.builder.submit(index)

    def take_over(self, assignment: Assignment) -> bool:
        """Whether nothing but partitions, and whether indexing is paused, is new, and this goes on with it."""
        current = self.assignment
        same = replace(current.config, paused=assignment.config.paused) == assignment.config
        if not same or current.model != assignment.model:
            return False
        current.config = assignment.config
        self._running.clear() if assignment.config.paused else self._running.set()
        if self.scheduler is not None and not assignment.config.paused:
            self.scheduler.circuit.retry_now()
        self.add_partitions({p: state for p, state in assignment.states.items() if p not in current.states})
        return True

    def add_partitions(self, states: Mapping[int, LogState]) -> None:
        """The topic has grown."""
        self.assignment.states.update(states)
        self._follow(states)
        if self._opening is not None and self._opening.done() and self.generation is not None:
            self._opening = asyncio.get_running_loop().create_task(self._index_all(self.generation))

    def _start_indexer(self, partition: int) -> None:
        assert self.scheduler is not None
        assert self.generation is not None
        config, embedder = self.assignment.config, self.scheduler.embedder
        indexer = PartitionIndexer(
            PartitionPlace(self.assignment.topic_id, self.generation.number, partition),
            self.indexes[partition],
            Extraction(
                config.field, config.long_text, embedder.dimensions, self.assignment.model != NO_MODEL, embedder.split
            ),
            source=self._parts.source,
            scheduler=self.scheduler,
            threads=self._parts.threads,
            builder=self._parts.builder,
            known_elsewhere=lambda hashes: self._known_elsewhere(partition, hashes),
            on_progress=self._progress,
            state=self.assignment.states[partition],
            lag=self._lags[partition],
            gate=self._running.wait,
        )
        self.indexers[partition] = indexer
        self._tasks[partition] = asyncio.get_running_loop().create_task(self._keep_indexing(indexer))

    async def _keep_indexing(self, indexer: PartitionIndexer) -> None:
        while True:
            try:
                await indexer.run()
            except ChannelClosed:
                return
            except Exception as error:  # whatever it is, nobody else would index this partition again
                if isinstance(error, KafkaError) and error.code == ErrorCode.UNKNOWN_TOPIC_ID:
                    return  # deleted; the broker is about to say so
                self.trouble = f"partition {indexer.place.partition}: {error}"
                logger.exception("indexing %s-%d", self.assignment.topic, indexer.place.partition)
                await asyncio.sleep(RETRY_S)
                self.trouble = None

    def _known_elsewhere(self, partition: int, hashes: list[bytes]) -> dict[bytes, Float32]:
        """Vectors that other partitions of the topic have: a text is embedded once for the whole topic."""
        found: dict[bytes, Float32] = {}
        for other, index in list(self.indexes.items()):
            missing = [content for content in hashes if content not in found]
            if other != partition and missing:
                found |= index.known_vectors(missing)
        return found

    # Freshness

    def ring(self, partition: int, state: LogState) -> None:
        """A partition's log has moved."""
        if partition not in self.assignment.states:
            return  # the call that adds it waits for its turn; its indexer reads at once and learns where the log is
        self.assignment.states[partition] = state
        self._follow({partition: state})
        indexer = self.indexers.get(partition)
        if indexer is not None:
            indexer.ring(state)

    def indexed_offset(self, partition: int) -> int:
        """Exclusive; -1 while the partition's index is not open."""
        index = self.indexes.get(partition)
        return -1 if index is None else index.indexed_offset

    def lag_ms(self, partition: int) -> int:
        """For how long the oldest committed record that is not indexed has been there; 0 when all are, or the index is not open."""
        index = self.indexes.get(partition)
        return 0 if index is None else self._lags[partition].lag_ms(index.indexed_offset)

    def behind(self, offsets: Mapping[int, int]) -> bool:
        """Whether a partition has not been indexed up to its offset."""
        return any(self.indexed_offset(partition) < offset for partition, offset in offsets.items())

    async def wait_for(self, offsets: Mapping[int, int], wait_s: float) -> bool:
        """Until the index is that far, at most `wait_s`; whether it is."""
        if not self.behind(offsets):
            return True
        waiter = _Waiter(dict(offsets), asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(wait_s):
                await waiter.future
        except TimeoutError:
            return not self.behind(offsets)
        finally:
            self._waiters.discard(waiter)
        return True

    def _progress(self) -> None:
        for waiter in list(self._waiters):
            if not self.behind(waiter.offsets) and not waiter.future.done():
                waiter.future.set_result(None)

    # Status and end

    def status(self) -> dict[str, Any]:
        """JSON-able; see broker.search.status for what it becomes."""
        scheduler = self.scheduler
        model_trouble = self._parts.models.troubles.get((self.assignment.model, self.assignment.config.dimensions))
        waiting = model_trouble or (scheduler.trouble if scheduler else None)
        if self.assignment.config.paused:
            waiting = "paused by vector.paused=true; `senselog vector resume` goes on"
        paused = self.assignment.config.paused or bool(model_trouble) or bool(scheduler and scheduler.circuit.paused)
        generation = self.generation
        return {
            "generation": generation.number if generation else 0,
            "identity": asdict(generation.identity) if generation else None,
            "trouble": self.trouble or waiting,
            "paused": paused,
            "embedder": scheduler.status() if scheduler else None,
            "partitions": {partition: self._partition_status(partition) for partition in self.assignment.states},
        }

    def _partition_status(self, partition: int) -> dict[str, Any]:
        index = self.indexes.get(partition)
        known = {"indexed_offset": -1} if index is None else index.status()
        return {**known, "lag_ms": self.lag_ms(partition)}

    async def close(self) -> None:
        """Stops indexing and closes the indexes, with a checkpoint."""
        tasks = [*self._tasks.values(), *([self._opening] if self._opening else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._close_indexes()

    async def _close_indexes(self) -> None:
        await self._in_index_thread(_nothing)  # what is being opened or written there has ended then
        indexes = list(self.indexes.values())
        self.indexes.clear()
        self.indexers.clear()
        for index in indexes:
            self._parts.builder.forget(index)
            await self._in_index_thread(_close, index)

    async def _in_index_thread(self, call: Any, *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._parts.threads.index, call, *arguments)


def _nothing() -> None:
    """Waited for in the index thread, which works in order."""


def _close(index: PartitionIndex) -> None:
    try:
        index.close()
    except OSError:
        # What is lost is one checkpoint interval, which the log has.
        logger.exception("cannot close the index in %s", index.directory)
