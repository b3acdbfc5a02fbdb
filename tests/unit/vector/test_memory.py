"""The memory budget of a worker: indexes never take more, indexing waits, searches go on, and it goes on by itself when there is room."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.vector.index.model import build_all
from tests.unit.vector.test_generations import Log, Worker, counts, indexed, until
from vector.index.partition_index import PartitionIndex
from vector.index.settings import IndexSettings, Run
from vector.log_source import LogState
from vector.memory import MemoryBudget
from vector.topic_index import TopicIndex


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0  # each look is later than any interval
        return self.now


def run_of(chance: random.Random, offset: int, dimensions: int) -> Run:
    count = chance.randrange(1, 60)
    contents = [chance.randrange(1_000_000) for _ in range(count)]
    hashes = [number.to_bytes(16, "big") for number in contents]
    return Run(
        offsets=np.arange(offset, offset + count),
        timestamps_ms=np.full(count, 1000),
        hashes=hashes,
        vectors=np.random.default_rng(contents).random((count, dimensions), dtype=np.float32) + 0.1,
        flags=np.zeros(count, dtype=np.uint8),
        skipped=Counter(),
        failed=0,
        next_offset=offset + count,
        texts={content: f"text {content.hex()}" * chance.randrange(1, 9) for content in hashes},
    )


@pytest.mark.parametrize("dimensions", [2, 16, 384])
def test_what_is_counted_never_exceeds_the_limit(tmp_path: Path, dimensions: int) -> None:
    """Through appends, new segments, seals, merges and retention of several indexes; and most of the limit is used."""
    chance = random.Random(dimensions)
    settings = IndexSettings(dimensions, growing_rows_max=300, segment_rows_max=900, seal_rows_min=100, texts=True)
    empty = PartitionIndex.open(tmp_path / "empty", settings)
    limit = 5 * empty.memory_bytes + 1_500 * (2 * dimensions + 300)
    sealed: list[PartitionIndex] = []
    budget = MemoryBudget(limit, sealed.append, monotonic=Clock())
    indexes = [PartitionIndex.open(tmp_path / str(number), settings) for number in range(3)]
    for index in (empty, *indexes):
        budget.opened(index)
    refused, most = 0, 0
    for step in range(600):
        index = chance.choice(indexes)
        run = run_of(chance, index.indexed_offset, dimensions)
        if budget.take(index, run):
            index.append(run)
        else:
            refused += 1
        if step % 7 == 0:
            build_all(index)
        if step % 150 == 149:
            index.drop_below(index.indexed_offset - 200)
        assert budget.used_bytes <= limit
        assert budget.used_bytes == sum(one.memory_bytes for one in (empty, *indexes))
        most = max(most, budget.used_bytes)
    assert refused
    assert sealed, "what grows is sealed early for want of memory"
    assert most > 0.6 * limit
    for index in (empty, *indexes):
        index.close()


def test_without_a_limit_nothing_is_measured(tmp_path: Path) -> None:
    index = PartitionIndex.open(tmp_path, IndexSettings(4))
    assert MemoryBudget().take(index, run_of(random.Random(1), 0, 4))
    index.close()


async def test_indexing_waits_for_memory_and_goes_on_when_retention_has_made_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vector.indexer.ROOM_WAIT_S", 0.002)
    monkeypatch.setattr("vector.memory.MEASURE_INTERVAL_S", 0.0)
    log = Log()
    worker = Worker(tmp_path, log)
    probe = PartitionIndex.open(tmp_path / "probe", IndexSettings(16))
    limit = 2 * probe.memory_bytes + 2 * 1600 * 400
    probe.close()
    budget = MemoryBudget(limit, worker.builder.submit)
    worker.parts = replace(worker.parts, memory=budget)
    lines = [f"disk {number} is full" for number in range(8000)]
    for number, line in enumerate(lines):
        log.values[number % 2].append(line.encode())
    topic: TopicIndex = worker.topic("one")
    await until(lambda: topic.status()["over_budget"])
    told = topic.status()
    assert "vector.worker.memory.bytes" in told["trouble"]
    assert budget.used_bytes <= limit
    done, _ = counts(topic)
    assert 0 < done < len(lines)
    monkeypatch.setattr(Log, "state", lambda self, p: LogState(3500, len(self.values[p]), len(self.values[p])))
    worker.append(topic)  # the bell after retention
    await until(lambda: indexed(topic, log))
    assert budget.used_bytes <= limit
    assert not topic.status()["over_budget"]
    await worker.close()
