"""One search in the worker: embed the queries, wait for the offsets, search all partitions, merge.

Of a search over partitions of several workers one does this, and asks the others for what they have (`vector.shards`).
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from protocol.errors import ErrorCode, KafkaError
from vector.arrays import Float32
from vector.generation import Generation
from vector.generation_index import GenerationIndex
from vector.index.partition_index import PartitionIndex
from vector.index.selection import ReadRecords, read_nothing
from vector.log_reader import LogReader
from vector.log_source import LogSource
from vector.query_points import Point, QueryPoints, VectorElsewhere
from vector.remote_shard import Relay, RemoteShard, State
from vector.request import TEXT_COLLAPSE
from vector.search_run import Row, Snapshot, read_cursors, run_search
from vector.shard import METHODS, Shard
from vector.shards import Shards
from vector.threads import WorkerThreads
from vector.topic_index import TopicIndex

SHARDS_MAX = 32
"""Searches that others run and that are remembered from one of their questions to the next; a forgotten one is planned anew."""
CUT_OVER_S = 3.0
"""For so long workers may disagree about the generation that is searched."""
CUT_OVER_POLL_S = 0.02

BRIEF_BYTES_MAX = 4 * 1024 * 1024
"""Of stored vectors, scanned by the event loop itself: 5,000 of 384 dimensions take 0.1 ms, as long as two threads that wake each other."""
BRIEF_ALONE_BYTES_MAX = 32 * 1024 * 1024
"""Where nobody else waits for the event loop: 1 ms, and waking two threads then is a tenth of the whole search."""
BRIEF_HITS_MAX = 50
"""Of all queries together, at some 5 us each."""
BRIEF_NODES_MAX = 50_000
"""In indexes up to this size; masks of the rows of larger ones take longer than the scan."""

Message = Mapping[str, Any]


class TopicSearch:
    """Answers the broker's `search` calls for one topic. Messages are plain dicts, see `broker.search.service`."""

    def __init__(
        self,
        topic: TopicIndex,
        source: LogSource,
        threads: WorkerThreads,
        relay: Relay | None = None,
        *,
        alone: Callable[[], bool] = lambda: False,
    ) -> None:
        """`alone`: whether the broker asks nothing else at the moment."""
        self._topic = topic
        self._source = source
        self._threads = threads
        self._relay = relay
        self._alone = alone
        self._points = QueryPoints(topic, source)
        self._shards: OrderedDict[bytes, _Planned] = OrderedDict()

    async def search(self, message: Message) -> dict[str, Any]:
        """Raises KafkaError: 14 while the index loads, 15 without a model for texts, 78 when the wait ran out, 42, 91."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CUT_OVER_S
        while True:
            try:
                return await self._search(message)
            except KafkaError as error:
                if error.code != ErrorCode.NOT_COORDINATOR:
                    raise
                if loop.time() >= until:
                    raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, error.message) from None
            await asyncio.sleep(CUT_OVER_POLL_S)

    async def _search(self, message: Message) -> dict[str, Any]:
        topic = self._topic
        index, opened = self._open(message)
        generation = index.generation
        started = time.perf_counter_ns()
        remote = self._remote(message, generation)
        ready = self._ready_at_once(message, index, opened, remote)
        waiting = asyncio.create_task(self._all_ready(message, index, remote)) if ready is None else None
        try:
            points = await self._points.points(message["queries"], message["mode"], self._vectors_of_others(message))
            topic.queries.extend(point.vector for point in points if point.vector is not None)
            embedded = time.perf_counter_ns()
            if waiting is not None:
                ready = await waiting
            assert ready is not None
            fresh, states = ready
            _check_fresh(message, states, fresh=fresh)
            waited = time.perf_counter_ns()
            _, indexes = self._open(message, generation.number)
            states |= self._states(indexes)  # before the search: what is indexed meanwhile is not in its hits
            snapshot = Snapshot(topic.topic_id, generation.number, {p: state[0] for p, state in states.items()})
            searched = [shard for shard in remote if set(shard.partitions) & states.keys()]
            results, covered = await self._run(message, indexes, searched, points, snapshot)
        finally:
            if waiting is not None:
                waiting.cancel()
            for shard in remote:
                self._topic.spawn(shard.end())
        return {
            "model": generation.identity.model,
            "dimensions": generation.identity.dimensions,
            "metric": generation.identity.metric,
            "generation": generation.number,
            "complete": fresh and all(one["partition"] in covered for one in message["partitions"]),
            "embed_micros": (embedded - started) // 1000,
            "wait_micros": (waited - embedded) // 1000,
            "search_micros": (time.perf_counter_ns() - waited) // 1000,
            "results": results,
            "states": states,
            "searched": sorted(covered & states.keys()),
        }

    async def _run(
        self,
        message: Message,
        indexes: Mapping[int, PartitionIndex],
        remote: Sequence[RemoteShard],
        points: Sequence[Point],
        snapshot: Snapshot,
    ) -> tuple[list[tuple[list[Row], bytes | None]], set[int]]:
        """The results, and the partitions that they are of."""

        def run(read: ReadRecords) -> tuple[list[tuple[list[Row], bytes | None]], set[int]]:
            cursors = read_cursors(message, snapshot)
            for shard in remote:
                shard.search_up_to(cursors[0].up_to)
            own = Shard(indexes, message, cursors[0].up_to, read)
            results = run_search(Shards(own, [shard.ask for shard in remote]), points, message, cursors)
            return results, set(cursors[0].up_to)

        bytes_max = BRIEF_ALONE_BYTES_MAX if self._alone() else BRIEF_BYTES_MAX
        if not remote and is_brief(message, indexes, bytes_max):
            return run(read_nothing)
        loop = asyncio.get_running_loop()
        reader = LogReader(self._source, self._topic.topic_id, loop)
        try:
            return await loop.run_in_executor(self._threads.search, run, reader)
        finally:
            reader.stop()

    def _remote(self, message: Message, generation: Generation) -> list[RemoteShard]:
        """The other workers that have some of what is searched, or waited for."""
        shards = []
        for worker, partitions in message["others"].items():
            assert self._relay is not None
            theirs = {
                **message,
                "partitions": [one for one in message["partitions"] if one["partition"] in partitions],
                "min_offsets": {p: offset for p, offset in message["min_offsets"].items() if p in partitions},
                "gone": [place for place in message["gone"] if place[0] in partitions],
            }
            shards.append(RemoteShard(self._relay, worker, generation.number, theirs))
        return shards

    def _vectors_of_others(self, message: Message) -> VectorElsewhere:
        """Asks the worker that has a record for its vector; None where there is none, or that worker is not there."""

        async def vector(partition: int, offset: int) -> Float32 | None:
            worker = message["holders"].get(partition)
            if worker is None or self._relay is None:
                return None
            request = {"topic_id": self._topic.topic_id, "place": (partition, offset)}
            try:
                found = await self._relay("record_vector", (worker, request))
            except KafkaError:
                return None
            return None if found is None else np.frombuffer(found, dtype="<f4")

        return vector

    def _ready_at_once(
        self,
        message: Message,
        index: GenerationIndex,
        opened: Mapping[int, PartitionIndex],
        remote: Sequence[RemoteShard],
    ) -> tuple[bool, dict[int, State]] | None:
        """As `_all_ready`, where there is nothing to wait for; None: there is."""
        if remote or message["gone"] or self._topic.behind(message["min_offsets"]):
            return None
        states = self._states({**opened, **_some(index.indexes, message["min_offsets"])})
        return len(states) >= len(message["partitions"]), states

    async def _all_ready(
        self, message: Message, index: GenerationIndex, remote: Sequence[RemoteShard]
    ) -> tuple[bool, dict[int, State]]:
        """Whether every worker has what the search waits for, and how far each partition is that is open."""
        if not remote:
            fresh, states = await self._ready(message, index)
            return fresh and len(states) >= len(message["partitions"]), states
        waits = [self._ready(message, index), *(self._remotely_ready(shard, message) for shard in remote)]
        answers = await asyncio.gather(*waits)
        states = {partition: state for _, of_worker in answers for partition, state in of_worker.items()}
        whole = all(one["partition"] in states for one in message["partitions"])
        return whole and all(fresh for fresh, _ in answers), states

    async def _remotely_ready(self, shard: RemoteShard, message: Message) -> tuple[bool, dict[int, State]]:
        try:
            return await shard.ready()
        except KafkaError as error:
            if error.code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS and message["answer_in_part"]:
                return False, {}
            raise

    async def _ready(self, message: Message, index: GenerationIndex) -> tuple[bool, dict[int, State]]:
        """The same of this worker alone; tells the indexes what the log has no more."""
        elsewhere = {partition for partitions in message["others"].values() for partition in partitions}
        offsets = {p: offset for p, offset in message["min_offsets"].items() if p not in elsewhere}
        fresh = await self._topic.wait_for(offsets, message["wait_ms"] / 1000)
        _, indexes = self._open(message, index.generation.number)
        here = [place for place in message["gone"] if place[0] in indexes]
        if here:
            await asyncio.get_running_loop().run_in_executor(self._threads.index, _bury, indexes, here)
        return fresh, self._states({**indexes, **_some(index.indexes, offsets)})

    def _open(
        self, message: Message, generation: int | None = None
    ) -> tuple[GenerationIndex, dict[int, PartitionIndex]]:
        """What is to be searched: the live generation, or the one of this number; partitions that are not another worker's.

        Raises KafkaError COORDINATOR_LOAD_IN_PROGRESS while it is not open (with `answer_in_part`, while none of it is);
        NOT_COORDINATOR where another generation is searched.
        """
        live = self._topic.live
        index = live if generation is None else self._topic.indexed_by(generation)
        if index is None and live is not None:
            raise KafkaError(ErrorCode.NOT_COORDINATOR, "the index is loading: it has just been replaced")
        elsewhere = {partition for partitions in message["others"].values() for partition in partitions}
        wanted = [one["partition"] for one in message["partitions"] if one["partition"] not in elsewhere]
        opened = {p: index.indexes[p] for p in wanted if p in index.indexes} if index is not None else {}
        if index is None or (len(opened) < len(wanted) and not (opened and message["answer_in_part"])):
            # The model comes first: without it nobody knows what the index would be.
            reason = self._topic.status()["trouble"]
            raise KafkaError(
                ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, f"the index is loading{f': {reason}' if reason else ''}"
            )
        return index, opened

    def _states(self, indexes: Mapping[int, PartitionIndex]) -> dict[int, State]:
        return {
            partition: (index.indexed_offset, self._topic.lag_ms(partition), index.failed)
            for partition, index in indexes.items()
        }

    # For searches that other workers run

    async def shard_ready(self, request: Message) -> tuple[bool, dict[int, State]]:
        """See `RemoteShard.ready`."""
        index, _ = self._open(request["message"], request["generation"])
        return await self._ready(request["message"], index)

    async def shard(self, request: Message) -> Any:
        """An answer of `Shard`. Raises KafkaError."""
        if request["method"] not in METHODS:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"method: {request['method']!r} is none of a shard's")
        _, indexes = self._open(request["message"], request["generation"])
        loop = asyncio.get_running_loop()
        planned = self._shards.get(request["search"])
        if planned is None:
            planned = _Planned(indexes, request, LogReader(self._source, self._topic.topic_id, loop))
            self._shards[request["search"]] = planned
            while len(self._shards) > SHARDS_MAX:
                self._shards.popitem(last=False)
        self._shards.move_to_end(request["search"])
        return await loop.run_in_executor(self._threads.shards, planned.answer, request)

    def record_vector(self, request: Message) -> bytes | None:
        """float32 little-endian, of the record's first piece."""
        partition, offset = request["place"]
        index = self._topic.indexes.get(partition)
        found = {} if index is None else index.vectors_at([offset])
        return np.asarray(found[offset], dtype="<f4").tobytes() if offset in found else None

    def shard_end(self, request: Message) -> None:
        """Nothing more is asked for this search."""
        planned = self._shards.pop(request["search"], None)
        if planned is not None:
            planned.reader.stop()


class _Planned:
    """A search that another worker runs, as far as it is this one's: planned by the first question, in the thread that answers it."""

    def __init__(self, indexes: Mapping[int, PartitionIndex], request: Message, reader: LogReader) -> None:
        self.reader = reader
        self._indexes = indexes
        self._message = request["message"]
        self._up_to = request["up_to"]
        self._shard: Shard | None = None

    def answer(self, request: Message) -> Any:
        if self._shard is None:
            self._shard = Shard(self._indexes, self._message, self._up_to, self.reader)
        return getattr(self._shard, request["method"])(*request["arguments"])


def is_brief(message: Message, indexes: Mapping[int, PartitionIndex], bytes_max: int) -> bool:
    """Whether the search is a plain scan of at most so many bytes of vectors, without a look at the log."""
    plain = message["mode"] == "vector" and message["collapse"] in (None, TEXT_COLLAPSE)
    plain = plain and message["filter"] is None and message["cursor"] is None
    if not plain or message["limit"] * len(message["queries"]) > BRIEF_HITS_MAX:
        return False
    scanned = nodes = 0
    for wanted in message["partitions"]:
        index = indexes.get(wanted["partition"])
        if index is not None:
            end = min(wanted["until"], index.indexed_offset) if wanted["until"] >= 0 else index.indexed_offset
            rows = min(max(0, end - max(wanted["from"], index.first_offset)), index.node_count)
            scanned += rows * index.settings.dimensions * index.settings.vector_dtype.itemsize
            nodes += index.node_count
    return scanned * len(message["queries"]) <= bytes_max and nodes <= BRIEF_NODES_MAX


def _some(indexes: Mapping[int, PartitionIndex], partitions: Iterable[int]) -> dict[int, PartitionIndex]:
    return {partition: indexes[partition] for partition in partitions if partition in indexes}


def _check_fresh(message: Message, states: Mapping[int, State], *, fresh: bool) -> None:
    if fresh or message["partial_ok"]:
        return
    wanted = message["min_offsets"]
    behind = {
        p: states[p][0] if p in states else -1
        for p, offset in wanted.items()
        if p not in states or states[p][0] < offset
    }
    told = ", ".join(f"partition {p} is indexed up to {at} of {wanted[p]}" for p, at in behind.items())
    raise KafkaError(ErrorCode.OFFSET_NOT_AVAILABLE, f"not indexed within {message['wait_ms']} ms: {told}")


# In the index thread


def _bury(indexes: Mapping[int, PartitionIndex], places: Iterable[tuple[int, int]]) -> None:
    """The log has no records there any more."""
    offsets: dict[int, list[int]] = {}
    for partition, offset in places:
        offsets.setdefault(partition, []).append(offset)
    for partition, gone in offsets.items():
        indexes[partition].bury(gone)
