"""One topic in a worker: the generation that is searched, the one that is built beside it, and what a caller waits for."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from protocol.errors import ErrorCode, KafkaError
from vector.arrays import Float32
from vector.assignment import Assignment
from vector.embed.scheduler import EmbedScheduler
from vector.generation import Generation, Generations, Identity, Roles, remove_partitions
from vector.generation_index import GenerationIndex, TopicPlace, WorkerParts, known_vectors
from vector.index.partition_index import PartitionIndex
from vector.lag import LagClock
from vector.log_source import LogState
from vector.offset_waits import OffsetWaits
from vector.recall import Sampled

QUERIES_REMEMBERED = 32
RETRY_S = 5.0
HOLD_RECORDS_MAX = 1000
"""Where no more are missing, the live generation waits, so that the next one can reach it and no freshness is lost in between."""
HOLD_S = 10.0
HOLD_POLL_S = 0.01
BACKGROUND_WAIT_MAX_S = 1.0
"""A build waits so long for live traffic before each run of records, and then goes on all the same: it must end some day."""
BACKGROUND_POLL_S = 0.02
EXPIRE_INTERVAL_S = 60.0
FOLLOWERS_POLL_S = 0.5
"""How often the lead asks workers that are not ready for a cut-over."""

logger = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class _Start:
    """When a build began to be watched, and at how many records."""

    at_s: float
    records: int


class TopicIndex:
    """See the module. `start` it; it works until `close`."""

    def __init__(self, assignment: Assignment, parts: WorkerParts) -> None:
        self.assignment = assignment
        self.live: GenerationIndex | None = None
        """What is searched; queries are embedded by its model."""
        self.building: GenerationIndex | None = None
        self.trouble: str | None = None
        self.queries: deque[Float32] = deque(maxlen=QUERIES_REMEMBERED)
        """Vectors of the latest searches, to sample recall with."""
        self._parts = parts
        self._leaving: GenerationIndex | None = None
        """What was searched until a moment ago."""
        self._generations: Generations | None = None
        """The lead's own; the others go by what they are told."""
        self._told = None if assignment.roles is None else Roles.from_message(assignment.roles, self.directory)
        self._lags: dict[int, LagClock] = {}
        self._waits = OffsetWaits(self.behind)
        self._work: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._start: _Start | None = None
        self._built = asyncio.Event()
        self._running, self._live_may_read = asyncio.Event(), asyncio.Event()
        self._live_may_read.set()
        if not assignment.config.paused:
            self._running.set()

    @property
    def topic_id(self) -> bytes:
        return self.assignment.topic_id

    @property
    def directory(self) -> Path:
        """The topic's folder; the id, so a topic created again under the name starts empty."""
        return self._parts.directory / self.assignment.topic_id.hex()

    @property
    def generation(self) -> Generation | None:
        """The live one."""
        return None if self.live is None else self.live.generation

    @property
    def indexes(self) -> dict[int, PartitionIndex]:
        """The live generation's open ones by partition."""
        return {} if self.live is None else self.live.indexes

    def indexed_by(self, generation: int) -> GenerationIndex | None:
        """The generation of this number, when it is open: workers cut over one after the other."""
        known = (self.live, self.building, self._leaving)
        return next((one for one in known if one is not None and one.generation.number == generation), None)

    @property
    def _roles(self) -> Roles:
        return self._generations.roles if self._generations else self._told or Roles()

    @property
    def scheduler(self) -> EmbedScheduler | None:
        """Of the live generation's model; None while it is not there."""
        return None if self.live is None else self.live.scheduler

    def start(self) -> None:
        """Begins to open and index, in the background."""
        self._follow(self.assignment.states)
        self._again()
        self.spawn(self._keep_expiring())

    def _follow(self, states: Mapping[int, LogState]) -> None:
        for partition, state in states.items():
            clock = self._lags.setdefault(partition, LagClock(asyncio.get_running_loop().time))
            clock.saw(state.last_stable_offset)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Does it in the background, until the topic is closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What the broker says

    def take_over(self, assignment: Assignment) -> bool:
        """Goes on with a changed topic, searches included; False where its indexes must be opened anew for that."""
        current = self.assignment
        old, new = current.config, assignment.config
        same_segments = ("hnsw_m", "hnsw_ef_construction", "hnsw_ef_search", "storage", "text_index")
        if any(getattr(old, name) != getattr(new, name) for name in same_segments):
            return False
        current.config, current.model = new, assignment.model
        self._running.clear() if new.paused else self._running.set()
        if old.paused and not new.paused:
            self._parts.models.retry_now()
        self._built.set()
        self.add_partitions({p: state for p, state in assignment.states.items() if p not in current.states})
        return True

    def add_partitions(self, states: Mapping[int, LogState]) -> None:
        """The topic has grown."""
        self.assignment.states.update(states)
        self._follow(states)
        self._again()

    def ring(self, partition: int, state: LogState) -> None:
        """A partition's log has moved."""
        if partition not in self.assignment.states:
            return  # the call that adds it waits for its turn; its indexer reads at once and learns where the log is
        self.assignment.states[partition] = state
        self._follow({partition: state})
        for index in (self.live, self.building):
            if index is not None:
                index.ring(partition, state)

    # From what is configured to what is searched

    def _again(self) -> None:
        """Makes the generations what the assignment says, from wherever the last attempt is; each step may be repeated."""
        if self._work is not None:
            self._work.cancel()
        self._work = asyncio.get_running_loop().create_task(self._keep_arranging())

    async def _keep_arranging(self) -> None:
        while True:
            try:
                await self._arrange()
            except Exception as error:  # whatever it is, nobody else would try again
                self.trouble = str(error) or type(error).__name__
                logger.exception("cannot open the index of %s", self.assignment.topic)
                await asyncio.sleep(RETRY_S)
            else:
                self.trouble = None
                return

    async def _arrange(self) -> None:
        if self.assignment.foreign:
            await self._in_index_thread(remove_partitions, self.directory, self.assignment.foreign)
        if not self.assignment.leads:
            await self._arrange_as_told()
            return
        if self._generations is None:
            if self._parts.persistence is not None:
                await self._parts.persistence.restore_generation(self.topic_id, self.directory)
            self._generations = await self._in_index_thread(Generations, self.directory)
            await self._take_back_lost()
        generations = self._generations
        await self._tell_followers()
        await self._open_live()  # searches by vector work before the model is there, and without it
        config, model = self.assignment.config, self.assignment.model
        embedder = (await self._parts.models.get(model, config.dimensions)).embedder
        identity = Identity(
            config.field,
            config.long_text,
            model,
            embedder.revision,
            embedder.dimensions,
            config.metric,
            config.dimensions,
        )
        await self._in_index_thread(generations.want, identity)
        await self._tell_followers()
        await self._open_live()
        await self._open_building()
        await self._clean()

    async def _tell_followers(self) -> None:
        if self._parts.followers is not None:
            await self._parts.followers.tell(self.topic_id, self._roles)

    async def _arrange_as_told(self) -> None:
        if self._told is None:
            return  # until the lead has decided
        if self._parts.own_directory:
            await self._in_index_thread(self._told.create)
        await self._take_back_lost()
        await self._open_live()
        await self._open_building()
        if self._parts.own_directory:
            await self._in_index_thread(self._told.clean, self.directory)

    async def _take_back_lost(self) -> None:
        """What a log lost with its tail goes from the kept generation too, which is opened again when it may be too late to know."""
        kept, recovered = self._roles.previous, self.assignment.recovered
        if kept is not None and recovered and self.live is None:
            index = self._new_index(kept)
            await index.open([p for p in recovered if kept.partition_directory(p).is_dir()], recovered)
            await index.close()

    def _new_index(self, generation: Generation, **options: Any) -> GenerationIndex:
        assignment = self.assignment
        place = TopicPlace(assignment.topic, assignment.topic_id, assignment.config, assignment.states, self._lags)
        options = {"gate": self._live_gate, "on_progress": self._progress, **options}
        return GenerationIndex(generation, place, self._parts, **options)

    async def _open_live(self) -> None:
        wanted = self._roles.live
        if wanted is None:
            return
        if self.live is None:
            self.live = self._new_index(wanted)
        self.spawn(self._index(self.live))  # what is open is indexed while the disk refuses the rest
        await self.live.open(list(self.assignment.states), self.assignment.recovered)
        self.spawn(self._index(self.live))

    async def _index(self, index: GenerationIndex) -> None:
        """Indexes all that is open, once the model is there."""
        if index.scheduler is not None or await index.find_model():
            index.index(list(index.indexes))

    async def _open_building(self) -> None:
        wanted = self._roles.building
        if self.building is not None and self.building.generation != wanted:
            await self._abandon()
        if wanted is None or (
            self.live is not None and self.live.generation == wanted
        ):  # its cut-over is being written down
            return
        if self.building is None:
            self.building = self._new_index(
                wanted,
                gate=self._building_gate,
                on_progress=self._built.set,
                known_elsewhere=lambda hashes: self._known_to_live(wanted, hashes),
            )
            self.building.background = True
            self._start = None
            if self.assignment.leads:
                self.spawn(self._finish(self.building))
        building = self.building
        await building.open(list(self.assignment.states), self.assignment.recovered)
        self.spawn(self._index(building))
        if self.building is building:  # not cut over meanwhile, by command
            self._start = self._start or _Start(asyncio.get_running_loop().time(), self._records(building))
            self._built.set()

    def _known_to_live(self, generation: Generation, hashes: list[bytes]) -> dict[bytes, Float32]:
        live = self.live
        if live is None or not live.generation.identity.same_vectors(generation.identity):
            return {}
        return known_vectors(list(live.indexes.values()), hashes)

    async def _abandon(self) -> None:
        building, self.building = self.building, None
        self._live_may_read.set()
        if building is not None:
            await self._whatever_happens(building.close())

    def _whatever_happens(self, work: Coroutine[Any, Any, None]) -> Awaitable[None]:
        """Does it to its end, also when the caller is cancelled; `close` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return asyncio.shield(task)

    # Who may index now

    async def _live_gate(self) -> None:
        await self._running.wait()
        await self._live_may_read.wait()

    async def _building_gate(self) -> None:
        """Behind the live traffic."""
        await self._running.wait()
        await _until(lambda: not self._live_is_busy(), BACKGROUND_POLL_S, BACKGROUND_WAIT_MAX_S)

    def _live_is_busy(self) -> bool:
        live = self.live
        if live is None or live.scheduler is None or live.waiting_for or not self._live_may_read.is_set():
            return False
        return live.behind({p: state.last_stable_offset for p, state in self.assignment.states.items()}) > 0

    # Cut-over

    async def _finish(self, building: GenerationIndex) -> None:
        """Waits until the generation has all that the live one has, and puts it into its place."""
        while self.building is building:
            await self._built.wait()
            self._built.clear()
            if self.assignment.config.cutover == "manual" or self._missing(building) > HOLD_RECORDS_MAX:
                continue
            if self.building is building and await self._hold(building):
                return

    def _missing(self, building: GenerationIndex) -> int:
        """Records that searches find now and would not find in it."""
        live = self.live
        offsets = {partition: live.indexed_offset(partition) for partition in live.indexes} if live else {}
        unopened = set(self.assignment.states) - set(building.indexes)
        return building.behind(offsets) + (HOLD_RECORDS_MAX + 1 if unopened else 0)

    async def _hold(self, building: GenerationIndex) -> bool:
        """Lets the live generation wait for the next one, in all workers; whether that has taken its place."""
        followers, number = self._parts.followers, building.generation.number
        if followers is not None and not await followers.hold(self.topic_id, number):
            await asyncio.sleep(FOLLOWERS_POLL_S)
            self._built.set()
            return False
        self._live_may_read.clear()
        try:
            reached = await _until(lambda: not self._missing(building), HOLD_POLL_S, HOLD_S)
            if reached and self.building is building:
                await self._switch(building)
                return True
            if followers is not None:
                await followers.release(self.topic_id)
            return False
        finally:
            self._live_may_read.set()

    async def hold(self, number: int) -> bool:
        """For the lead: lets the live generation wait until the other one has all that it has; whether it has."""
        building = self.building
        if building is None or building.generation.number != number or self._missing(building) > HOLD_RECORDS_MAX:
            return False
        self._live_may_read.clear()
        reached = await _until(lambda: not self._missing(building), HOLD_POLL_S, HOLD_S)
        if reached:  # a lead that is gone says nothing more
            asyncio.get_running_loop().call_later(HOLD_S, self.release)
        else:
            self.release()
        return reached

    def release(self) -> None:
        """The live generation goes on."""
        self._live_may_read.set()

    async def follow(self, message: Mapping[str, Any]) -> None:
        """Does what the lead has decided; returns when what is not needed any more is closed."""
        self._told = Roles.from_message(message, self.directory)
        if self.building is not None and self.building.generation == self._told.live:
            await self._switch(self.building)
            self.release()
        elif self.live is not None and self.live.generation != self._told.live:
            old, self.live = self.live, None
            await self._whatever_happens(old.close())
        if self.building is not None and self.building.generation != self._told.building:
            await self._abandon()
        self._again()

    async def _switch(self, building: GenerationIndex) -> None:
        """Searches see the one or the other, never both; a crash before it is written down repeats it."""
        old, self.live, self.building = self.live, building, None
        self._leaving = old
        building.background = False
        building.admit(self._live_gate, self._progress)
        self._progress()
        await self._whatever_happens(self._settle(building.generation, old))

    async def _settle(self, new: Generation, old: GenerationIndex | None) -> None:
        if self._generations is not None:
            await self._in_index_thread(self._generations.cut_over, new.number, self._parts.clock.time_ms())
            await self._tell_followers()
        if old is not None:
            await old.close()
        if self._leaving is old:
            self._leaving = None
        if self._parts.persistence is not None:
            self._parts.persistence.notice()
        await self._clean()

    async def cut_over(self) -> None:
        """Puts the generation that is being built into the place of the live one as it is. Raises KafkaError where there is none."""
        if self.building is None:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, f"topic {self.assignment.topic!r}: no generation is being built"
            )
        await self._switch(self.building)

    async def go_back(self) -> None:
        """Makes the previous generation the live one again, as soon as it has caught up. Raises KafkaError where there is none."""
        if self._generations is None or self._generations.previous is None:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, f"topic {self.assignment.topic!r}: no previous generation is kept"
            )
        await self._in_index_thread(self._generations.go_back)
        self._again()

    async def rebuild(self) -> None:
        """Builds the live generation anew from the log: what failed is tried again, what is known is not embedded again."""
        if self._generations is None or self._generations.live is None:
            raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "the index is loading")
        if self._generations.building is not None:
            number = self._generations.building.number
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, f"topic {self.assignment.topic!r}: generation {number} is being built"
            )
        await self._in_index_thread(self._generations.rebuild)
        self._again()

    async def _keep_expiring(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_INTERVAL_S)
            try:
                await self._clean()
            except OSError:
                logger.exception("cannot delete old generations of %s", self.assignment.topic)

    async def _clean(self) -> None:
        if self._generations is None:
            return
        keep_ms = self.assignment.config.generation_retention_ms
        before = self._roles
        await self._in_index_thread(self._generations.expire, self._parts.clock.time_ms(), keep_ms)
        if self._roles != before:
            await self._tell_followers()
        for number in await self._in_index_thread(self._generations.clean):
            self._parts.forget_failures(self.assignment.topic_id, number)

    # Freshness

    def indexed_offset(self, partition: int) -> int:
        """Exclusive; -1 while the partition's index is not open."""
        return -1 if self.live is None else self.live.indexed_offset(partition)

    def lag_ms(self, partition: int) -> int:
        """For how long the oldest committed record that is not indexed has been there; 0 when all are, or the index is not open."""
        index = self.indexes.get(partition)
        return 0 if index is None else self._lags[partition].lag_ms(index.indexed_offset)

    def behind(self, offsets: Mapping[int, int]) -> bool:
        """Whether a partition has not been indexed up to its offset."""
        return any(self.indexed_offset(partition) < offset for partition, offset in offsets.items())

    async def wait_for(self, offsets: Mapping[int, int], wait_s: float) -> bool:
        """Until the index is that far, at most `wait_s`; whether it is."""
        return await self._waits.wait_for(offsets, wait_s)

    def _progress(self) -> None:
        self._waits.progress()

    # Status and end

    def look(self) -> None:
        """Called now and then, for the rates."""
        for index in (self.live, self.building):
            for meter in list(index.meters.values()) if index else ():
                meter.look()

    def sampled(self) -> list[Sampled]:
        """What recall is sampled of."""
        live, queries = self.live, list(self.queries)
        return [] if live is None else [(i, queries, live.meters[p].recall) for p, i in list(live.indexes.items())]

    def gauges(self) -> list[tuple[int, dict[str, float]]]:
        """(partition, figures for metrics) of every open index."""
        live = self.live
        meters = list(live.meters.items()) if live else []
        return [(partition, {"lag_ms": self.lag_ms(partition), **meter.gauges()}) for partition, meter in meters]

    def status(self) -> dict[str, Any]:
        """JSON-able; see broker.search.status for what it becomes."""
        scheduler, generation = self.scheduler, self.generation
        trouble, paused = self._trouble()
        return {
            "generation": generation.number if generation else 0,
            "identity": asdict(generation.identity) if generation else None,
            "generations": self._generations_status(),
            "trouble": trouble,
            "paused": paused,
            "over_budget": self.live is not None and self.live.over_budget is not None and not paused,
            "embedder": scheduler.status() if scheduler else None,
            "objects": self._parts.persistence.status() if self._parts.persistence else None,
            "partitions": {partition: self._partition_status(partition) for partition in self.assignment.states},
        }

    def _trouble(self) -> tuple[str | None, bool]:
        """Why the index is not keeping up, and whether only a person can help."""
        if self.assignment.config.paused:
            return "paused by vector.paused=true; `senselog vector resume` goes on", True
        unopened = self._parts.models.troubles.get((self.assignment.model, self.assignment.config.dimensions))
        if self.live is None or self.trouble:
            return self.trouble or unopened, bool(unopened)
        waiting_for = self.live.waiting_for or self.live.over_budget
        if waiting_for and self.building is not None:
            progress = self._build_status(self.building)["progress"]
            waiting_for += f"; generation {self.building.generation.number} replaces it, {progress:.0%} is built"
        return waiting_for, self.live.needs_a_person

    def _generations_status(self) -> dict[str, Any]:
        previous = self._roles.previous
        return {
            "building": self._build_status(self.building) if self.building else None,
            "previous": {"generation": previous.number, "identity": asdict(previous.identity)} if previous else None,
        }

    def _records(self, index: GenerationIndex) -> int:
        """Records of the log that a generation is done with."""
        states = self.assignment.states.items()
        return sum(max(0, index.indexed_offset(p) - state.log_start_offset) for p, state in states)

    def _build_status(self, building: GenerationIndex) -> dict[str, Any]:
        states = self.assignment.states.values()
        total = sum(state.last_stable_offset - state.log_start_offset for state in states)
        done = min(total, self._records(building))
        start = self._start or _Start(asyncio.get_running_loop().time(), done)
        seconds = asyncio.get_running_loop().time() - start.at_s
        rate_per_s = (done - start.records) / seconds if seconds > 0 else 0.0
        return {
            "generation": building.generation.number,
            "identity": asdict(building.generation.identity),
            "records": total,
            "done": done,
            "progress": done / total if total else 1.0,
            "rate_per_s": round(rate_per_s, 1),
            "eta_s": round((total - done) / rate_per_s, 1) if rate_per_s > 0 else None,
            "failed": sum(index.counts.failed for index in list(building.indexes.values())),
            "waits_for_command": self.assignment.config.cutover == "manual",
            "trouble": building.waiting_for or building.over_budget,
        }

    def _partition_status(self, partition: int) -> dict[str, Any]:
        known = {"indexed_offset": -1} if self.live is None else self.live.partition_status(partition)
        return {**known, "lag_ms": self.lag_ms(partition)}

    async def close(self) -> None:
        """Stops indexing and closes the indexes, with a checkpoint."""
        tasks = [*self._tasks, *([self._work] if self._work else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._closing, return_exceptions=True)
        for index in (self.live, self.building):
            if index is not None:
                await index.close()
        self.live = self.building = None

    async def _in_index_thread(self, call: Any, *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._parts.threads.index, call, *arguments)


async def _until(condition: Callable[[], bool], poll_s: float, timeout_s: float) -> bool:
    """Waits for it, at most so long; whether it holds."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + timeout_s
    while loop.time() < end_s:
        if condition():
            return True
        await asyncio.sleep(poll_s)
    return condition()
