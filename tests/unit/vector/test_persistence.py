"""The keeper of the object store looks when it is told, not every few seconds at every partition."""

import asyncio
from pathlib import Path

import pytest

from tests.unit.vector.index.model import Record, build_all, run_of
from vector import persistence
from vector.generation import FILE, Generation, Identity
from vector.index.partition_index import PartitionIndex
from vector.index.settings import IndexSettings
from vector.index.stored import StoredIndex
from vector.objects import ObjectError, ObjectStore
from vector.persistence import Persistence, StoredTopic
from vector.threads import WorkerThreads


class Counted(Persistence):
    """Counts its rounds; fails in some."""

    rounds = 0
    fail = 0

    async def catch_up(self, topics: list[StoredTopic]) -> None:
        assert topics == []
        self.rounds += 1
        if self.rounds <= self.fail:
            raise ObjectError("the store is away")


async def until(keeper: Counted, rounds: int) -> None:
    async with asyncio.timeout(20):
        while keeper.rounds < rounds:
            await asyncio.sleep(0.001)


async def test_rounds_follow_changes_and_failures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing changes there is none; several changes at once are one; what failed is tried again by itself."""
    monkeypatch.setattr(persistence, "DELAY_S", 0.001)
    threads = WorkerThreads()
    keeper = Counted(ObjectStore("memory:///"), threads)
    task = asyncio.create_task(keeper.run(list))
    await asyncio.sleep(0.05)
    assert keeper.rounds == 0
    for _ in range(5):
        threads.index.submit(keeper.notice)
    await until(keeper, 1)
    await asyncio.sleep(0.05)
    quiet = keeper.rounds
    assert quiet <= 2
    keeper.fail = quiet + 3
    keeper.notice()
    await until(keeper, quiet + 4)
    await asyncio.sleep(0.05)
    assert (keeper.rounds, keeper.trouble) == (quiet + 4, None)
    task.cancel()
    keeper.close()
    threads.close()


class OneTopic:
    """A topic with one partition, as the keeper sees it."""

    topic_id = b"t" * 16

    def __init__(self, directory: Path, index: PartitionIndex) -> None:
        identity = Identity("value", "chunk", "m", "1", 4, "cosine")
        self.generation = Generation(1, identity, directory / "1")
        self.generation.directory.mkdir(parents=True, exist_ok=True)
        (self.generation.directory / FILE).write_text("{}")
        self.indexes = {0: index}


async def test_a_generation_whose_fetching_was_cut_off_is_fetched(tmp_path: Path) -> None:
    """A kill between its folder and its file must not leave the log to be embedded again."""
    threads = WorkerThreads()
    store = ObjectStore("memory:///")
    keeper = Persistence(store, threads)
    topic_id, stored = b"t" * 16, b"what the store has"
    store.put(f"{topic_id.hex()}/3/{FILE}", stored)
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / f"{FILE}.tmp").write_bytes(stored[:5])
    await keeper.restore_generation(topic_id, tmp_path)
    assert (tmp_path / "3" / FILE).read_bytes() == stored
    store.put(f"{topic_id.hex()}/4/{FILE}", b"newer")
    await keeper.restore_generation(topic_id, tmp_path)
    assert not (tmp_path / "4").exists()
    keeper.close()
    threads.close()


@pytest.mark.parametrize("kept", [0, 8])
async def test_what_a_log_has_lost_is_never_restored_from_the_store(tmp_path: Path, kept: int) -> None:
    """The manifest from before would bring it back: as the latest, or in place of a damaged one."""
    settings = IndexSettings(4, growing_rows_max=8, seal_rows_min=1, segment_rows_max=8)
    index = PartitionIndex.open(tmp_path / "here", settings)
    for offset in range(20):
        index.append(run_of([Record(offset, 1, (offset,))], offset + 1, settings))
        build_all(index)
    store, threads = ObjectStore("memory:///"), WorkerThreads()
    keeper = Persistence(store, threads)
    topic = OneTopic(tmp_path / "topic", index)
    await keeper.catch_up([topic])
    prefix = f"{topic.topic_id.hex()}/1/0"
    assert StoredIndex(store, prefix).restore(tmp_path / "before") == (True, [])
    index.truncate(kept)
    keeper.taken_back(topic.topic_id, 1, 0)
    await asyncio.sleep(0)
    await keeper.catch_up([topic])
    manifests = [name for name in store.list(prefix) if "/manifest-" in name]
    assert len(manifests) == (1 if kept else 0)
    assert StoredIndex(store, prefix).restore(tmp_path / "after") == (bool(kept), [])
    restored = PartitionIndex.open(tmp_path / "after", settings)
    assert restored.indexed_offset == kept
    for one in (index, restored):
        one.close()
    keeper.close()
    threads.close()
