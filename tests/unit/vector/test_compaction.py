"""What compaction takes from the log leaves the index by itself, whatever the batches and segments look like."""

import tempfile
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import record_batch
from protocol.record_batch import build_batch, walk_batches
from protocol.record_keys import keep_records, read_keys
from tests.unit.vector.index.model import Record, build_all, run_of
from tests.unit.vector.test_generations import Log, Worker, indexed, until
from vector import compaction
from vector.compaction import bury_compacted
from vector.index.partition_index import PartitionIndex
from vector.index.query import IndexQuery
from vector.index.settings import IndexSettings
from vector.log_source import LogRun, LogState, PartitionPlace
from vector.threads import WorkerThreads

SETTINGS = IndexSettings(4, growing_rows_max=8, seal_rows_min=1, segment_rows_max=40)
PLACE = PartitionPlace(b"t" * 16, 1, 0)


def compacted(values: Sequence[bytes], base_offset: int, there: Container[int]) -> bytearray:
    """The batch of the values, as compaction leaves it."""
    records = [record_batch.Record(n, 1000 + n, None, value) for n, value in enumerate(values, base_offset)]
    whole = memoryview(build_batch(records, base_offset=base_offset))
    kept = [n - base_offset for n in range(base_offset, base_offset + len(values)) if n in there]
    (header,) = walk_batches(whole)
    return keep_records(header, read_keys(header, whole), kept) if kept else bytearray()


class CompactedLog:
    """Batches of some offsets each; those of `damaged` cannot be decoded."""

    def __init__(self, end: int, there: set[int], per_batch: int, damaged: int, log_start: int) -> None:
        self.state = LogState(log_start, end, end, end)
        self.batches: list[tuple[int, bytes]] = []
        for number, base in enumerate(range(0, end, per_batch)):
            last = min(end, base + per_batch)
            batch = compacted([b"x"] * (last - base), base, there)
            if batch and number == damaged:
                batch[61] ^= 0xFF
            self.batches.append((last, bytes(batch)))

    async def read(self, topic_id: bytes, partition: int, offset: int, max_bytes: int) -> LogRun:
        del topic_id, partition, max_bytes
        found = [(last, batch) for last, batch in self.batches if last > max(offset, self.state.log_start_offset)][:2]
        return LogRun(b"".join(batch for _, batch in found), found[-1][0] if found else offset, self.state)

    async def quarantine(self, *arguments: Any) -> None:
        raise AssertionError(arguments)


@given(
    end=st.integers(1, 60),
    gone=st.sets(st.integers(0, 59)),
    per_batch=st.integers(1, 20),
    cleaned=st.integers(0, 60),
    log_start=st.integers(0, 20),
    chunks=st.integers(1, 2),
)
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_exactly_the_records_that_compaction_removed_are_buried(
    end: int, gone: set[int], per_batch: int, cleaned: int, log_start: int, chunks: int
) -> None:
    """Below the cleaned offset; above it the log has records that this copy of it does not."""
    import asyncio

    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "PAUSE_S", 0.0)
        index = PartitionIndex.open(Path(directory), SETTINGS)
        records = [Record(offset, 1, tuple(range(offset, offset + chunks))) for offset in range(end)]
        for record in records:
            index.append(run_of([record], record.offset + 1, SETTINGS))
            if record.offset % 11 == 0:
                build_all(index)
        log = CompactedLog(end, set(range(end)) - gone, per_batch, -1, min(log_start, end))
        threads = WorkerThreads()
        index.drop_below(min(log_start, end))
        asyncio.run(bury_compacted(index, PLACE, cleaned, log, threads))
        expected = {o for o in range(min(log_start, end), end) if o not in gone or o >= cleaned}
        found = index.search(IndexQuery(np.ones(4, dtype=np.float32), 1000))
        assert {hit.offset for hit in found} == expected
        build_all(index)
        assert {hit.offset for hit in index.search(IndexQuery(np.ones(4, dtype=np.float32), 1000))} == expected
        threads.close()
        index.close()


async def test_a_batch_that_nobody_can_read_buries_nothing(tmp_path: Path) -> None:
    index = PartitionIndex.open(tmp_path, SETTINGS)
    index.append(run_of([Record(offset, 1, (offset,)) for offset in range(20)], 20, SETTINGS))
    threads = WorkerThreads()
    log = CompactedLog(20, set(range(20)) - {3, 13}, 10, 0, 0)
    assert await bury_compacted(index, PLACE, 20, log, threads) == 1
    assert 3 in index.offsets_between(0, 20)
    assert 13 not in index.offsets_between(0, 20)
    threads.close()
    index.close()


async def test_the_index_follows_a_compaction_that_no_search_has_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "PAUSE_S", 0.0)
    log = Log()
    worker = Worker(tmp_path, log)
    topic = worker.topic("one")
    worker.append(topic, *[f"disk {number} full" for number in range(60)])
    await until(lambda: indexed(topic, log))
    removed, cleaned = {0: {1, 2, 3}, 1: {7}}, {0: 25, 1: 25}
    monkeypatch.setattr(Log, "read", _without(removed))
    monkeypatch.setattr(Log, "state", lambda _, partition: LogState(0, 30, 30, cleaned[partition]))
    worker.append(topic)  # only the bell
    await until(lambda: all(topic.indexes[p].status()["buried"] == len(gone) for p, gone in removed.items()))
    for partition, gone in removed.items():
        assert set(topic.indexes[partition].offsets_between(0, 30).tolist()) == set(range(30)) - gone
    removed[0] |= {20, 28}  # compacted again; 28 lies beyond
    cleaned[0] = 27
    worker.append(topic)
    await until(lambda: topic.indexes[0].status()["buried"] == 4)
    assert 28 in topic.indexes[0].offsets_between(0, 30)
    await worker.close()


async def test_what_compaction_took_before_a_restart_is_known_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was forgotten until the next compaction: copies that the log has no more were counted as duplicates of a hit."""
    monkeypatch.setattr(compaction, "PAUSE_S", 0.0)
    log = Log()
    worker = Worker(tmp_path, log)
    topic = worker.topic("one")
    worker.append(topic, *["disk full" for _ in range(60)])
    await until(lambda: indexed(topic, log))
    await worker.close()
    removed = {0: {1, 2, 3}, 1: {7}}
    monkeypatch.setattr(Log, "read", _without(removed))
    monkeypatch.setattr(Log, "state", lambda _, partition: LogState(0, 30, 30, 25))
    for _ in range(2):  # the second restart forgets what the first has found out, and finds it again
        worker = Worker(tmp_path, log)
        topic = worker.topic("one")
        await until(lambda: all(p in topic.indexes for p in removed))  # noqa: B023
        await until(lambda: all(topic.indexes[p].status()["buried"] == len(gone) for p, gone in removed.items()))  # noqa: B023
        for partition, gone in removed.items():
            hits = topic.indexes[partition].search(IndexQuery(np.ones(16, dtype=np.float32), 1000))
            assert {hit.offset for hit in hits} == set(range(30)) - gone
            assert {hit.duplicates for hit in hits} == {30 - len(gone) - 1}
        await worker.close()


def _without(removed: dict[int, set[int]]) -> Any:
    async def read(self: Log, topic_id: bytes, partition: int, offset: int, max_bytes: int) -> LogRun:
        del topic_id, max_bytes
        values, state = self.values[partition], self.state(partition)
        end = min(offset + 7, len(values))
        if end <= offset:
            return LogRun(b"", offset, state)
        batch = compacted(values[offset:end], offset, set(range(offset, end)) - removed[partition])
        return LogRun(bytes(batch), end, state)

    return read
