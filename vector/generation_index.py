"""All partitions of one generation of a topic's index: opened, indexed, closed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protocol.errors import ErrorCode, KafkaError
from storage.clock import Clock, SystemClock
from vector.arrays import Float32
from vector.channel import ChannelClosed
from vector.config import NO_MODEL, VectorConfig
from vector.embed.scheduler import EmbedScheduler
from vector.followers import Followers
from vector.generation import Generation
from vector.index.builder import Builder
from vector.index.partition_index import PartitionIndex
from vector.index.settings import IndexSettings
from vector.indexer import PartitionIndexer
from vector.lag import LagClock
from vector.log_source import LogSource, LogState, PartitionPlace
from vector.memory import MemoryBudget
from vector.meter import IndexMeter
from vector.models import Models
from vector.persistence import Persistence
from vector.prepare import Extraction
from vector.threads import WorkerThreads

RETRY_S = 5.0
"""After a disk error or damage while indexing: the log has everything, so trying again loses nothing."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What all topics of a worker share. `forget_failures`: a generation of a topic, by id and number, is no more."""

    directory: Path
    source: LogSource
    models: Models
    threads: WorkerThreads
    builder: Builder
    forget_failures: Callable[[bytes, int], None]
    persistence: Persistence | None = None
    followers: Followers | None = None
    """Of the topics that this worker leads; None where it has all partitions."""
    memory: MemoryBudget = field(default_factory=MemoryBudget)
    own_directory: bool = False
    """Whether no other worker keeps indexes in `directory`, although another one leads."""
    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True, slots=True)
class TopicPlace:
    """The topic that a generation belongs to; `states` and `lags` by partition are the topic's own and change with it."""

    topic: str
    topic_id: bytes
    config: VectorConfig
    states: Mapping[int, LogState]
    lags: Mapping[int, LagClock]


class GenerationIndex:
    """One generation. `gate` is awaited before each read of the log: it decides who may index now.

    `background`: its texts are embedded behind those of others. `known_elsewhere` is asked for vectors before the model is.
    """

    def __init__(
        self,
        generation: Generation,
        place: TopicPlace,
        parts: WorkerParts,
        *,
        gate: Callable[[], Awaitable[object]],
        on_progress: Callable[[], None],
        known_elsewhere: Callable[[list[bytes]], dict[bytes, Float32]] | None = None,
    ) -> None:
        self.generation = generation
        self.scheduler: EmbedScheduler | None = None
        self.indexes: dict[int, PartitionIndex] = {}
        self.meters: dict[int, IndexMeter] = {}
        self.background = False
        self.trouble: str | None = None
        """What is wrong with it: the disk, or a model that is not what it was."""
        self._place = place
        self._parts = parts
        self._gate = gate
        self._on_progress = on_progress
        self._known_outside = known_elsewhere
        self._unopened: dict[int, str] = {}
        """Partitions that could not be opened, and why."""
        self._indexers: dict[int, PartitionIndexer] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    # Opening

    async def open(self, partitions: Iterable[int], recovered: Mapping[int, int]) -> None:
        """Opens these partitions, however long the disk refuses; those that are open are indexed meanwhile, once there is a model.
        `recovered`: the ends of logs that lost their tails, where known."""
        wanted = list(partitions)
        for partition in wanted:
            if self._parts.persistence is not None:
                await self._parts.persistence.restore_partition(self._place.topic_id, self.generation, partition)
            await self._try_to_open(partition, recovered)
        while missing := [partition for partition in wanted if partition not in self.indexes]:
            if self.scheduler is not None:
                self.index(list(self.indexes))
            await asyncio.sleep(RETRY_S)
            for partition in missing:
                await self._try_to_open(partition, recovered)

    async def _try_to_open(self, partition: int, recovered: Mapping[int, int]) -> None:
        if partition in self.indexes:
            return
        try:
            await self._in_index_thread(self._open_in_thread, partition, recovered.get(partition))
        except (OSError, ValueError, RuntimeError) as error:  # FAISS raises RuntimeError
            self._unopened[partition] = f"partition {partition}: {error}"
            logger.exception("cannot open the index of %s-%d", self._place.topic, partition)
        else:
            self._unopened.pop(partition, None)
        self.trouble = next(iter(self._unopened.values()), None)

    def _open_in_thread(self, partition: int, recovered: int | None) -> None:
        if partition in self.indexes:  # by a call whose caller was cancelled: a folder has one index
            return
        config, identity = self._place.config, self.generation.identity
        settings = IndexSettings(
            dimensions=identity.dimensions,
            metric=identity.metric,  # type: ignore[arg-type]  # checked when the topic was configured
            hnsw_m=config.hnsw_m,
            ef_construction=config.hnsw_ef_construction,
            ef_search=config.hnsw_ef_search,
            storage=config.storage,  # type: ignore[arg-type]
            texts=config.text_index and identity.model != NO_MODEL,
        )
        index = PartitionIndex.open(self.generation.partition_directory(partition), settings)
        for damage in index.damages:
            logger.warning(
                "the index of %s-%d is damaged and made anew from the log, from offset %d on: %s",
                self._place.topic, partition, index.indexed_offset, damage,
            )  # fmt: skip
        if recovered is not None and index.indexed_offset > recovered:
            index.truncate(recovered)
            self._taken_back(partition)
        self._parts.memory.opened(index)
        self.meters[partition] = IndexMeter(index)
        # Here, not by who waits for it: one that is cancelled meanwhile must still find the index, to close it.
        self.indexes[partition] = index
        self._parts.builder.submit(index)
        if self._parts.persistence is not None:
            self._parts.persistence.notice()

    def _taken_back(self, partition: int) -> None:
        if self._parts.persistence is not None:
            self._parts.persistence.taken_back(self._place.topic_id, self.generation.number, partition)

    # Indexing

    async def find_model(self) -> bool:
        """Opens the model of this generation, however long that takes; whether it makes the same vectors still."""
        identity = self.generation.identity
        scheduler = await self._parts.models.get(identity.model, identity.asked_dimensions, self)
        embedder = scheduler.embedder
        if (embedder.revision, embedder.dimensions) != (identity.revision, identity.dimensions):
            self.trouble = (
                f"generation {self.generation.number} was made by {identity.model} of revision {identity.revision} with "
                f"{identity.dimensions} dimensions, which is now {embedder.revision} with {embedder.dimensions}"
            )
            return False
        self.scheduler = scheduler
        return True

    def index(self, partitions: Iterable[int]) -> None:
        """Begins to index those that are open and not indexed yet; the model must be there."""
        assert self.scheduler is not None
        identity, embedder = self.generation.identity, self.scheduler.embedder
        extraction = Extraction(
            identity.field, identity.long_text, identity.dimensions, identity.model != NO_MODEL, embedder.split
        )
        for partition in partitions:
            if partition in self._indexers:
                continue
            indexer = self._indexers[partition] = PartitionIndexer(
                PartitionPlace(self._place.topic_id, self.generation.number, partition),
                self.indexes[partition],
                extraction,
                source=self._parts.source,
                scheduler=self.scheduler,
                threads=self._parts.threads,
                builder=self._parts.builder,
                known_elsewhere=lambda hashes, partition=partition: self._known_elsewhere(partition, hashes),  # type: ignore[misc]
                on_progress=lambda: self._on_progress(),
                state=self._place.states[partition],
                lag=self._place.lags[partition],
                memory=self._parts.memory,
                on_truncate=lambda partition=partition: self._taken_back(partition),  # type: ignore[misc]
                gate=lambda: self._gate(),
                background=lambda: self.background,
            )
            self._tasks[partition] = asyncio.get_running_loop().create_task(self._keep_indexing(indexer))

    def admit(self, gate: Callable[[], Awaitable[object]], on_progress: Callable[[], None]) -> None:
        """From now on under other rules: it has become the live one."""
        self._gate, self._on_progress = gate, on_progress

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
                logger.exception("indexing %s-%d", self._place.topic, indexer.place.partition)
                await asyncio.sleep(RETRY_S)
                self.trouble = None

    def _known_elsewhere(self, partition: int, hashes: list[bytes]) -> dict[bytes, Float32]:
        """Vectors that other partitions have: a text is embedded once for the whole topic, and once for two generations that
        agree about its vector."""
        others = [index for other, index in list(self.indexes.items()) if other != partition]
        found = known_vectors(others, hashes)
        missing = [content for content in hashes if content not in found]
        return found | self._known_outside(missing) if missing and self._known_outside else found

    def ring(self, partition: int, state: LogState) -> None:
        """A partition's log has moved."""
        indexer = self._indexers.get(partition)
        if indexer is not None:
            indexer.ring(state)

    # How far it is

    def indexed_offset(self, partition: int) -> int:
        """Exclusive; -1 while the partition's index is not open."""
        index = self.indexes.get(partition)
        return -1 if index is None else index.indexed_offset

    def behind(self, offsets: Mapping[int, int]) -> int:
        """How many records there are below these offsets that are not indexed."""
        return sum(max(0, offset - self.indexed_offset(partition)) for partition, offset in offsets.items())

    @property
    def waiting_for(self) -> str | None:
        """Why nothing is indexed at the moment; None: it is, or has been."""
        identity = self.generation.identity
        unopened = self._parts.models.troubles.get((identity.model, identity.asked_dimensions))
        return self.trouble or unopened or (self.scheduler.trouble if self.scheduler else None)

    @property
    def over_budget(self) -> str | None:
        """How much memory there is, where nothing is indexed for want of it."""
        waits = any(indexer.over_budget for indexer in list(self._indexers.values()))
        return self._parts.memory.told() if waits else None

    @property
    def needs_a_person(self) -> bool:
        """Whether that will not mend itself."""
        identity = self.generation.identity
        unopened = (identity.model, identity.asked_dimensions) in self._parts.models.troubles
        return unopened or bool(self.scheduler and self.scheduler.circuit.paused)

    def partition_status(self, partition: int) -> dict[str, Any]:
        """JSON-able."""
        index = self.indexes.get(partition)
        return {"indexed_offset": -1} if index is None else {**index.status(), **self.meters[partition].status()}

    # The end

    async def close(self) -> None:
        """Stops indexing and closes the indexes, with a checkpoint."""
        self._parts.models.left(self)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._in_index_thread(_nothing)  # what is being opened or written there has ended then
        indexes = list(self.indexes.values())
        self.indexes.clear()
        self._indexers.clear()
        for index in indexes:
            self._parts.builder.forget(index)
            await self._in_index_thread(_close, index)
            await self._in_index_thread(self._parts.memory.closed, index)

    async def _in_index_thread(self, call: Any, *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._parts.threads.index, call, *arguments)


def known_vectors(indexes: Iterable[PartitionIndex], hashes: list[bytes]) -> dict[bytes, Float32]:
    """float32[d] of those contents that any of the indexes holds."""
    found: dict[bytes, Float32] = {}
    for index in indexes:
        missing = [content for content in hashes if content not in found]
        if not missing:
            break
        found |= index.known_vectors(missing)
    return found


def _nothing() -> None:
    """Waited for in the index thread, which works in order."""


def _close(index: PartitionIndex) -> None:
    try:
        index.close()
    except OSError:
        # What is lost is one checkpoint interval, which the log has.
        logger.exception("cannot close the index in %s", index.directory)
