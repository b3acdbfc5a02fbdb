"""A change of the model builds the next generation beside the one that is searched: search goes on, and nothing is embedded twice."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import Record, build_batch
from tests.unit.vector.search_message import search_message
from vector import topic_index
from vector.arrays import Float32
from vector.assignment import Assignment
from vector.config import VectorConfig
from vector.embed.hashing import HashingEmbedder
from vector.embed.port import Embedder, EmbedSettings, Kind, PoisonError
from vector.generation import Generations, Identity
from vector.generation_index import WorkerParts
from vector.index.builder import Builder
from vector.log_source import LogRun, LogState, PartitionPlace
from vector.models import Models
from vector.prepare import Failure
from vector.threads import WorkerThreads
from vector.topic_index import TopicIndex
from vector.topic_search import TopicSearch

TOPIC_ID = b"t" * 16
CONFIG = VectorConfig("value", None, 0, "cosine", "truncate", 16, 100, 64, "sq8")


class Log:
    """Both partitions of a topic, and what was told of records that failed."""

    def __init__(self) -> None:
        self.values: dict[int, list[bytes]] = {0: [], 1: []}
        self.failures: set[tuple[int, int, int]] = set()

    def state(self, partition: int) -> LogState:
        end = len(self.values[partition])
        return LogState(0, end, end)

    async def read(self, topic_id: bytes, partition: int, offset: int, max_bytes: int) -> LogRun:
        del topic_id, max_bytes
        values, state = self.values[partition], self.state(partition)
        if offset >= len(values):
            return LogRun(b"", offset, state)
        end = min(offset + 7, len(values))
        records = [Record(n, 1000 + n, None, value) for n, value in enumerate(values[offset:end])]
        return LogRun(bytes(build_batch(records, base_offset=offset)), end, state)

    async def quarantine(self, place: PartitionPlace, model: str, failures: Sequence[Failure]) -> None:
        del model
        self.failures |= {(place.generation, place.partition, failure.offset) for failure in failures}


class Counted(HashingEmbedder):
    """Counts what it embeds; refuses what its worker says, and can be stopped."""

    texts_per_call = 4

    def __init__(self, name: str, dimensions: int, worker: "Worker") -> None:
        super().__init__(name, dimensions)
        self.worker = worker

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        assert self.worker.go.setdefault(self.name, _set()).wait(20)
        if any(word in text for word in self.worker.poison for text in texts):
            raise PoisonError("refused")
        if kind == "passage":
            self.worker.embedded.setdefault(self.name, []).extend(texts)
        return super().embed(texts, kind)


def _set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


class Worker:
    """A life of the worker over a folder and a log that outlive it."""

    def __init__(self, directory: Path, log: Log) -> None:
        self.log = log
        self.go: dict[str, threading.Event] = {}
        self.poison: set[str] = set()
        self.embedded: dict[str, list[str]] = {}
        self.forgotten: list[int] = []
        self.threads = WorkerThreads()
        self.builder = Builder(self.threads.post_to_index)
        models = Models(EmbedSettings(""), self.threads, self._open)
        self.parts = WorkerParts(
            directory, log, models, self.threads, self.builder, lambda _, number: self.forgotten.append(number)
        )
        self.topics: list[TopicIndex] = []

    def _open(self, name: str, dimensions: int, settings: EmbedSettings) -> Embedder:
        del settings
        return Counted(name, dimensions or 16, self)

    def topic(self, model: str = "one", **configs: Any) -> TopicIndex:
        topic = TopicIndex(self.assignment(model, **configs), self.parts)
        self.topics.append(topic)
        topic.start()
        return topic

    def assignment(self, model: str, **configs: Any) -> Assignment:
        states = {partition: self.log.state(partition) for partition in self.log.values}
        return Assignment("logs", TOPIC_ID, replace(CONFIG, **configs), model, states)

    def append(self, topic: TopicIndex, *texts: str) -> None:
        for number, text in enumerate(texts):
            self.log.values[number % 2].append(text.encode())
        for partition in self.log.values:
            topic.ring(partition, self.log.state(partition))

    async def close(self) -> None:
        for event in self.go.values():
            event.set()
        for topic in self.topics:
            await topic.close()
        self.parts.models.close()
        self.builder.close()
        self.threads.close()


@pytest.fixture
async def log() -> Log:
    return Log()


@pytest.fixture
async def worker(tmp_path: Path, log: Log) -> AsyncIterator[Worker]:
    worker = Worker(tmp_path, log)
    yield worker
    await worker.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_index, "RETRY_S", 0.001)
    monkeypatch.setattr(topic_index, "BACKGROUND_WAIT_MAX_S", 0.01)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def indexed(topic: TopicIndex, log: Log) -> bool:
    return topic.live is not None and not topic.behind({p: len(values) for p, values in log.values.items()})


def live_number(topic: TopicIndex) -> int | None:
    return topic.generation.number if topic.generation else None


async def search(topic: TopicIndex, worker: Worker, text: str = "disk") -> dict[str, Any]:
    message = search_message(text, 100, worker.log.values)
    return await TopicSearch(topic, worker.log, worker.threads).search(message)


def counts(topic: TopicIndex) -> tuple[int, int]:
    """(indexed, failed) of the live generation; with what was skipped, they are all records below indexed_offset."""
    for index in topic.indexes.values():
        assert index.counts.records == index.indexed_offset
    total = [index.counts for index in topic.indexes.values()]
    return sum(one.indexed for one in total), sum(one.failed for one in total)


LINES = [f"disk {number} full" for number in range(40)]


async def test_search_goes_on_while_the_next_generation_is_built(worker: Worker, log: Log) -> None:
    """A change of the model was an outage: "semantic retrieval is broken for the entire re-index" (pinchy 715)."""
    topic = worker.topic("one")
    worker.append(topic, *LINES)
    await until(lambda: indexed(topic, log))
    worker.go["two"] = threading.Event()
    assert topic.take_over(worker.assignment("two"))
    await until(lambda: topic.building is not None and topic.building.scheduler is not None)
    worker.append(topic, "disk written meanwhile")
    await until(lambda: indexed(topic, log))
    answer = await search(topic, worker)
    assert (answer["generation"], answer["model"], len(answer["results"][0][0])) == (1, "one", 41)
    status = topic.status()["generations"]
    assert (status["building"]["generation"], status["building"]["records"]) == (2, 41)
    assert status["building"]["progress"] < 1
    worker.go["two"].set()
    await until(lambda: live_number(topic) == 2)
    answer = await search(topic, worker)
    assert (answer["generation"], answer["model"], len(answer["results"][0][0])) == (2, "two", 41)
    assert indexed(topic, log), "freshness was lost in the cut-over"
    worker.append(topic, "disk written after it")
    await until(lambda: indexed(topic, log))
    assert len((await search(topic, worker))["results"][0][0]) == 42
    assert "disk written after it" not in worker.embedded["one"]


async def test_going_back_catches_up_first_and_embeds_nothing_twice(worker: Worker, log: Log) -> None:
    topic = worker.topic("one")
    worker.append(topic, *LINES)
    await until(lambda: indexed(topic, log))
    topic.take_over(worker.assignment("two"))
    await until(lambda: live_number(topic) == 2)
    worker.append(topic, "disk written later")
    await until(lambda: indexed(topic, log))
    await topic.go_back()
    topic.take_over(worker.assignment("one"))  # the broker changes the config back
    await until(lambda: live_number(topic) == 1)
    assert indexed(topic, log)
    assert counts(topic) == (41, 0)
    assert sorted(worker.embedded["one"]) == sorted([*LINES, "disk written later"])
    await until(lambda: topic.status()["generations"]["previous"]["generation"] == 2)


async def test_a_rebuild_mends_what_failed_and_embeds_nothing_else(worker: Worker, log: Log) -> None:
    """`senselog vector retry`: indexed + skipped + failed are all records before, during and after it."""
    worker.poison = {"13", "27"}
    topic = worker.topic("one")
    worker.append(topic, *LINES)
    await until(lambda: indexed(topic, log))
    assert counts(topic) == (38, 2)
    assert sorted(offset * 2 + partition for _, partition, offset in log.failures) == [13, 27]
    worker.poison = {"27"}
    worker.embedded["one"].clear()
    await topic.rebuild()
    with pytest.raises(KafkaError, match="is being built"):
        await topic.rebuild()
    await until(lambda: live_number(topic) == 2)
    assert counts(topic) == (39, 1)
    texts = [text for text in worker.embedded["one"] if text in LINES]
    assert texts == [LINES[13]]
    assert {(generation, offset * 2 + partition) for generation, partition, offset in log.failures} == {
        (1, 13),
        (1, 27),
        (2, 27),
    }
    assert len((await search(topic, worker))["results"][0][0]) == 39


@pytest.mark.parametrize(
    "change", [{"field": "{value}!"}, {"dimensions": 8}, {"metric": "dot"}, {"long_text": "skip"}], ids=str
)
async def test_each_change_of_what_vectors_mean_is_a_generation(
    worker: Worker, log: Log, change: dict[str, Any]
) -> None:
    topic = worker.topic("one")
    worker.append(topic, *LINES)
    await until(lambda: indexed(topic, log))
    assert topic.take_over(worker.assignment("one", **change))
    await until(lambda: live_number(topic) == 2)
    assert counts(topic) == (40, 0)
    assert len((await search(topic, worker))["results"][0][0]) == 40


async def test_a_cut_over_by_command_waits_for_it(worker: Worker, log: Log) -> None:
    topic = worker.topic("one", cutover="manual")
    worker.append(topic, *LINES)
    await until(lambda: indexed(topic, log))
    with pytest.raises(KafkaError, match="no generation is being built") as caught:
        await topic.cut_over()
    assert caught.value.code == ErrorCode.INVALID_REQUEST
    with pytest.raises(KafkaError, match="no previous generation"):
        await topic.go_back()
    topic.take_over(worker.assignment("two", cutover="manual"))
    await until(lambda: topic.building is not None and topic.status()["generations"]["building"]["progress"] == 1)
    await asyncio.sleep(0.05)
    assert live_number(topic) == 1
    await topic.cut_over()
    assert live_number(topic) == 2
    assert counts(topic) == (40, 0)


async def test_a_build_goes_on_where_a_crash_has_cut_it(tmp_path: Path, log: Log) -> None:
    worker = Worker(tmp_path, log)
    topic = worker.topic("one")
    worker.append(topic, *LINES)
    await until(lambda: indexed(topic, log))
    worker.go["two"] = threading.Event()
    topic.take_over(worker.assignment("two"))
    await until(lambda: topic.building is not None and topic.building.scheduler is not None)
    await worker.close()
    second = Worker(tmp_path, log)
    topic = second.topic("two")
    await until(lambda: topic.live is not None)
    await until(lambda: live_number(topic) == 2)
    assert counts(topic) == (40, 0)
    await second.close()
    third = Worker(tmp_path, log)
    topic = third.topic("two")
    await until(lambda: indexed(topic, log))
    assert live_number(topic) == 2
    assert "two" not in third.embedded
    await third.close()


async def test_a_model_changed_again_drops_what_was_being_built(worker: Worker, log: Log) -> None:
    topic = worker.topic("one")
    worker.append(topic, *LINES)
    await until(lambda: indexed(topic, log))
    worker.go["two"] = threading.Event()
    topic.take_over(worker.assignment("two"))
    await until(lambda: topic.building is not None and topic.building.scheduler is not None)
    topic.take_over(worker.assignment("three"))
    worker.go["two"].set()
    await until(lambda: live_number(topic) == 3)
    await until(lambda: 2 in worker.forgotten)
    assert not (topic.directory / "2").exists()
    assert counts(topic) == (40, 0)


async def test_a_model_that_nobody_uses_any_more_is_closed(
    worker: Worker, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vector.models.CLOSE_AFTER_S", 0.0)
    topic = worker.topic("one")
    worker.append(topic, *LINES)
    await until(lambda: indexed(topic, log))
    topic.take_over(worker.assignment("two"))
    await until(lambda: live_number(topic) == 2)
    models = worker.parts.models
    await until(lambda: models.opened("one") is None)
    assert models.opened("two") is not None
    await topic.go_back()
    topic.take_over(worker.assignment("one"))
    await until(lambda: live_number(topic) == 1)
    worker.append(topic, "disk again")
    await until(lambda: indexed(topic, log))


async def test_pausing_stops_indexing_and_not_searching(worker: Worker, log: Log) -> None:
    topic = worker.topic("one")
    worker.append(topic, *LINES)
    await until(lambda: indexed(topic, log))
    assert topic.take_over(worker.assignment("one", paused=True))
    worker.append(topic, "disk paused")
    await asyncio.sleep(0.05)
    assert not indexed(topic, log)
    assert topic.status()["paused"]
    assert len((await search(topic, worker))["results"][0][0]) == 40
    topic.take_over(worker.assignment("one"))
    await until(lambda: indexed(topic, log))
    assert not topic.status()["paused"]


def identity(model: str) -> Identity:
    return Identity("value", "chunk", model, "1", 16, "cosine")


def test_the_previous_generation_goes_when_its_time_is_over(tmp_path: Path) -> None:
    generations = Generations(tmp_path)
    generations.want(identity("one"))
    generations.want(identity("two"))
    generations.cut_over(2, 1000)
    generations.expire(1999, keep_ms=1000)
    assert generations.clean() == []
    assert generations.previous is not None
    generations.expire(2000, keep_ms=1000)
    assert generations.clean() == [1]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["2"]
    assert Generations(tmp_path).live == generations.live


def test_a_lost_or_damaged_state_costs_no_index(tmp_path: Path) -> None:
    generations = Generations(tmp_path)
    generations.want(identity("one"))
    for damage in (b"", b"{}", b'{"live": 7}', b"\xff"):
        (tmp_path / "generations.json").write_bytes(damage)
        again = Generations(tmp_path)
        assert again.live is not None
        assert again.live.number == 1
        again.want(identity("one"))
        assert again.building is None


def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    generations = Generations(tmp_path)
    generations.want(identity("one"))
    for number in range(2, 6):
        generations.want(identity(f"model {number}"))
        generations.clean()
        assert generations.building is not None
        assert generations.building.number == number
        generations = Generations(tmp_path)


async def test_a_provider_that_stalls_holds_up_its_own_topics_alone(tmp_path: Path) -> None:
    """Chronik embedded within the one loop that indexed every topic: one slow provider kept all of them back for hours."""
    worker = Worker(tmp_path, Log())
    worker.log.values = {0: [b"disk full"] * 20, 1: [b"login failed"] * 20}
    worker.go["slow"] = threading.Event()
    slow = worker.topic("slow")
    assignment = replace(worker.assignment("quick"), topic="others", topic_id=b"o" * 16)
    quick = TopicIndex(assignment, worker.parts)
    worker.topics.append(quick)
    quick.start()
    await until(lambda: indexed(quick, worker.log))
    found = await TopicSearch(quick, worker.log, worker.threads).search(
        {**search_message("disk", 100, [0, 1]), "topic_id": quick.topic_id}
    )
    assert len(found["results"][0][0]) == 40
    assert not indexed(slow, worker.log)
    worker.go["slow"].set()
    await until(lambda: indexed(slow, worker.log))
    await worker.close()
