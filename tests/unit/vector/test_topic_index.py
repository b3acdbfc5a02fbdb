"""A topic in the worker while it opens: partitions that come, models that go, calls that are cancelled."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import Record, build_batch
from tests.unit.vector.search_message import search_message
from vector import generation_index, topic_index, topic_search
from vector.assignment import Assignment
from vector.config import VectorConfig
from vector.embed.hashing import HashingEmbedder
from vector.embed.port import Embedder, EmbedSettings, ModelMissingError
from vector.filter.record_fields import VECTOR_HEADER
from vector.generation import Generations, Identity
from vector.generation_index import WorkerParts
from vector.index.builder import Builder
from vector.index.partition_index import PartitionIndex
from vector.index.settings import IndexSettings
from vector.log_source import LogRun, LogState
from vector.models import Models
from vector.threads import WorkerThreads
from vector.topic_index import TopicIndex
from vector.topic_search import TopicSearch, is_brief

VALUES = (b"disk full", b"login failed")
STATE = LogState(0, len(VALUES), len(VALUES))


class Source:
    """Every partition holds VALUES."""

    async def read(self, topic_id: bytes, partition: int, offset: int, max_bytes: int) -> LogRun:
        del topic_id, partition, max_bytes
        if offset >= len(VALUES):
            return LogRun(b"", offset, STATE)
        records = [Record(number, 1000 + number, None, value) for number, value in enumerate(VALUES)]
        return LogRun(bytes(build_batch(records)), len(VALUES), STATE)


class Worker:
    """What topics share; a model is opened once `model_there` is set, as `revision`."""

    def __init__(self, directory: Path) -> None:
        self.model_there = threading.Event()
        self.revision = "1"
        self.faults: list[Exception] = []
        self.forgotten: list[int] = []
        self.threads = WorkerThreads()
        self.builder = Builder(self.threads.post_to_index)
        models = Models(EmbedSettings(""), self.threads, self._open)
        self.parts = WorkerParts(
            directory, Source(), models, self.threads, self.builder, lambda _, number: self.forgotten.append(number)
        )

    def _open(self, name: str, dimensions: int, settings: EmbedSettings) -> Embedder:
        del dimensions, settings
        assert self.model_there.wait(20)
        if self.faults:
            raise self.faults.pop()
        embedder = HashingEmbedder(name, 16)
        embedder.revision = self.revision
        return embedder

    def topic(self, partitions: int) -> TopicIndex:
        config = VectorConfig("value", None, 0, "cosine", "truncate", 16, 100, 64, "sq8")
        states = dict.fromkeys(range(partitions), STATE)
        return TopicIndex(Assignment("logs", b"t" * 16, config, "hashing:16", states), self.parts)

    def close(self) -> None:
        self.model_there.set()
        self.parts.models.close()
        self.builder.close()
        self.threads.close()


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    worker = Worker(tmp_path)
    yield worker
    worker.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_index, "RETRY_S", 0.001)
    monkeypatch.setattr(generation_index, "RETRY_S", 0.001)
    monkeypatch.setattr("vector.models.RETRY_MIN_S", 0.001)


async def indexed(topic: TopicIndex, partitions: int) -> None:
    async with asyncio.timeout(20):
        while topic.behind(dict.fromkeys(range(partitions), len(VALUES))):
            await asyncio.sleep(0.001)


def search(limit: int = 10) -> dict[str, Any]:
    return search_message("disk", limit, [0])


async def test_partitions_added_while_the_model_loads_are_indexed(worker: Worker) -> None:
    topic = worker.topic(1)
    topic.start()
    await asyncio.sleep(0)
    topic.add_partitions({1: STATE})
    topic.add_partitions({2: STATE})
    worker.model_there.set()
    await indexed(topic, 3)
    topic.add_partitions({3: STATE})
    topic.add_partitions({4: STATE})
    await indexed(topic, 5)
    await topic.close()


async def test_a_bell_ahead_of_its_partition_does_not_hide_it(worker: Worker) -> None:
    worker.model_there.set()
    topic = worker.topic(1)
    topic.start()
    await indexed(topic, 1)
    topic.ring(1, STATE)
    assert 1 not in topic.assignment.states  # which is what the worker compares with
    await topic.close()


async def test_an_unexpected_error_while_opening_is_tried_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = Generations.want
    errors: list[Exception] = [OSError(28, "No space left on device"), RuntimeError("no idea")]

    def unlucky(self: Generations, identity: Identity) -> None:
        if errors:
            raise errors.pop()
        want(self, identity)

    monkeypatch.setattr(Generations, "want", unlucky)
    worker.faults.append(RuntimeError("a library's own exception"))
    worker.model_there.set()
    topic = worker.topic(1)
    topic.start()
    await indexed(topic, 1)
    assert not errors
    assert topic.status()["trouble"] is None
    await topic.close()


async def test_an_unreadable_segment_is_told_of_once_and_indexed_anew(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """tantivy refuses texts whose checksums are right: that partition was tried again every few seconds, and never searched."""
    worker.model_there.set()
    settings = IndexSettings(16, growing_rows_max=2, exact_matches_max=1, texts=True)
    with monkeypatch.context() as patch:
        patch.setattr(generation_index, "IndexSettings", lambda **_: settings)
        topic = worker.topic(1)
        topic.start()
        await indexed(topic, 1)
        async with asyncio.timeout(20):
            while topic.indexes[0].status()["segments"][0]["kind"] != "sealed":
                await asyncio.sleep(0.001)
        await topic.close()

    def refuse(*_: object) -> None:
        raise ValueError("Data corrupted")

    monkeypatch.setattr("vector.index.lexical._opened", refuse)
    again = worker.topic(1)
    again.start()
    await indexed(again, 1)
    (damage,) = again.indexes[0].status()["damages"]
    assert "tantivy cannot read it: Data corrupted" in damage
    assert [damage in record.getMessage() for record in caplog.records] == [True]
    assert again.trouble is None
    await again.close()


async def test_a_partition_that_cannot_be_opened_holds_up_no_other(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those behind it were not opened, and none of the topic was indexed, for as long as one folder could not be read."""
    broken = threading.Event()
    broken.set()
    really_open = PartitionIndex.open

    def unlucky(directory: Path, *arguments: Any) -> PartitionIndex:
        if broken.is_set() and directory.name == "0":
            raise RuntimeError("could not open the graph for reading")
        return really_open(directory, *arguments)

    monkeypatch.setattr(PartitionIndex, "open", unlucky)
    worker.model_there.set()
    topic = worker.topic(3)
    topic.start()
    async with asyncio.timeout(20):
        while topic.behind({1: len(VALUES), 2: len(VALUES)}):
            await asyncio.sleep(0.001)
    found = await TopicSearch(topic, Source(), worker.threads).search(search_message("disk", 10, [1, 2]))
    assert len(found["results"][0][0]) == 2 * len(VALUES)
    assert topic.status()["trouble"] == "partition 0: could not open the graph for reading"
    broken.clear()
    await indexed(topic, 3)
    assert topic.status()["trouble"] is None
    await topic.close()


async def test_a_folder_is_opened_once_when_the_opening_is_cancelled_and_repeated(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two indexes over one folder wrote one manifest after the other."""
    may_open, opened = threading.Event(), []
    really_open = PartitionIndex.open

    def slowly(*arguments: Any) -> PartitionIndex:
        assert may_open.wait(20)
        opened.append(arguments)
        return really_open(*arguments)

    monkeypatch.setattr(PartitionIndex, "open", slowly)
    worker.model_there.set()
    topic = worker.topic(1)
    topic.start()
    async with asyncio.timeout(20):
        while topic.live is None:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
    topic.add_partitions({0: STATE})
    await asyncio.sleep(0.01)
    may_open.set()
    await indexed(topic, 1)
    assert len(opened) == 1
    await topic.close()


async def test_an_unexpected_error_while_indexing_is_tried_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, errors = PartitionIndex.append, [ZeroDivisionError("a bug")]

    def unlucky(self: PartitionIndex, run: Any) -> None:
        if errors:
            raise errors.pop()
        append(self, run)

    monkeypatch.setattr(PartitionIndex, "append", unlucky)
    worker.model_there.set()
    topic = worker.topic(1)
    topic.start()
    await indexed(topic, 1)
    assert not errors
    await topic.close()


async def test_an_index_that_opens_while_its_topic_closes_is_closed_too(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left open, its builder would go on writing into a folder that the next assignment opens."""
    opening, go, closed = threading.Event(), threading.Event(), []
    open_index, close_index = PartitionIndex.open.__func__, PartitionIndex.close  # type: ignore[attr-defined]

    def slow(cls: Any, *arguments: Any) -> Any:
        opening.set()
        assert go.wait(20)
        return open_index(cls, *arguments)

    def close(self: PartitionIndex) -> None:
        closed.append(self.directory.name)
        close_index(self)

    monkeypatch.setattr(PartitionIndex, "open", classmethod(slow))
    monkeypatch.setattr(PartitionIndex, "close", close)
    worker.model_there.set()
    topic = worker.topic(1)
    topic.start()
    await asyncio.to_thread(opening.wait, 20)
    closing = asyncio.create_task(topic.close())
    await asyncio.sleep(0)
    go.set()
    await closing
    assert closed == ["0"]


async def test_a_model_of_another_revision_never_searches_the_old_index(tmp_path: Path) -> None:
    first = Worker(tmp_path)
    first.model_there.set()
    topic = first.topic(1)
    topic.start()
    await indexed(topic, 1)
    await topic.close()
    first.close()

    second = Worker(tmp_path)
    second.revision = "2"
    topic = second.topic(1)
    topic.start()
    searcher = TopicSearch(topic, Source(), second.threads)
    async with asyncio.timeout(20):
        while 0 not in topic.indexes:  # the old index, for queries by vector
            await asyncio.sleep(0.001)
    with pytest.raises(KafkaError, match="the model is loading"):
        await searcher.search(search())
    second.model_there.set()
    async with asyncio.timeout(20):
        while True:
            try:
                answer = await searcher.search(search())
                break
            except KafkaError as error:
                if error.code not in (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.COORDINATOR_NOT_AVAILABLE):
                    raise
                await asyncio.sleep(0.001)
    assert answer["generation"] == 2
    await topic.close()
    second.close()


async def test_all_texts_of_a_batch_are_embedded_by_one_call(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of queries, of examples, and of nothing twice."""
    worker.model_there.set()
    topic = worker.topic(1)
    topic.start()
    await indexed(topic, 1)
    calls: list[list[str]] = []
    embed = HashingEmbedder.embed

    def counted(self: HashingEmbedder, texts: Sequence[str], kind: Any) -> Any:
        calls.append(list(texts))
        return embed(self, texts, kind)

    monkeypatch.setattr(HashingEmbedder, "embed", counted)
    examples = {"positive": [{"text": "b"}, {"record": (0, 1)}], "negative": [{"text": "c"}]}
    queries = [{"text": "a"}, {"text": "b"}, examples, {"text": "a"}]
    answer = await TopicSearch(topic, Source(), worker.threads).search({**search(), "queries": queries})
    assert calls == [["a", "b", "c"]]
    assert [[row[1] for row in rows] for rows, _ in answer["results"]][2] == [0]  # an example is no hit
    await topic.close()


async def test_words_are_found_while_the_model_is_away(worker: Worker) -> None:
    """Mode text embeds nothing; modes vector and hybrid say why they cannot."""
    worker.model_there.set()
    topic = worker.topic(1)
    topic.start()
    await indexed(topic, 1)
    await topic.close()
    worker.model_there.clear()
    worker.faults = [ModelMissingError("no model here")] * 1000
    worker.model_there.set()
    other = Worker(worker.parts.directory)
    other.faults = worker.faults
    other.model_there.set()
    topic = other.topic(1)
    topic.start()
    async with asyncio.timeout(20):
        while 0 not in topic.indexes:
            await asyncio.sleep(0.001)
    searcher = TopicSearch(topic, Source(), other.threads)
    ((rows, _),) = (await searcher.search({**search(), "mode": "text"}))["results"]
    assert [(row[1], row[4]) for row in rows] == [(0, None)]
    for mode in ("vector", "hybrid"):
        with pytest.raises(KafkaError) as refused:
            await searcher.search({**search(), "mode": mode})
        assert refused.value.retriable
    await topic.close()
    other.close()


@pytest.mark.parametrize(
    ("options", "brief"),
    [
        ({}, True),
        ({"collapse": "text", "partitions": [{"partition": 0, "from": 1, "until": 2, "log_start": 0}]}, True),
        ({"filter": '{"key": {"eq": "k"}}'}, False),
        ({"collapse": "key"}, False),
        ({"mode": "hybrid"}, False),
        ({"limit": 1000}, False),
    ],
)
async def test_a_brief_search_is_not_handed_to_a_thread(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], brief: bool
) -> None:
    """It answers the same; whatever might look into the log, which the event loop reads, never runs in that loop."""
    worker.model_there.set()
    topic = worker.topic(1)
    topic.start()
    await indexed(topic, 1)
    searcher = TopicSearch(topic, Source(), worker.threads)
    message = {**search(), **options}
    assert is_brief(message, topic.indexes, 10_000) == brief
    assert not is_brief(message, topic.indexes, 0)
    at_once = await searcher.search(message)
    monkeypatch.setattr(topic_search, "BRIEF_NODES_MAX", -1)
    assert not is_brief(message, topic.indexes, 10_000)
    in_a_thread = await searcher.search(message)
    assert at_once["results"] == in_a_thread["results"]
    await topic.close()


async def test_a_cursor_of_another_generation_has_expired(worker: Worker) -> None:
    worker.model_there.set()
    topic = worker.topic(1)
    topic.start()
    await indexed(topic, 1)
    searcher = TopicSearch(topic, Source(), worker.threads)
    ((first, cursor),) = (await searcher.search(search(1)))["results"]
    ((second, end),) = (await searcher.search({**search(1), "cursor": cursor}))["results"]
    assert {row[1] for row in (*first, *second)} == {0, 1}
    ((rest, nothing),) = (await searcher.search({**search(1), "cursor": end}))["results"]
    assert (rest, nothing) == ([], None)
    assert topic.live is not None
    topic.live.generation = replace(topic.live.generation, number=2)
    with pytest.raises(KafkaError, match="cursor: has expired"):
        await searcher.search({**search(1), "cursor": cursor})
    await topic.close()


async def test_texts_cannot_be_searched_where_producers_send_the_vectors(worker: Worker) -> None:
    """vector.embedding.model=none: a text query says so; vectors work."""
    worker.parts = replace(worker.parts, source=VectorSource(), models=Models(EmbedSettings(""), worker.threads))
    config = VectorConfig("value", "none", 2, "cosine", "chunk", 16, 100, 64, "sq8")
    topic = TopicIndex(Assignment("logs", b"t" * 16, config, "none", {0: STATE}), worker.parts)
    topic.start()
    await indexed(topic, 1)
    searcher = TopicSearch(topic, worker.parts.source, worker.threads)
    with pytest.raises(KafkaError, match="the producers send the vectors") as caught:
        await searcher.search(search())
    assert caught.value.code == ErrorCode.INVALID_REQUEST
    query = {"vector": np.array([0, 1], "<f4").tobytes()}
    answer = await searcher.search({**search(), "queries": [query]})
    assert [row[1] for row in answer["results"][0][0]] == [1, 0]
    await topic.close()


class VectorSource(Source):
    """Two records with vectors of their own."""

    async def read(self, topic_id: bytes, partition: int, offset: int, max_bytes: int) -> LogRun:
        if offset >= len(VALUES):
            return LogRun(b"", offset, STATE)
        sent = [np.array(vector, "<f4").tobytes() for vector in ((1, 0), (0, 1))]
        records = [Record(n, 1000 + n, None, b"text", [(VECTOR_HEADER, data)]) for n, data in enumerate(sent)]
        return LogRun(bytes(build_batch(records)), len(VALUES), STATE)
