"""indexed + skipped + failed = records below indexed_offset, whatever the model does and however often the worker dies."""

import asyncio
import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import Record, build_batch
from vector.arrays import Float32
from vector.embed import circuit as circuits
from vector.embed import scheduler as scheduling
from vector.embed.hashing import HashingEmbedder
from vector.embed.port import Kind, PausedError, PoisonError, TransientError
from vector.embed.scheduler import EmbedScheduler
from vector.extract import content_hash
from vector.index.builder import Builder
from vector.index.partition_index import PartitionIndex
from vector.index.query import IndexQuery
from vector.index.settings import IndexSettings
from vector.indexer import PartitionIndexer
from vector.lag import MARKS_MAX, LagClock
from vector.log_source import LogRun, LogState, PartitionPlace
from vector.memory import MemoryBudget
from vector.prepare import Extraction, Failure
from vector.threads import WorkerThreads

DIMENSIONS = 16
TOPIC_ID = b"t" * 16
VALUES = st.one_of(
    st.sampled_from([b"disk full", b"login failed", b"POISON one", b"POISON two", b"ZERO", b"", b"\xff", None]),
    st.text("abc ", max_size=12).map(str.encode),
)


class FakeLog:
    """A partition's log: batches of records, read as the broker reads them."""

    def __init__(self, batches: Sequence[Sequence[bytes | None]]) -> None:
        self.values = [value for batch in batches for value in batch]
        self.batches: list[tuple[int, int, bytes]] = []
        self.failures: dict[int, str] = {}
        offset = 0
        for batch in batches:
            records = [Record(offset + i, 1000 + offset + i, None, value) for i, value in enumerate(batch)]
            end = offset + len(batch)
            self.batches.append((offset, end, bytes(build_batch(records, base_offset=offset))))
            offset = end
        self.state = LogState(0, offset, offset)

    async def gate(self) -> None:
        """Open."""

    async def quarantine(self, place: PartitionPlace, model: str, failures: Sequence[Failure]) -> None:
        """As the broker does: once, however often it is told."""
        del place, model
        for failure in failures:
            self.failures.setdefault(failure.offset, failure.reason)

    async def read(self, topic_id: bytes, partition: int, offset: int, max_bytes: int) -> LogRun:
        del topic_id, partition, max_bytes
        for _, end, data in self.batches:
            if end > max(offset, self.state.log_start_offset):
                return LogRun(data, end, self.state)
        return LogRun(b"", max(min(offset, len(self.values)), self.state.log_start_offset), self.state)


class UnreliableEmbedder(HashingEmbedder):
    """Fails in every way that a provider can; refuses the texts that say POISON, and any batch they are in."""

    texts_per_call = 4
    calls_at_once = 2

    def __init__(self, seed: int) -> None:
        super().__init__("hashing:16", DIMENSIONS)
        self.random = random.Random(seed)
        self.embedded: list[str] = []
        self.lock = threading.Lock()

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        with self.lock:
            mood = self.random.random()
            if mood < 0.15:
                raise TransientError("overloaded", retry_after_s=0.0001)
            if mood < 0.2:
                raise PausedError("no quota")
            if mood < 0.25:
                raise ZeroDivisionError("a bug of the provider")
            if any("POISON" in text for text in texts):
                raise PoisonError("refused")
            self.embedded += texts
        vectors = super().embed(texts, kind)
        vectors[[text == "ZERO" for text in texts]] = 0.0
        return vectors


class Partition:
    """An indexer over a fake log, in a folder that outlives it."""

    def __init__(self, directory: Path, log: FakeLog, scheduler: EmbedScheduler) -> None:
        self.log = log
        self.threads = WorkerThreads()
        self.index = PartitionIndex.open(directory, IndexSettings(DIMENSIONS, growing_rows_max=16))
        self.builder = Builder(self.threads.post_to_index)
        self.moved = asyncio.Event()
        self.now = 0.0
        self.lag = LagClock(lambda: self.now)
        self.indexer = PartitionIndexer(
            PartitionPlace(TOPIC_ID, 1, 0),
            self.index,
            Extraction("value", "truncate", DIMENSIONS, True, scheduler.embedder.split),
            source=log,
            scheduler=scheduler,
            threads=self.threads,
            builder=self.builder,
            known_elsewhere=lambda hashes: {},
            on_progress=self.moved.set,
            state=log.state,
            lag=self.lag,
            memory=MemoryBudget(),
            gate=log.gate,
        )

    async def index_until(self, offset: int) -> None:
        task = asyncio.create_task(self.indexer.run())
        while self.index.indexed_offset < offset:
            self.check()
            self.moved.clear()
            if self.index.indexed_offset < offset:
                await asyncio.wait_for(self.moved.wait(), 20)
        self.check()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def check(self) -> None:
        """The identity, at this moment."""
        while True:  # the index thread may append between two reads
            offset, records = self.index.indexed_offset, self.index.counts.records
            if offset == self.index.indexed_offset:
                assert records == offset
                return

    def close(self) -> None:
        self.builder.close()
        self.threads.close()
        self.index.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuits, "BACKOFF_MIN_S", 0.0001)
    monkeypatch.setattr(circuits, "BACKOFF_MAX_S", 0.001)
    monkeypatch.setattr(circuits, "PAUSE_RETRY_S", 0.001)
    monkeypatch.setattr(scheduling, "PROBE_POLL_S", 0.001)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(VALUES, min_size=1, max_size=12), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 40), max_size=2),
    seed=st.integers(0, 2**32),
)
def test_every_record_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes | None]], cuts: list[int], seed: int
) -> None:
    asyncio.run(_account(tmp_path_factory.mktemp("index"), batches, cuts, seed))


async def _account(directory: Path, batches: list[list[bytes | None]], cuts: list[int], seed: int) -> None:
    log, embedder = FakeLog(batches), UnreliableEmbedder(seed)
    total = len(log.values)
    for end in [*sorted(min(cut, total) for cut in cuts), total]:
        # A new life each: the cache is gone, what was checkpointed is not.
        scheduler = EmbedScheduler(embedder)
        partition = Partition(directory, log, scheduler)
        await partition.index_until(end)
        await partition.indexer.checkpoint()
        if end == total:
            _check_outcome(partition.index, log, embedder)
        partition.close()
        scheduler.close()


def _check_outcome(index: PartitionIndex, log: FakeLog, embedder: UnreliableEmbedder) -> None:
    def outcome(value: bytes | None) -> str:
        if value is None:
            return "tombstone"
        if value == b"\xff":
            return "not_text"
        if not value.strip():
            return "empty"
        return "failed" if b"POISON" in value or value == b"ZERO" else "indexed"

    expected = [outcome(value) for value in log.values]
    counts = index.counts
    assert counts.indexed == expected.count("indexed")
    assert counts.failed == expected.count("failed")
    assert sorted(log.failures) == [i for i, what in enumerate(expected) if what == "failed"], "told, each one"
    assert dict(counts.skipped) == {
        reason: expected.count(reason) for reason in ("tombstone", "not_text", "empty") if reason in expected
    }
    good = [text for text in embedder.embedded if text not in ("ZERO", scheduling.PLAIN_TEXT)]
    assert len(good) == len(set(good)), "a text was embedded twice"
    query = np.ones(DIMENSIONS, dtype=np.float32)
    found = index.search(IndexQuery(query, limit=1000))
    assert sorted(hit.offset for hit in found) == [i for i, what in enumerate(expected) if what == "indexed"]


async def test_partitions_that_share_a_model_embed_a_text_once() -> None:
    embedder = UnreliableEmbedder(0)
    embedder.random = random.Random()
    embedder.random.random = lambda: 1.0  # type: ignore[method-assign]
    scheduler = EmbedScheduler(embedder)
    texts = {content_hash(text): text for text in ("a", "b", "c", "d", "e", "f")}
    both = await asyncio.gather(scheduler.vectors(texts), scheduler.vectors(texts))
    assert sorted(embedder.embedded) == sorted(texts.values())
    assert all(np.array_equal(both[0][content], both[1][content]) for content in texts)  # type: ignore[arg-type]
    again = await scheduler.query(["a"], [content_hash("a")])
    assert len(embedder.embedded) == len(texts)
    assert np.array_equal(again[0], both[0][content_hash("a")])  # type: ignore[arg-type]
    scheduler.close()


async def test_retention_ahead_of_the_indexer_is_jumped_over(tmp_path: Path) -> None:
    log = FakeLog([[b"one"], [b"two"], [b"three"]])
    log.state = LogState(2, 3, 3)
    scheduler = EmbedScheduler(HashingEmbedder("hashing:16", DIMENSIONS))
    partition = Partition(tmp_path, log, scheduler)
    task = asyncio.create_task(partition.indexer.run())
    while partition.index.indexed_offset < 3:
        await asyncio.wait_for(partition.moved.wait(), 20)
    task.cancel()
    hits = partition.index.search(IndexQuery(np.ones(DIMENSIONS, dtype=np.float32)))
    assert [hit.offset for hit in hits] == [2]
    await asyncio.gather(task, return_exceptions=True)
    partition.close()
    scheduler.close()


class SlowEmbedder(HashingEmbedder):
    """Waits in a bulk call until it is let go."""

    texts_per_call = 2

    def __init__(self) -> None:
        super().__init__("hashing:16", DIMENSIONS)
        self.go = threading.Event()
        self.started = threading.Event()
        self.calls: list[Any] = []

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        self.calls.append((kind, list(texts)))
        if kind == "passage":
            self.started.set()
            assert self.go.wait(20)
        return super().embed(texts, kind)


async def test_queries_and_fresh_records_go_ahead_of_a_backlog() -> None:
    embedder = SlowEmbedder()
    scheduler = EmbedScheduler(embedder)
    backlog = asyncio.create_task(scheduler.vectors({content_hash(f"old {i}"): f"old {i}" for i in range(6)}))
    await asyncio.to_thread(embedder.started.wait, 20)
    fresh = asyncio.create_task(scheduler.vectors({content_hash("fresh"): "fresh"}))
    await scheduler.query(["question"], [content_hash("question")])
    assert embedder.calls[1] == ("query", ["question"])
    embedder.go.set()
    await fresh
    await backlog
    assert embedder.calls[2] == ("passage", ["fresh", "old 2"])
    scheduler.close()


class WrongShape(HashingEmbedder):
    """Its first answers are no vectors of the texts."""

    def __init__(self, answers: list[Any]) -> None:
        super().__init__("hashing:16", DIMENSIONS)
        self.answers = answers

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        return self.answers.pop(0) if self.answers else super().embed(texts, kind)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [[0.0] * DIMENSIONS],
        np.ones((2, DIMENSIONS), np.float32),
        np.ones((1, DIMENSIONS - 1), np.float32),
        np.ones(DIMENSIONS, np.float32),
        np.ones((1, DIMENSIONS), np.float64),
        np.array([["a"] * DIMENSIONS]),
    ],
)
async def test_an_answer_of_a_wrong_shape_is_a_failure_of_the_model(
    answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the call's task, and the indexers that waited for the vectors waited for ever."""
    monkeypatch.setattr(circuits, "BACKOFF_MIN_S", 0.001)
    scheduler = EmbedScheduler(WrongShape([answer]))
    async with asyncio.timeout(10):
        found = await scheduler.vectors({content_hash("text"): "text"})
    assert found[content_hash("text")] is not None
    assert scheduler.counters.retries == 1
    scheduler.close()
    scheduler = EmbedScheduler(WrongShape([answer]))
    with pytest.raises(KafkaError, match="hashing:16 answered") as caught:
        await scheduler.query(["text"], [content_hash("text")])
    assert caught.value.code == ErrorCode.COORDINATOR_NOT_AVAILABLE
    scheduler.close()


async def test_lag_counts_records_that_no_bell_announced(tmp_path: Path) -> None:
    """4,800 records arrived between two reads, and lag_ms stayed 0 until they were indexed."""
    log = FakeLog([[b"one"], [b"two"]])
    log.state = LogState(0, 0, 0)
    embedder = SlowEmbedder()
    scheduler = EmbedScheduler(embedder)
    partition = Partition(tmp_path, log, scheduler)
    lag = partition.lag
    assert lag.lag_ms(0) == 0
    log.state = LogState(0, 2, 2)  # the indexer's first read learns of it
    task = asyncio.create_task(partition.indexer.run())
    await asyncio.to_thread(embedder.started.wait, 20)
    partition.now = 3.0
    assert lag.lag_ms(partition.index.indexed_offset) == 3000
    embedder.go.set()
    while partition.index.indexed_offset < 2:
        await asyncio.sleep(0.001)
    assert lag.lag_ms(partition.index.indexed_offset) == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    partition.close()
    scheduler.close()


def test_lag_marks_are_bounded_and_the_oldest_stays() -> None:
    now = [0.0]
    clock = LagClock(lambda: now[0])
    for end in range(1, 10 * MARKS_MAX):
        now[0] = float(end)
        clock.saw(end)
    assert len(clock._marks) <= MARKS_MAX
    assert clock.lag_ms(0) == (10 * MARKS_MAX - 2) * 1000
    assert clock.lag_ms(10 * MARKS_MAX) == 0
