"""The search path between the doors and the worker: what it keeps, and what it answers when the world has moved meanwhile."""

from collections.abc import Callable
from typing import Any

import pytest

from broker.search import records
from broker.search.metrics import families
from broker.search.records import BatchStarts, FoundRecord, read_records
from broker.search.service import SearchService
from broker.topics import Topic
from protocol.batch_header import BatchHeader
from protocol.errors import ErrorCode, KafkaError
from tests.unit.broker.admin import Admin
from vector.request import Query, SearchRequest, SearchResponse


class FakeWorker:
    """A channel whose other end answers as it is told."""

    def __init__(self) -> None:
        self.hits: list[list[tuple[int, int]]] = [[]]
        self.status: dict[str, Any] | None = None
        self.meanwhile: Callable[[], None] = lambda: None

        self.asked: list[Any] = []

    async def call(self, name: str, payload: Any, *, abandon: bool = False) -> Any:
        assert abandon is (name == "search")
        self.asked.append({**payload} if name == "search" else payload)
        self.meanwhile()
        if name == "status":
            return self.status
        return {
            "model": "m",
            "dimensions": 2,
            "metric": "cosine",
            "generation": 1,
            "complete": True,
            "embed_micros": 0,
            "wait_micros": 0,
            "search_micros": 0,
            "results": [
                ([(*place, 5, 0.5, 0.5, None, 1, None, 0, 0, None) for place in places], None) for places in self.hits
            ],
            "states": {one["partition"]: (1, 0, 0) for one in payload["partitions"]},
            "searched": [one["partition"] for one in payload["partitions"]],
        }


class World(Admin):
    """One topic with vectors, a search service, and a worker that is no process."""

    def __init__(self) -> None:
        super().__init__()
        self.topic: Topic = self.topics.create("logs", 1, {"vector.enabled": "true"})
        self.settle()
        self.search = SearchService(self.config, self.topics, self.logs, self.machine.clock)
        self.worker = FakeWorker()
        self.search.fleet.workers[0].channel = self.worker  # type: ignore[assignment]

    async def read(self, *places: tuple[int, int], **fields: Any) -> dict[tuple[int, int], FoundRecord]:
        request = SearchRequest(topic="logs", **fields)
        return await read_records(self.topic, places or [(0, 0)], request, BatchStarts())

    async def ask(self, queries: int = 1, **fields: Any) -> SearchResponse:
        name = {} if "topic_id" in fields else {"topic": "logs"}
        return await self.search.search(
            SearchRequest(**name, queries=(Query(text="q"),) * queries, **fields), self.access
        )


async def test_only_what_is_asked_for_is_kept() -> None:
    world = World()
    world.append(world.topic, b"x" * 1000)
    cut = await world.read(max_value_bytes=10)
    assert (cut[0, 0].value, cut[0, 0].value_cut) == (b"x" * 10, True)
    whole = await world.read(max_value_bytes=1000)
    assert (whole[0, 0].value, whole[0, 0].value_cut) == (b"x" * 1000, False)
    without = await world.read(include=frozenset({"key"}))
    assert (without[0, 0].value, without[0, 0].value_cut) == (None, False)


async def test_hits_without_anything_of_their_record_are_of_records_that_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is read for them; in a log that was compacted batches are, and one that was thinned out is opened."""
    world = World()
    world.append(world.topic, b"a", b"b", b"c")
    world.append(world.topic, b"d")
    opened: list[list[int]] = []
    select = records.select_records
    monkeypatch.setattr(
        records, "select_records", lambda batch, wanted, *more: opened.append(wanted) or select(batch, wanted, *more)
    )
    places = [(0, 1), (0, 3), (0, 2), (0, 4)]
    found = await world.read(*places, include=frozenset({"vector", "scores"}))
    assert (sorted(found), opened) == ([(0, 1), (0, 2), (0, 3)], [])
    world.topic.partitions[0].cleaned_offset = 4
    assert await world.read(*places, include=frozenset({"vector", "scores"})) == found
    assert not opened
    monkeypatch.setattr(BatchHeader, "whole", False)
    assert sorted(await world.read(*places, include=frozenset())) == [(0, 1), (0, 2), (0, 3)]
    assert opened


async def test_where_records_begin_is_remembered_of_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read last is kept; all of it together stays within the bound."""
    monkeypatch.setattr(records, "STARTS_MAX", 2 * records.STARTS_OF_A_BATCH)
    world, starts = World(), BatchStarts()
    for _ in range(3):
        world.append(world.topic, *[b"x" * 10] * 40)
    for offset in (39, 79, 119, 0):
        found = await read_records(world.topic, [(0, offset)], SearchRequest(topic="logs"), starts)
        assert found[0, offset].value == b"x" * 10
        assert len(starts) <= 2 * records.STARTS_OF_A_BATCH


async def test_the_hits_of_one_answer_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 queries that find the same large record would be 64 of them in the answer."""
    monkeypatch.setattr(records, "HIT_BYTES_MAX", 2500)
    world = World()
    world.append(world.topic, b"x" * 1000)
    world.worker.hits = [[(0, 0)]] * 3
    with pytest.raises(KafkaError, match=r"max_value_bytes: .* limit") as caught:
        await world.ask(3)
    assert caught.value.code == ErrorCode.POLICY_VIOLATION
    response = await world.ask(3, max_value_bytes=800)
    assert [hit.value for result in response.results for hit in result.hits] == [b"x" * 800] * 3
    assert all(hit.value_cut for result in response.results for hit in result.hits)


@pytest.mark.parametrize("failure", [None, KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "the index is loading")])
@pytest.mark.parametrize("by_name", [True, False])
async def test_a_topic_deleted_during_a_search_is_unknown(by_name: bool, failure: KafkaError | None) -> None:
    """It was answered with an empty list of hits."""
    world = World()
    world.append(world.topic, b"x")
    world.worker.hits = [[(0, 0)]]

    def delete() -> None:
        world.topics.delete("logs")
        world.topics.create("logs", 1, {"vector.enabled": "true"})  # another topic, whatever its name
        if failure is not None:
            raise failure

    world.worker.meanwhile = delete
    with pytest.raises(KafkaError, match="there is no topic") as caught:
        await world.ask(max_wait_ms=60_000, **({} if by_name else {"topic_id": world.topic.topic_id}))
    assert caught.value.code == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if by_name else ErrorCode.UNKNOWN_TOPIC_ID)


async def test_ready_is_said_when_every_partition_can_be_searched() -> None:
    world = World()
    search, topic_id = world.search, world.topic.topic_id
    assert search.readiness == "loading"
    search._take_progress(0, {"offsets": [], "models": []})
    assert search.readiness == "loading"
    search._take_progress(0, {"offsets": [(topic_id, 0, 0, 0)], "models": []})
    assert search.readiness == "ready"
    search.fleet.workers[0].channel = None
    assert search.readiness == "loading"
    world.topics.delete("logs")
    assert search.readiness == "off"


async def test_metrics_say_where_the_time_went_and_how_far_the_index_is() -> None:
    world = World()
    world.append(world.topic, b"x", b"y", b"z")
    world.search._take_progress(0, {"offsets": [(world.topic.topic_id, 0, 2, 1)], "models": []})
    await world.ask()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(world.search)
        for sample in family.samples
    }
    assert samples["senselog_vector_lag_records", "logs", "0"] == 1
    assert samples["senselog_vector_failed_records", "logs", "0"] == 1
    for phase in ("embed", "wait", "search", "read"):
        assert samples["senselog_search_seconds_count", phase] == 1
        assert samples["senselog_search_seconds_bucket", phase, "+Inf"] == 1


async def test_the_state_says_what_keeps_the_index_back() -> None:
    world = World()
    world.append(world.topic, b"x")
    assert (await world.ask(0)).trouble == "loading: vector worker off"
    partition = {"indexed_offset": 1, "lag_ms": 0, "failed": 0}
    status = {"trouble": None, "paused": False, "over_budget": False, "generation": 1, "partitions": {0: partition}}
    world.worker.status = status
    assert (await world.ask(0)).trouble is None
    world.worker.status = {**status, "trouble": "no such model", "paused": True}
    assert (await world.ask(0)).trouble == "paused: no such model"
    world.worker.status = {**status, "partitions": {}}
    assert (await world.ask(0)).trouble == "loading"


async def test_a_record_that_compaction_took_makes_room_for_another_hit() -> None:
    """The index is told, and looks again, until all hits can be shown; of a log that was never compacted a missing record is only
    left out."""
    world = World()
    world.append(world.topic, b"alive")
    world.worker.hits = [[(0, 7), (0, 0)]]
    assert [hit.offset for hit in (await world.ask()).results[0].hits] == [0]
    assert len(world.worker.asked) == 1
    world.topics.set_configs("logs", {"vector.enabled": "true", "cleanup.policy": "compact"})

    def look_again() -> None:
        if world.worker.asked[-1]["gone"] == [(0, 7)]:
            world.worker.hits = [[(0, 0)]]

    world.worker.meanwhile = look_again
    assert [hit.offset for hit in (await world.ask()).results[0].hits] == [0]
    assert [asked["gone"] for asked in world.worker.asked[1:]] == [[], [(0, 7)]]


async def test_a_topic_that_is_compacted_no_more_has_no_gaps_among_its_hits_either() -> None:
    """After a change of cleanup.policy what compaction had taken before took the places of hits."""
    world = World()
    world.append(world.topic, b"alive")
    world.topic.partitions[0].cleaned_offset = 8
    world.worker.hits = [[(0, 7), (0, 0)]]

    def look_again() -> None:
        if world.worker.asked[-1]["gone"] == [(0, 7)]:
            world.worker.hits = [[(0, 0)]]

    world.worker.meanwhile = look_again
    assert [hit.offset for hit in (await world.ask()).results[0].hits] == [0]
    assert [asked["gone"] for asked in world.worker.asked] == [[], [(0, 7)]]
