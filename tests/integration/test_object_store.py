"""Indexes in an object store, over a real S3 API with faults between: incremental, never half there, restored as they were."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.broker_process import BrokerProcess
from tests.s3_server import BUCKET, FAULTS, FaultyS3, faulty_s3
from tests.unit.vector.index.model import Record, build_all, content_vector, run_of
from vector.check import check_index
from vector.generation import FILE, Generation, Identity
from vector.index.partition_index import PartitionIndex
from vector.index.query import IndexQuery
from vector.index.settings import IndexSettings
from vector.objects import ObjectError, ObjectStore
from vector.persistence import Persistence
from vector.threads import WorkerThreads

pytestmark = pytest.mark.slow
__all__ = ["faulty_s3"]
SETTINGS = IndexSettings(6, growing_rows_max=20, exact_matches_max=10, segment_rows_max=40)
RECORDS = [Record(offset, offset, (offset,) if offset % 7 else (), 0) for offset in range(230)]
TOPIC_ID = b"t" * 16
URL = f"s3://{BUCKET}/under/here"


class World:
    """One topic of one partition in a worker, and its store."""

    def __init__(self, directory: Path, url: str = URL) -> None:
        identity = Identity("value", "chunk", "hashing:6", "1", 6, "cosine", 0)
        topic_directory = directory / TOPIC_ID.hex()
        self.generation = Generation(1, identity, topic_directory / "1")
        self.directory = self.generation.partition_directory(0)
        self.threads = WorkerThreads()
        self.store = ObjectStore(url)
        self.persistence = Persistence(self.store, self.threads)
        self.index: PartitionIndex

    def open(self) -> "World":
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.generation.directory / FILE).write_text("{}")
        self.index = PartitionIndex.open(self.directory, SETTINGS)
        return self

    def append_until(self, end: int) -> None:
        for start in range(self.index.indexed_offset, end, 10):
            self.index.append(run_of(RECORDS[start : start + 10], start + 10, SETTINGS))
            build_all(self.index)

    @property
    def sealed_end(self) -> int:
        snapshot = self.index.snapshot()
        return snapshot.manifest.entries[-1].next_offset if snapshot else 0

    async def catch_up(self) -> None:
        topic: Any = SimpleNamespace(topic_id=TOPIC_ID, generation=self.generation, indexes={0: self.index})
        await self.persistence.catch_up([topic])

    async def restore(self) -> "World":
        await self.persistence.restore_generation(TOPIC_ID, self.generation.directory.parent)
        await self.persistence.restore_partition(TOPIC_ID, self.generation, 0)
        return self.open()

    def hits(self, end: int) -> list[tuple[int, float]]:
        vector = content_vector(11, 6)
        found = self.index.search(IndexQuery(vector=vector, limit=300, offset_until=end, exact=True))
        return [(hit.offset, hit.similarity) for hit in found]

    def close(self) -> None:
        if hasattr(self, "index"):
            self.index.close()
        self.persistence.close()
        self.threads.close()


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[list[World]]:
    made: list[World] = []
    yield made
    for world in made:
        world.close()


def world_in(worlds: list[World], directory: Path, url: str = URL) -> World:
    worlds.append(World(directory, url))
    return worlds[-1]


@pytest.mark.parametrize("where", ["s3", "file"])
async def test_an_empty_directory_is_restored(
    where: str, faulty_s3: FaultyS3, worlds: list[World], tmp_path: Path
) -> None:
    """What was sealed comes back as it was; the rest is for the log."""
    url = URL if where == "s3" else (tmp_path / "bucket").as_uri()
    first = world_in(worlds, tmp_path / "first", url).open()
    first.append_until(230)
    await first.catch_up()
    second = await world_in(worlds, tmp_path / "second", url).restore()
    assert 0 < first.sealed_end < 230
    assert second.index.indexed_offset == first.sealed_end
    assert second.index.counts.records == first.sealed_end
    assert second.hits(first.sealed_end) == first.hits(first.sealed_end)
    assert check_index(second.directory) == []
    second.append_until(230)
    assert second.hits(230) == first.hits(230)


async def test_only_what_is_new_is_put_and_what_is_merged_away_is_deleted(
    faulty_s3: FaultyS3, worlds: list[World], tmp_path: Path
) -> None:
    world = world_in(worlds, tmp_path).open()
    for end in range(40, 240, 40):
        world.append_until(end)
        before = {name: size for name, size in world.store.list(TOPIC_ID.hex()).items() if "segment" in name}
        bytes_before = world.persistence.status()["bytes_put"]
        await world.catch_up()
        after = {name: size for name, size in world.store.list(TOPIC_ID.hex()).items() if "segment" in name}
        new = {name: size for name, size in after.items() if name not in before}
        assert world.persistence.status()["bytes_put"] - bytes_before == sum(new.values())
        puts = faulty_s3.passed["PUT"]
        await world.catch_up()
        assert faulty_s3.passed["PUT"] == puts  # nothing new, nothing put
    named = {file for files in world.index.snapshot().files for file in files}  # type: ignore[union-attr]
    stored = {
        name.rpartition("/")[2].rpartition(".")[0] for name in world.store.list(TOPIC_ID.hex()) if "segment" in name
    }
    assert named <= stored
    assert len([name for name in world.store.list(TOPIC_ID.hex()) if "manifest-" in name]) == 2


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_fails_the_store_is_never_half_there(
    seed: int, faulty_s3: FaultyS3, worlds: list[World], tmp_path: Path
) -> None:
    """At every moment the store restores to an index that is whole, as of some round; and the faults end, it is the latest."""
    chance = random.Random(seed)
    print(f"seed {seed}")
    world = world_in(worlds, tmp_path / "first").open()
    ends = {0}
    for number, end in enumerate(range(40, 240, 40)):
        world.append_until(end)
        ends.add(world.sealed_end)
        faulty_s3.only = frozenset({"PUT", "GET", "HEAD", "DELETE"})
        faulty_s3.faults.extend(chance.choice((None, *FAULTS)) for _ in range(8))
        with contextlib.suppress(ObjectError, OSError):
            await world.catch_up()
        faulty_s3.faults.clear()
        look = await world_in(worlds, tmp_path / f"look-{number}").restore()
        assert look.index.indexed_offset in ends
        assert look.hits(300) == world.hits(look.index.indexed_offset)
        if chance.random() < 0.3:  # the worker dies, and another one goes on
            world.index.close()
            world = world_in(worlds, tmp_path / "first").open()
    await world.catch_up()
    last = await world_in(worlds, tmp_path / "last").restore()
    assert last.index.indexed_offset == world.sealed_end


async def test_a_lost_answer_is_no_failure(faulty_s3: FaultyS3, worlds: list[World], tmp_path: Path) -> None:
    """The object is there, whatever the connection says: reading back finds it, and nothing is put twice."""
    world = world_in(worlds, tmp_path).open()
    world.append_until(60)
    faulty_s3.only = frozenset({"PUT"})
    faulty_s3.faults.extend(["lost answer"] * 50)
    await world.catch_up()
    names = world.store.list(TOPIC_ID.hex())
    assert faulty_s3.passed["PUT"] == len(names)


@pytest.mark.parametrize("suffix", [".columns", ".vec", ".faiss", "manifest-", FILE])
async def test_a_damaged_object_is_made_good_from_the_log(
    suffix: str, faulty_s3: FaultyS3, worlds: list[World], tmp_path: Path
) -> None:
    """Never a wrong hit: the index ends before the damage, and vectors behind it are known still."""
    first = world_in(worlds, tmp_path / "first").open()
    first.append_until(230)
    await first.catch_up()
    names = sorted(name for name in first.store.list(TOPIC_ID.hex()) if suffix in name.rpartition("/")[2])
    victim = names[-1]
    data = bytearray(first.store.get(victim))
    data[len(data) // 2] ^= 0x10
    first.store.put(victim, bytes(data))
    second = await world_in(worlds, tmp_path / "second").restore()
    reached = second.index.indexed_offset
    assert reached <= first.sealed_end
    assert second.hits(300) == first.hits(reached)
    if suffix in (".columns", ".vec", ".faiss"):
        assert 0 < reached < first.sealed_end
    second.append_until(230)
    assert second.hits(230) == first.hits(230)
    assert check_index(second.directory) == []


async def test_a_store_that_stays_silent_delays_an_index_but_does_not_prevent_it(
    monkeypatch: pytest.MonkeyPatch, worlds: list[World], tmp_path: Path
) -> None:
    from vector import persistence

    monkeypatch.setattr(persistence, "RESTORE_RETRY_S", 0.0)
    for name, value in {
        "AWS_ENDPOINT": "http://127.0.0.1:1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "x",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    world = await world_in(worlds, tmp_path).restore()
    assert world.index.indexed_offset == 0
    assert world.persistence.trouble
    world.append_until(60)
    with pytest.raises(ObjectError, match="put"):
        world.store.put("x", b"1")


async def test_a_deleted_topic_leaves_nothing(faulty_s3: FaultyS3, worlds: list[World], tmp_path: Path) -> None:
    world = world_in(worlds, tmp_path).open()
    world.append_until(60)
    await world.catch_up()
    assert world.store.list(TOPIC_ID.hex())
    world.persistence.forget_topic(TOPIC_ID)
    await world.persistence.catch_up([])
    assert world.store.list(TOPIC_ID.hex()) == {}


async def test_a_broker_without_its_index_gets_it_back_without_embedding_again(
    faulty_s3: FaultyS3, tmp_path: Path
) -> None:
    """One line of configuration; the index folder is lost; what was sealed is searched again as it was."""
    broker = BrokerProcess(tmp_path, f"storage.objects.url={URL}", "storage.sync=os")
    broker.start()
    try:
        http = f"http://{broker.http}/v1/topics"
        config = {"vector.enabled": True, "vector.embedding.model": "hashing:32"}
        httpx.post(http, json={"name": "logs", "configs": config}, timeout=30).raise_for_status()
        for start in range(0, SEALED_AND_MORE, 5000):
            records = [{"value": f"line {number} of {number % 97}"} for number in range(start, start + 5000)]
            httpx.post(f"{http}/logs/records", json={"records": records}, timeout=60).raise_for_status()
        question = {"query": "line 77 of 12", "consistency": {"level": "latest", "wait_ms": 60_000}}
        before = await until(lambda: searched(http, question))
        stored = await until(lambda: status(http)["objects"]["bytes_put"])
        broker.stop()
        rmtree(broker.data_directory / "vector")
        broker.start()
        assert await until(lambda: searched(http, question)) == before
        after = status(http)
        assert after["embedder"]["texts_embedded"] <= SEALED_AND_MORE - 10_000
        assert after["partitions"][0]["segments"][0]["kind"] == "sealed"
        assert stored > 10_000 * 32
    finally:
        broker.end()


async def test_an_empty_data_directory_is_a_new_brokers_and_says_so(tmp_path: Path) -> None:
    """Logs are not in the store. What lies there of topics that this broker does not know may be another's: it stays."""
    url = (tmp_path / "bucket").as_uri()
    foreign = f"{TOPIC_ID.hex()}/1/{FILE}"
    ObjectStore(url).put(foreign, b"{}")
    broker = BrokerProcess(tmp_path, f"storage.objects.url={url}", "storage.sync=os")
    broker.start()
    try:
        assert broker.log().count("not logs") == 1
        http = f"http://{broker.http}/v1/topics"
        config = {"vector.enabled": True, "vector.embedding.model": "hashing:32"}
        httpx.post(http, json={"name": "logs", "configs": config}, timeout=30).raise_for_status()
        httpx.post(f"{http}/logs/records", json={"records": [{"value": "one"}]}, timeout=60).raise_for_status()
        question = {"query": "one", "consistency": {"level": "latest", "wait_ms": 60_000}}
        assert len(await until(lambda: searched(http, question)) or []) == 1
        broker.stop()
        broker.start()
        assert broker.log().count("not logs") == 1, "the directory is not empty any more"
        assert ObjectStore(url).get(foreign) == b"{}"
    finally:
        broker.end()


SEALED_AND_MORE = 15_000


def searched(http: str, question: dict[str, Any]) -> list[tuple[int, float]] | None:
    answer = httpx.post(f"{http}/logs/search", json=question, timeout=90)
    return [(hit["offset"], hit["score"]) for hit in answer.json()["results"]] if answer.status_code == 200 else None


def status(http: str) -> Any:
    return httpx.get(f"{http}/logs/vector", timeout=30).json()


async def until(look: Callable[[], Any]) -> Any:
    """What it finds, once it finds something."""
    async with asyncio.timeout(120):
        while not (found := look()):
            await asyncio.sleep(0.1)
    return found
