"""From queries to what is compared: every query's vector, with one call of the model for all their texts."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import Record, select_records, walk_batches
from vector.arrays import Float32
from vector.extract import content_hash, extract_text
from vector.log_source import LogSource
from vector.request import vector_from_bytes
from vector.topic_index import TopicIndex

Query = Mapping[str, Any]
"""text, vector (float32 little-endian), record, or positive and negative (lists of such)."""


VectorElsewhere = Callable[[int, int], Awaitable[Float32 | None]]
"""The vector of a record of a partition that this worker has not: (partition, offset)."""


@dataclass(frozen=True, slots=True)
class Point:
    """A query: its vector float32[d] in modes vector and hybrid, its text in modes text and hybrid."""

    vector: Float32 | None
    text: str | None


class QueryPoints:
    """Resolves the queries of one topic."""

    def __init__(self, topic: TopicIndex, source: LogSource) -> None:
        self._topic = topic
        self._source = source

    async def points(self, queries: Sequence[Query], mode: str, elsewhere: VectorElsewhere) -> list[Point]:
        """What each query is compared by in this mode; only vector and hybrid need the model.

        Raises KafkaError: 15 without a model for texts, 42, 91.
        """
        texts = [None if mode == "vector" else await self._text(query) for query in queries]
        vectors = [None] * len(queries) if mode == "text" else await self._vectors(queries, elsewhere)
        return [Point(vector, text) for vector, text in zip(vectors, texts, strict=True)]

    async def _text(self, query: Query) -> str:
        return str(query["text"]) if query.get("text") is not None else await self.text_of(*query["record"])

    async def _vectors(self, queries: Sequence[Query], elsewhere: VectorElsewhere) -> list[Float32]:
        points = [point for query in queries for point in _points(query)]
        known: list[Float32 | str] = [await self._point(point, elsewhere) for point in points]
        texts = list(dict.fromkeys(point for point in known if isinstance(point, str)))
        embedded = dict(zip(texts, await self._embed(texts), strict=True)) if texts else {}
        resolved = iter([embedded[point] if isinstance(point, str) else point for point in known])
        return [self._combined(query, [next(resolved) for _ in _points(query)]) for query in queries]

    async def _point(self, query: Query, elsewhere: VectorElsewhere) -> Float32 | str:
        if query.get("text") is not None:
            return str(query["text"])
        if query.get("vector") is not None:
            return self._given(query["vector"])
        partition, offset = query["record"]
        index = self._topic.indexes.get(partition)
        found = await elsewhere(partition, offset) if index is None else index.vectors_at([offset]).get(offset)
        return await self.text_of(partition, offset) if found is None else found

    def _combined(self, query: Query, points: list[Float32]) -> Float32:
        """Of examples: what the positive ones have in common, moved away from the negative ones: 2 * mean(+) - mean(-)."""
        if not query.get("positive"):
            return points[0]
        generation = self._topic.generation
        assert generation is not None
        matrix = np.array(points, dtype=np.float64)
        if generation.identity.metric == "cosine":
            matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
        count = len(query["positive"])
        vector = matrix[:count].mean(axis=0)
        if len(points) > count:
            vector = 2 * vector - matrix[count:].mean(axis=0)
        if generation.identity.metric == "cosine" and not np.linalg.norm(vector) > 1e-6:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "positive: the examples cancel one another out")
        combined: Float32 = vector.astype(np.float32)
        return combined

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

    async def text_of(self, partition: int, offset: int) -> str:
        """The text of a record, from the log. Raises KafkaError RESOURCE_NOT_FOUND."""
        record = await self._record(partition, offset)
        generation = self._topic.generation
        text = None if record is None or generation is None else extract_text(record, generation.identity.field)[0]
        if text is None:
            raise KafkaError(
                ErrorCode.RESOURCE_NOT_FOUND, f"record: partition {partition} has no embedded record at offset {offset}"
            )
        return text

    async def _record(self, partition: int, offset: int) -> Record | None:
        run = await self._source.read(self._topic.assignment.topic_id, partition, offset, 1)
        batches = memoryview(run.batches)
        for header in walk_batches(batches):
            if header.control:
                continue
            for record in select_records(batches[header.position : header.position + header.size], [offset]):
                return record
        return None


def _points(query: Query) -> Sequence[Query]:
    return [*query["positive"], *query["negative"]] if query.get("positive") else [query]
