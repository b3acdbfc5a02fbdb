"""`__vector_failures`: told once, over restarts too, listed in pages, gone with its topic; and pausing, which is a topic config."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.operations import Operation
from broker.search import failures
from broker.search.administration import VectorAdministration
from broker.search.failures import FAILURES_TOPIC, FailureLog, decode
from broker.security.access import RestrictedAccess
from broker.security.acl import Acl, PatternType, Permission, ResourceType
from broker.security.authorizer import Authorizer
from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import Record, iterate_records, walk_batches
from tests.unit.broker.admin import Admin


class FakeWorker:
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.status: dict[str, Any] | None = None

    async def ask(self, call: str, message: Any) -> Any:
        self.asked.append((call, message))
        if call == "embed":
            return {"model": "m", "vectors": [b"\0\0\x80\x3f" for _ in message["texts"]]}
        return None

    async def ask_any(self, call: str, message: Any) -> Any:
        return await self.ask(call, message)

    async def ask_all(self, call: str, message: Any) -> None:
        self.asked.append((call, message))

    async def told(self, topic: Any) -> dict[str, Any] | None:
        return self.status


class World(Admin):
    """A topic with vectors and the failures of its records."""

    def open(self) -> None:
        super().open()
        self.failures = FailureLog(self.topics, self.logs, self.machine.clock)
        self.failures.load()
        self.worker = FakeWorker()
        self.administration = VectorAdministration(self.topics, self.failures, self.worker, "local:default")

    def create(self) -> Any:
        topic = self.topics.create("logs", 2, {"vector.enabled": "true"})
        self.append(topic, *[b"text"] * 10)
        self.append(topic, *[b"text"] * 10, partition=1)
        self.settle()
        return topic

    async def add(self, topic: Any, partition: int, offsets: list[int], generation: int = 1) -> None:
        rows = [(offset, f"reason {offset}", 1) for offset in offsets]
        told = self.failures.add((topic.topic_id, generation, partition, "m", rows))
        task = asyncio.ensure_future(told)
        await asyncio.sleep(0)
        self.settle()
        await task

    def written(self) -> list[Record]:
        log = self.topics.log(FAILURES_TOPIC, 0)
        result = log.read(0, 1 << 20, up_to=log.high_watermark, at_least_one=True)
        return [
            record
            for buffer in result.buffers
            for header in walk_batches(memoryview(buffer))
            for record in iterate_records(buffer[header.position : header.position + header.size])
        ]

    def listed(self, **arguments: Any) -> list[tuple[int, int]]:
        found = self.administration.failures("logs", **arguments)["failures"]
        return [(entry["partition"], entry["offset"]) for entry in found]


async def test_a_failed_record_is_told_once_over_restarts_of_worker_and_broker() -> None:
    world = World()
    topic = world.create()
    await world.add(topic, 0, [3, 5])
    await world.add(topic, 0, [3, 5, 7])  # a worker that met a crash before its checkpoint
    world.restart()
    await world.add(topic, 0, [5, 7, 9])
    values = [json.loads(record.value or b"") for record in world.written()]
    assert [value["offset"] for value in values] == [3, 5, 7, 9]
    assert values[0] == {
        "topic": "logs",
        "topic_id": topic.topic_id.hex(),
        "generation": 1,
        "partition": 0,
        "offset": 3,
        "records": 1,
        "reason": "reason 3",
        "model": "m",
        "failed_at_ms": values[0]["failed_at_ms"],
    }
    assert world.listed() == [(0, 3), (0, 5), (0, 7), (0, 9)]


async def test_failures_come_in_pages_and_by_partition() -> None:
    world = World()
    topic = world.create()
    await world.add(topic, 1, [2, 4])
    await world.add(topic, 0, [8, 6])
    await world.add(topic, 0, [6], generation=2)
    assert world.listed(generation=1) == [(0, 6), (0, 8), (1, 2), (1, 4)]
    assert world.listed(partition=1) == [(1, 2), (1, 4)]
    seen, after = [], None
    while True:
        page = world.administration.failures("logs", after=after, limit=1)
        seen += [(entry["partition"], entry["offset"], entry["generation"]) for entry in page["failures"]]
        if page["next"] is None:
            break
        after = tuple(page["next"])
    assert seen == [(0, 6, 1), (0, 6, 2), (0, 8, 1), (1, 2, 1), (1, 4, 1)]
    world.failures.forget(topic.topic_id, 1)
    assert world.listed() == [(0, 6)]
    world.restart()
    assert world.listed() == [(0, 6)]


async def test_records_that_retention_took_are_no_failures_any_more() -> None:
    world = World()
    topic = world.create()
    await world.add(topic, 0, [3, 5])
    topic.partitions[0].delete_records_before(4)
    assert world.listed() == [(0, 5)]


async def test_entries_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "KEPT_MAX", 2)
    world = World()
    topic = world.create()
    await world.add(topic, 0, [1, 2, 3, 4])
    assert world.listed() == [(0, 1), (0, 2)]
    assert len(world.written()) == 4


def test_what_is_no_entry_is_passed_over() -> None:
    """The topic is an ordinary one: anybody may write to it."""
    for key, value in ((b"", b""), (b"[]", b"{}"), (b'{"topic_id": 1}', None), (b"\xff", None)):
        assert decode(key, value) is None
    name = {"topic_id": "00", "generation": 1, "partition": 0, "offset": 1}
    assert decode(json.dumps(name).encode(), b"{}") is None
    assert decode(json.dumps({**name, "offset": "x"}).encode(), None) is None


async def test_pausing_is_a_topic_config_and_so_survives_restarts() -> None:
    world = World()
    world.create()
    world.administration.pause("logs")
    world.restart()
    topic = world.topics.get("logs")
    assert topic is not None
    assert topic.vector is not None
    assert topic.vector.paused
    await world.administration.resume("logs")
    assert world.worker.asked == [("retry_now", topic.topic_id)]
    assert topic.configs == {"vector.enabled": "true"}
    assert not topic.vector.paused


def test_administration_names_what_is_wrong() -> None:
    world = World()
    world.create()
    world.topics.create("plain", 1, {})
    for name, code in (("nowhere", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION), ("plain", ErrorCode.INVALID_CONFIG)):
        for call in (world.administration.pause, world.administration.failures):
            with pytest.raises(KafkaError) as caught:
                call(name)
            assert caught.value.code == code
    with pytest.raises(KafkaError, match="limit"):
        world.administration.failures("logs", limit=0)
    with pytest.raises(KafkaError):
        world.administration.failures("logs", partition=2)


async def test_reembedding_changes_the_configs_or_builds_the_same_anew() -> None:
    world = World()
    topic = world.create()
    await world.administration.reembed("logs", model="hashing:8", field="$.message", cutover="manual")
    assert topic.configs == {
        "vector.enabled": "true",
        "vector.embedding.model": "hashing:8",
        "vector.field": "$.message",
        "vector.cutover": "manual",
    }
    assert world.worker.asked == []
    await world.administration.reembed("logs", model="hashing:8", cutover="auto")
    await world.administration.retry("logs")
    await world.administration.cut_over("logs")
    assert world.worker.asked == [(call, topic.topic_id) for call in ("rebuild", "rebuild", "cut_over")]
    with pytest.raises(KafkaError, match="model"):
        await world.administration.reembed("logs", model="nonsense")


async def test_the_default_model_by_name_is_the_same_model() -> None:
    world = World()
    topic = world.create()
    await world.administration.reembed("logs", model="local:default")
    assert world.worker.asked == [("rebuild", topic.topic_id)]


async def test_rolling_back_makes_the_configs_what_they_were() -> None:
    world = World()
    topic = world.create()
    with pytest.raises(KafkaError, match="no previous generation"):
        await world.administration.roll_back("logs")
    identity = {"model": "hashing:8", "field": "key", "long_text": "skip", "metric": "dot", "asked_dimensions": 8}
    world.worker.status = {"generations": {"previous": {"generation": 1, "identity": identity}}}
    await world.administration.roll_back("logs")
    assert topic.vector is not None
    assert (topic.vector.embedding_model, topic.vector.field, topic.vector.dimensions) == ("hashing:8", "key", 8)
    assert (topic.vector.long_text, topic.vector.metric) == ("skip", "dot")
    assert world.worker.asked == [("go_back", topic.topic_id)]


async def test_embedding_names_a_topic_or_a_model_and_texts_within_limits() -> None:
    world = World()
    world.create()
    assert await world.administration.embed(["a", "b"], topic="logs") == ("m", [[1.0], [1.0]])
    for arguments in ({}, {"topic": "logs", "model": "hashing:8"}, {"model": "nonsense"}, {"topic": "nowhere"}):
        with pytest.raises(KafkaError):
            await world.administration.embed(["a"], **arguments)
    for texts in ([], ["a"] * 65, [""]):
        with pytest.raises(KafkaError):
            await world.administration.embed(texts, topic="logs")


async def test_administration_asks_for_the_callers_rights() -> None:
    """READ alone changes nothing of an index, and shows what failed; nothing at all does not even show that."""
    world = World()
    rights = {"User:reader": Operation.READ, "User:owner": Operation.ALTER_CONFIGS, "User:nobody": None}
    acls = [
        Acl(ResourceType.TOPIC, "logs", PatternType.LITERAL, user, "*", operation, Permission.ALLOW)
        for user, operation in rights.items()
        if operation is not None
    ]
    authorizer = Authorizer(acls, frozenset(), allow_without_acls=False)

    def refused(call: Callable[..., Any], *arguments: Any) -> bool:
        try:
            call(*arguments)
        except KafkaError as error:
            return error.code is ErrorCode.TOPIC_AUTHORIZATION_FAILED
        return False

    for user, (sees, changes) in {
        "User:reader": (True, False), "User:owner": (False, True), "User:nobody": (False, False),
    }.items():  # fmt: skip
        administration = world.administration.by(RestrictedAccess(authorizer, user, "127.0.0.1"))
        assert refused(administration.failures, "logs") is not sees
        assert refused(administration.pause, "logs") is not changes
