"""One partition's indexer: read a bounded run from the log, embed what is new, append, advance; for ever.

indexed + skipped + failed = records below `indexed_offset`, at every moment (design/vector.md, Indexing).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import numpy as np

from protocol.errors import KafkaError
from vector.arrays import Float32
from vector.channel import ChannelClosed
from vector.compaction import bury_compacted
from vector.embed.port import Refusal
from vector.embed.scheduler import EmbedScheduler
from vector.index.builder import Builder
from vector.index.partition_index import PartitionIndex
from vector.index.scoring import storable
from vector.lag import LagClock
from vector.log_source import LogRun, LogSource, LogState, PartitionPlace
from vector.memory import MemoryBudget
from vector.prepare import Extraction, Failure, Stretch, stretches
from vector.threads import WorkerThreads

READ_BYTES_MAX = 256 * 1024
CHECKPOINT_INTERVAL_S = 2.0
"""How much embedding a crash may repeat; each one costs an fsync."""
BACKLOG_WAIT_S = 0.2
ROOM_WAIT_S = 0.25
"""While the worker's memory is used up."""
# A busy log of small batches is read this often, not after each of them: every read takes a turn of the broker's loop.
# Measured with one producer, one record at a time: the median round trip is 1.9 times as long without, as long as ever with it.
READ_INTERVAL_S = 0.005
SMALL_READ_BYTES = 16 * 1024
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class PartitionIndexer:
    """See the module. Lives on the worker's event loop; the index itself belongs to the index thread."""

    def __init__(
        self,
        place: PartitionPlace,
        index: PartitionIndex,
        extraction: Extraction,
        *,
        source: LogSource,
        scheduler: EmbedScheduler,
        threads: WorkerThreads,
        builder: Builder,
        known_elsewhere: Callable[[list[bytes]], dict[bytes, Float32]],
        on_progress: Callable[[], None],
        state: LogState,
        lag: LagClock,
        memory: MemoryBudget,
        on_truncate: Callable[[], None] = lambda: None,
        gate: Callable[[], Awaitable[object]],
        background: Callable[[], bool] = lambda: False,
    ) -> None:
        self.place = place
        self.index = index
        self.state = state
        self._extraction = extraction
        self._lag = lag
        self._memory = memory
        self._on_truncate = on_truncate
        self.over_budget = False
        """Whether nothing is indexed for want of memory."""
        self._source = source
        self._scheduler = scheduler
        self._threads = threads
        self._builder = builder
        self._known_elsewhere = known_elsewhere
        self._on_progress = on_progress
        self._gate = gate
        self._background = background
        self._bell = asyncio.Event()
        self._bell.set()
        self._checkpoint_due: float | None = None
        self._followed_log_start = -1
        self._read_not_before = 0.0
        self._compared_offset = 0
        """Below, what compaction removed is known. Nothing of that outlives this object, and an index may come from an object store
        that has kept it for longer: so the first comparison is with all of the log that was ever compacted."""
        self._comparing: asyncio.Task[None] | None = None

    # What the broker tells

    def ring(self, state: LogState) -> None:
        """The log has moved."""
        self._learn(state)
        self._bell.set()

    def _learn(self, state: LogState) -> None:
        self._lag.saw(state.last_stable_offset)
        self.state = state

    # The loop

    async def run(self) -> None:
        """Until cancelled. Raises what neither waiting nor trying again can mend: KafkaError, OSError, ChannelClosed."""
        try:
            await self._run()
        finally:
            if self._comparing is not None:
                self._comparing.cancel()

    async def _run(self) -> None:
        while True:
            await self._wait()
            self._compare_with_log()
            if self.state.log_start_offset > self._followed_log_start:
                await self._in_index_thread(self._follow_log_start, self.state.log_start_offset)
                self._advance()
            if self.index.backlogged:
                await asyncio.sleep(BACKLOG_WAIT_S)
                self._bell.set()
                continue
            await self._gate()
            await asyncio.sleep(max(0.0, self._read_not_before - asyncio.get_running_loop().time()))
            run = await self._source.read(
                self.place.topic_id, self.place.partition, self.index.indexed_offset, READ_BYTES_MAX
            )
            self._learn(run.state)
            if len(run.batches) < SMALL_READ_BYTES:
                self._read_not_before = asyncio.get_running_loop().time() + READ_INTERVAL_S
            if run.next_offset < self.index.indexed_offset:
                await self._in_index_thread(self._truncate, run.next_offset)
            elif run.next_offset > self.index.indexed_offset:
                await self._index(run)

    def _compare_with_log(self) -> None:
        """After a compaction, in the background."""
        if self._comparing is None and self.state.cleaned_offset > self._compared_offset:
            self._comparing = asyncio.get_running_loop().create_task(self._compare(self.state.cleaned_offset))

    async def _compare(self, cleaned_offset: int) -> None:
        try:
            async with self._threads.comparing:
                await bury_compacted(self.index, self.place, cleaned_offset, self._source, self._threads)
        except (KafkaError, ChannelClosed, OSError) as error:
            logger.warning("cannot compare %s with its compacted log: %s", self.index.directory, error)
        else:
            self._compared_offset = cleaned_offset
            await self._in_index_thread(self._builder.submit, self.index)
            self._bell.set()  # it may have been compacted again
        finally:
            self._comparing = None

    async def _wait(self) -> None:
        """For news, checkpointing meanwhile."""
        while self.index.indexed_offset >= self.state.last_stable_offset and not self._bell.is_set():
            if self._checkpoint_due is None:
                await self._bell.wait()
            else:
                try:
                    # Not wait_for: in Python 3.11 that loses a cancellation that comes together with the bell.
                    async with asyncio.timeout_at(self._checkpoint_due):
                        await self._bell.wait()
                except TimeoutError:
                    await self.checkpoint()
        self._bell.clear()

    async def _index(self, run: LogRun) -> None:
        parts = stretches(memoryview(run.batches), self.index.indexed_offset, run.next_offset, self._extraction)
        while True:
            prepared = await self._in_index_thread(self._prepare, parts)
            if prepared is None:
                return
            stretch, vectors = prepared
            reasons: dict[bytes, str] = {}
            new = {content: text for content, text in stretch.texts.items() if content not in vectors}
            if new:
                embedded = await self._scheduler.vectors(new, background=self._background())
                vectors |= {content: one for content, one in embedded.items() if not isinstance(one, Refusal)}
                reasons = {content: one.reason for content, one in embedded.items() if isinstance(one, Refusal)}
            failures, appended = await self._in_index_thread(self._append_unless_failed, stretch, vectors, reasons)
            if failures:
                # First, so that a crash between the two repeats this, which is told once all the same, instead of losing it.
                await self._source.quarantine(self.place, self._scheduler.embedder.name, failures)
            if not appended:
                await self._append_when_there_is_room(stretch, vectors)
            self._advance()
            if asyncio.get_running_loop().time() >= (self._checkpoint_due or 0.0):
                await self.checkpoint()

    async def _append_when_there_is_room(self, stretch: Stretch, vectors: dict[bytes, Float32]) -> None:
        try:
            while not await self._in_index_thread(self._append, stretch, vectors):
                self.over_budget = True
                await self.checkpoint()
                await asyncio.sleep(ROOM_WAIT_S)
                await self._in_index_thread(self.index.drop_below, self.state.log_start_offset)
        finally:
            self.over_budget = False

    def _advance(self) -> None:
        if self._checkpoint_due is None:
            self._checkpoint_due = asyncio.get_running_loop().time() + CHECKPOINT_INTERVAL_S
        self._on_progress()

    async def checkpoint(self) -> None:
        """Makes the progress so far durable. Raises OSError."""
        self._checkpoint_due = None
        await self._in_index_thread(self.index.checkpoint)

    async def _in_index_thread(self, call: Callable[..., Result], *arguments: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads.index, call, *arguments)

    # In the index thread

    def _prepare(self, parts: Iterator[Stretch]) -> tuple[Stretch, dict[bytes, Float32]] | None:
        stretch = next(parts, None)
        if stretch is None:
            return None
        known = self.index.known_vectors(list(stretch.texts))
        missing = [content for content in stretch.texts if content not in known]
        if missing:
            known |= self._known_elsewhere(missing)
        return stretch, known | stretch.vectors

    def _append_unless_failed(
        self, stretch: Stretch, vectors: dict[bytes, Float32], reasons: dict[bytes, str]
    ) -> tuple[list[Failure], bool]:
        """Appends a stretch of which nothing failed, if there is room; else takes what the index cannot hold out of `vectors`.

        What failed, and whether it is appended.
        """
        contents = [content for content in vectors if content in stretch.texts or content in stretch.vectors]
        if contents:
            good = storable(np.vstack([vectors[content] for content in contents]), self.index.settings)
            for content, usable in zip(contents, good.tolist(), strict=True):
                if not usable:
                    reasons[content] = "the vector is not finite, too large for the index, or has no direction"
                    del vectors[content]
        failures = stretch.refused(reasons)
        return failures, not failures and self._append(stretch, vectors)

    def _append(self, stretch: Stretch, vectors: dict[bytes, Float32]) -> bool:
        run = stretch.to_run(vectors, self.index.settings.dimensions)
        if not self._memory.take(self.index, run):
            return False
        self.index.append(run)
        self._builder.submit(self.index)
        return True

    def _follow_log_start(self, log_start_offset: int) -> None:
        """Records that retention took before they were indexed are no records any more: the position jumps over them."""
        self._followed_log_start = log_start_offset
        if self.index.indexed_offset < log_start_offset:
            jump = Stretch(next_offset=log_start_offset)
            self.index.append(jump.to_run({}, self.index.settings.dimensions))
        self.index.drop_below(log_start_offset)

    def _truncate(self, log_end_offset: int) -> None:
        """The log lost its tail (it was not synced): what was indexed of it is taken back."""
        self.index.truncate(log_end_offset)
        self._on_truncate()
