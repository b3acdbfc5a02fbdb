"""One search in the worker: embed the queries, wait for the offsets, search each partition, merge."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import iterate_records, walk_batches
from vector.embed.port import Float32
from vector.extract import content_hash, extract_text
from vector.filter.parse import parse_filter
from vector.filter.tree import Condition
from vector.generation import Generation
from vector.index.partition_index import PartitionIndex
from vector.index.query import NO_LIMIT, Candidate, IndexQuery, RecordFilter, query_vector
from vector.index.search import search
from vector.index.selection import ReadRecords
from vector.indexer import LogSource
from vector.log_reader import LogReader
from vector.request import vector_from_bytes
from vector.threads import WorkerThreads
from vector.topic_index import TopicIndex


class TopicSearch:
    """Answers the broker's `search` calls for one topic. Messages are plain dicts, see `broker.search.service`."""

    def __init__(self, topic: TopicIndex, source: LogSource, threads: WorkerThreads) -> None:
        self._topic = topic
        self._source = source
        self._threads = threads

    async def search(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Raises KafkaError: 14 while the index loads, 15 without a model for texts, 78 when the wait ran out, 42, 91."""
        topic = self._topic
        generation, _ = self._open_indexes(message)
        started = time.perf_counter_ns()
        min_offsets: dict[int, int] = message["min_offsets"]
        waiting = asyncio.create_task(topic.wait_for(min_offsets, message["wait_ms"] / 1000))
        try:
            vectors = await self._vectors(message["queries"])
            topic.queries.extend(vectors)
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
        try:
            results = await loop.run_in_executor(self._threads.search, _search, indexes, vectors, message, reader)
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

    # Query vectors

    async def _vectors(self, queries: list[dict[str, Any]]) -> list[Float32]:
        texts = {index: query["text"] for index, query in enumerate(queries) if query.get("text") is not None}
        vectors: dict[int, Float32] = {}
        if texts:
            vectors.update(zip(texts, await self._embed(list(texts.values())), strict=True))
        for index, query in enumerate(queries):
            if query.get("vector") is not None:
                vectors[index] = self._given(query["vector"])
            elif index not in vectors:
                vectors[index] = await self._of_record(*query["record"])
        return [vectors[index] for index in range(len(queries))]

    async def _embed(self, texts: list[str]) -> Float32 | list[Float32]:
        scheduler = self._topic.scheduler
        if scheduler is None:
            reason = self._topic.status()["trouble"]
            if reason is None:
                raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "the model is loading")
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"queries cannot be embedded: {reason}")
        fitted = [scheduler.embedder.split(text, 1)[0][0] for text in texts]
        return await scheduler.query(fitted, [content_hash(text) for text in fitted])

    def _given(self, data: bytes) -> Float32:
        vector = vector_from_bytes(data)
        generation = self._topic.generation
        assert generation is not None
        if len(vector) != generation.identity.dimensions:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"vector: has {len(vector)} dimensions, the index has {generation.identity.dimensions}",
            )
        if generation.identity.metric == "cosine" and not vector.any():
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, "vector: all components are zero, cosine has no direction to compare"
            )
        return vector

    async def _of_record(self, partition: int, offset: int) -> Float32:
        """The vector of a record of this topic: the indexed one, else that of its text."""
        index = self._topic.indexes.get(partition)
        if index is not None:
            found = index.vectors_at([offset])
            if offset in found:
                return found[offset]
        nothing = KafkaError(
            ErrorCode.RESOURCE_NOT_FOUND, f"record: partition {partition} has no embedded record at offset {offset}"
        )
        if index is None:
            raise nothing
        run = await self._source.read(self._topic.assignment.topic_id, partition, offset, 1)
        batches = memoryview(run.batches)
        for header in walk_batches(batches):
            for record in iterate_records(batches[header.position : header.position + header.size]):
                if record.offset == offset and not header.control:
                    text, _ = extract_text(record, self._topic.assignment.config.field)
                    if text is not None:
                        return (await self._embed([text]))[0]
        raise nothing


# In the index thread


def _bury(indexes: Mapping[int, PartitionIndex], places: Iterable[tuple[int, int]]) -> None:
    """The log has no records there any more."""
    offsets: dict[int, list[int]] = {}
    for partition, offset in places:
        offsets.setdefault(partition, []).append(offset)
    for partition, gone in offsets.items():
        indexes[partition].bury(gone)


# In a search thread


def _search(
    indexes: Mapping[int, PartitionIndex], vectors: list[Float32], message: Mapping[str, Any], read: ReadRecords
) -> list[list[tuple[Any, ...]]]:
    """Per query: (partition, offset, timestamp_ms, similarity, duplicates, flags, vector bytes or None), best first."""
    condition = None if message["filter"] is None else parse_filter(message["filter"])
    parts = []
    for wanted in message["partitions"]:
        bounds = _record_filter(wanted, message, condition)
        parts += indexes[wanted["partition"]].parts(bounds, read)
    settings = next(iter(indexes.values())).settings
    results = []
    for vector in vectors:
        query = IndexQuery(
            vector=vector,
            limit=message["limit"],
            min_similarity=message["min_similarity"],
            exact=message["exact"],
            ef=message["ef"],
        )
        found = search(parts, query, query_vector(query, settings))
        results.append(_rows(indexes, found, with_vectors=message["vectors"]))
    return results


def _record_filter(wanted: Mapping[str, Any], message: Mapping[str, Any], condition: Condition | None) -> RecordFilter:
    from_timestamp, until_timestamp = message["from_timestamp"], message["until_timestamp"]
    return RecordFilter(
        partition=wanted["partition"],
        offset_from=max(wanted["from"], wanted["log_start"]),
        offset_until=wanted["until"] if wanted["until"] >= 0 else NO_LIMIT,
        timestamp_from=from_timestamp if from_timestamp >= 0 else -NO_LIMIT,
        timestamp_until=until_timestamp if until_timestamp >= 0 else NO_LIMIT,
        condition=condition,
    )


def _rows(
    indexes: Mapping[int, PartitionIndex], found: list[Candidate], *, with_vectors: bool
) -> list[tuple[Any, ...]]:
    vectors: dict[tuple[int, int], bytes] = {}
    if with_vectors:
        for partition in {one.partition for one in found}:
            offsets = [one.offset for one in found if one.partition == partition]
            for offset, vector in indexes[partition].vectors_at(offsets).items():
                vectors[partition, offset] = np.asarray(vector, dtype="<f4").tobytes()
    return [
        (
            one.partition,
            one.offset,
            one.timestamp_ms,
            float(one.similarity),
            one.duplicates,
            one.flags,
            vectors.get((one.partition, one.offset)),
        )
        for one in found
    ]
