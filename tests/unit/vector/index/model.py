"""What an index must do, said with lists and loops: the reference of the property tests."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from vector.index.partition_index import PartitionIndex
from vector.index.query import IndexQuery, query_vector
from vector.index.scoring import similarities, stored_form
from vector.index.settings import IndexSettings, Run


def content_hash(content: int) -> bytes:
    """16 bytes, some of which end in zeros: numpy's byte strings drop those unless one takes care."""
    return content.to_bytes(2, "big") + bytes(14) if content % 2 else bytes(14) + content.to_bytes(2, "big")


def content_vector(content: int, dimensions: int) -> np.ndarray:
    """Small whole numbers, so that several contents are equally similar to a query, and some have equal vectors."""
    random = np.random.default_rng(content // 3)
    vector = random.integers(-2, 3, dimensions).astype(np.float32)
    vector[0] = 3.0
    return vector


@dataclass(frozen=True)
class Record:
    """One record of the log: contents of its chunks, () = skipped, None = failed."""

    offset: int
    timestamp_ms: int
    contents: tuple[int, ...] | None
    flags: int = 0


@dataclass(frozen=True)
class Expected:
    offset: int
    timestamp_ms: int
    similarity: float
    duplicates: int
    flags: int


def similarity(query: IndexQuery, content: int, settings: IndexSettings) -> float:
    """One row at a time; what the functions themselves compute is the subject of test_scoring."""
    row = stored_form(content_vector(content, settings.dimensions)[None], settings)
    return float(similarities(row, query_vector(query, settings), settings.metric)[0])


def brute_force(records: list[Record], query: IndexQuery, settings: IndexSettings) -> list[Expected]:
    """The answer, by looking at every record."""
    scores: dict[int, float] = {}
    found: list[tuple[Expected, int]] = []
    having: Counter[int] = Counter()
    for record in records:
        if not record.contents or not _passes(record, query):
            continue
        for content in record.contents:
            if content not in scores:
                scores[content] = similarity(query, content, settings)
            hit = Expected(record.offset, record.timestamp_ms, scores[content], 0, record.flags)
            if query.min_similarity is None or hit.similarity >= query.min_similarity:
                found.append((hit, content))
        having.update(set(record.contents))
    found.sort(key=lambda pair: (-pair[0].similarity, -pair[0].timestamp_ms, pair[0].offset, content_hash(pair[1])))
    result: list[Expected] = []
    seen: set[object] = set()
    for hit, content in found:
        if hit.offset in seen or (query.collapse and ("content", content) in seen):
            continue
        seen |= {hit.offset, ("content", content)}
        result.append(Expected(hit.offset, hit.timestamp_ms, hit.similarity, having[content] - 1, hit.flags))
    return result[: query.limit]


def _passes(record: Record, query: IndexQuery) -> bool:
    return (
        record.offset >= max(query.offset_from, query.log_start_offset)
        and (query.offset_until < 0 or record.offset < query.offset_until)
        and (query.up_to_offset < 0 or record.offset < query.up_to_offset)
        and (query.timestamp_from < 0 or record.timestamp_ms >= query.timestamp_from)
        and (query.timestamp_until < 0 or record.timestamp_ms < query.timestamp_until)
    )


def run_of(records: list[Record], next_offset: int, settings: IndexSettings) -> Run:
    """Consecutive records as the indexer hands them over."""
    rows = [(record, content) for record in records for content in record.contents or ()]
    return Run(
        offsets=np.array([record.offset for record, _ in rows], dtype=np.int64),
        timestamps_ms=np.array([record.timestamp_ms for record, _ in rows], dtype=np.int64),
        hashes=[content_hash(content) for _, content in rows],
        vectors=np.array([content_vector(c, settings.dimensions) for _, c in rows], dtype=np.float32).reshape(
            -1, settings.dimensions
        ),
        flags=np.array([record.flags for record, _ in rows], dtype=np.uint8),
        skipped=Counter({"empty": sum(record.contents == () for record in records)}),
        failed=sum(record.contents is None for record in records),
        next_offset=next_offset,
        texts={content_hash(content): f"the text of {content}" for _, content in rows},
    )


def build_all(index: PartitionIndex) -> None:
    """Seals and merges until nothing is left to do."""
    while (task := index.plan()) is not None:
        index.swap(task, index.build(task))
