"""One search in the worker: embed the queries, wait for the offsets, search each partition, merge."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from protocol.errors import ErrorCode, KafkaError
from vector.generation import Generation
from vector.index.partition_index import PartitionIndex
from vector.indexer import LogSource
from vector.log_reader import LogReader
from vector.query_points import Point, QueryPoints
from vector.search_run import Row, Snapshot, read_cursors, run_search
from vector.shard import Shard
from vector.shards import Shards
from vector.threads import WorkerThreads
from vector.topic_index import TopicIndex


class TopicSearch:
    """Answers the broker's `search` calls for one topic. Messages are plain dicts, see `broker.search.service`."""

    def __init__(self, topic: TopicIndex, source: LogSource, threads: WorkerThreads) -> None:
        self._topic = topic
        self._source = source
        self._threads = threads
        self._points = QueryPoints(topic, source)

    async def search(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Raises KafkaError: 14 while the index loads, 15 without a model for texts, 78 when the wait ran out, 42, 91."""
        topic = self._topic
        generation, _ = self._open_indexes(message)
        started = time.perf_counter_ns()
        min_offsets: dict[int, int] = message["min_offsets"]
        waiting = asyncio.create_task(topic.wait_for(min_offsets, message["wait_ms"] / 1000))
        try:
            points = await self._points.points(message["queries"], message["mode"])
            topic.queries.extend(point.vector for point in points if point.vector is not None)
            embedded = time.perf_counter_ns()
            fresh = await waiting
        finally:
            waiting.cancel()
        if not fresh and not message["partial_ok"]:
            behind = {
                p: topic.indexed_offset(p) for p, offset in min_offsets.items() if topic.indexed_offset(p) < offset
            }
            state = ", ".join(f"partition {p} is indexed up to {at} of {min_offsets[p]}" for p, at in behind.items())
            raise KafkaError(ErrorCode.OFFSET_NOT_AVAILABLE, f"not indexed within {message['wait_ms']} ms: {state}")
        waited = time.perf_counter_ns()
        now, indexes = self._open_indexes(message)
        if now is not generation:  # the vectors are the other's
            raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "the index is loading: it has just been replaced")
        states = self.states(message)  # before the search: what is indexed meanwhile is not in its hits
        loop = asyncio.get_running_loop()
        if message["gone"]:
            await loop.run_in_executor(self._threads.index, _bury, indexes, message["gone"])
        reader = LogReader(self._source, self._topic.assignment.topic_id, loop)
        snapshot = Snapshot(topic.assignment.topic_id, generation.number, {p: state[0] for p, state in states.items()})
        try:
            results = await loop.run_in_executor(
                self._threads.search, _search, indexes, points, message, snapshot, reader
            )
        finally:
            reader.stop()
        return {
            "model": generation.identity.model,
            "dimensions": generation.identity.dimensions,
            "metric": generation.identity.metric,
            "generation": generation.number,
            "complete": fresh,
            "embed_micros": (embedded - started) // 1000,
            "wait_micros": (waited - embedded) // 1000,
            "search_micros": (time.perf_counter_ns() - waited) // 1000,
            "results": results,
            "states": states,
        }

    def _open_indexes(self, message: Mapping[str, Any]) -> tuple[Generation, dict[int, PartitionIndex]]:
        """What is to be searched. Raises KafkaError COORDINATOR_LOAD_IN_PROGRESS while any of it is not open."""
        generation, indexes = self._topic.generation, self._topic.indexes
        wanted = [one["partition"] for one in message["partitions"]]
        if generation is None or any(partition not in indexes for partition in wanted):
            # The model comes first: without it nobody knows what the index would be.
            reason = self._topic.status()["trouble"]
            raise KafkaError(
                ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, f"the index is loading{f': {reason}' if reason else ''}"
            )
        return generation, {partition: indexes[partition] for partition in wanted}

    def states(self, message: Mapping[str, Any]) -> dict[int, tuple[int, int, int]]:
        """(indexed_offset, lag_ms, failed) of each partition asked for."""
        states = {}
        for wanted in message["partitions"]:
            partition = wanted["partition"]
            index = self._topic.indexes.get(partition)
            failed = index.counts.failed if index else 0
            states[partition] = (self._topic.indexed_offset(partition), self._topic.lag_ms(partition), failed)
        return states


# In a search thread


def _search(
    indexes: Mapping[int, PartitionIndex],
    points: Sequence[Point],
    message: Mapping[str, Any],
    snapshot: Snapshot,
    reader: LogReader,
) -> list[tuple[list[Row], bytes | None]]:
    cursors = read_cursors(message, snapshot)
    shard = Shard(indexes, message, cursors[0].up_to, reader)
    return run_search(Shards(shard), points, message, cursors)


# In the index thread


def _bury(indexes: Mapping[int, PartitionIndex], places: Iterable[tuple[int, int]]) -> None:
    """The log has no records there any more."""
    offsets: dict[int, list[int]] = {}
    for partition, offset in places:
        offsets.setdefault(partition, []).append(offset)
    for partition, gone in offsets.items():
        indexes[partition].bury(gone)
