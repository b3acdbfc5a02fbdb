"""Two workers with a partition of a topic each: one decides about generations, the other follows, and a search sees one generation."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from protocol.errors import ErrorCode, KafkaError
from tests.unit.vector.search_message import search_message
from tests.unit.vector.test_generations import LINES, TOPIC_ID, Log, Worker, live_number, until
from vector import topic_index
from vector.generation import Roles
from vector.topic_index import TopicIndex
from vector.topic_search import TopicSearch


class Bridge:
    """The broker between lead and follower."""

    def __init__(self) -> None:
        self.follower: TopicIndex | None = None
        self.told: Any = None

    async def tell(self, topic_id: bytes, roles: Roles) -> None:
        assert topic_id == TOPIC_ID
        self.told = msgpack.unpackb(msgpack.packb(roles.to_message()))
        if self.follower is not None:
            await self.follower.follow(self.told)

    async def hold(self, topic_id: bytes, generation: int) -> bool:
        assert topic_id == TOPIC_ID
        return self.follower is not None and await self.follower.hold(generation)

    async def release(self, topic_id: bytes) -> None:
        assert topic_id == TOPIC_ID
        if self.follower is not None:
            self.follower.release()


class Two:
    """Both workers over one log; the lead has partition 0, the follower 1, in folders of their own or in one."""

    def __init__(self, directory: Path, *, own: bool) -> None:
        self.log = Log()
        self.bridge = Bridge()
        self.workers = [Worker(directory, self.log), Worker(directory / "other" if own else directory, self.log)]
        self.workers[0].parts = replace(self.workers[0].parts, followers=self.bridge)  # type: ignore[arg-type]
        self.workers[1].parts = replace(self.workers[1].parts, own_directory=own)
        self.lead = self._start(0)

    def follow(self) -> TopicIndex:
        follower = self.bridge.follower = self._start(1)
        return follower

    def _start(self, number: int) -> TopicIndex:
        worker = self.workers[number]
        assignment = replace(
            worker.assignment("one"),
            states={number: self.log.state(number)},
            leads=number == 0,
            roles=self.bridge.told if number else None,
        )
        topic = TopicIndex(assignment, worker.parts)
        worker.topics.append(topic)
        topic.start()
        return topic

    def append(self, *texts: str) -> None:
        self.workers[0].append(self.lead, *texts)
        if self.bridge.follower is not None:
            self.workers[1].append(self.bridge.follower)

    def change_model(self, name: str) -> None:
        for number, topic in enumerate([self.lead, self.bridge.follower]):
            if topic is not None:
                assignment = self.workers[number].assignment(name)
                assert topic.take_over(replace(assignment, states={number: self.log.state(number)}))

    async def search(self) -> tuple[int, int]:
        """Generation and number of hits, after each of the two has answered."""
        topics = [self.lead, self.bridge.follower]
        searches: list[TopicSearch] = []

        async def relay(call: str, request: tuple[int, Any]) -> Any:
            to, payload = request
            answer = await _awaited(
                getattr(searches[to], call)(msgpack.unpackb(msgpack.packb(payload), strict_map_key=False))
            )
            return msgpack.unpackb(msgpack.packb(answer), strict_map_key=False)

        for number, topic in enumerate(topics):
            assert topic is not None
            searches.append(TopicSearch(topic, self.log, self.workers[number].threads, relay))
        found = []
        for number, search in enumerate(searches):
            message = {**search_message("disk", 1000, [0, 1]), "topic_id": TOPIC_ID}
            answer = await search.search({**message, "others": {1 - number: [1 - number]}})
            found.append((answer["generation"], len(answer["results"][0][0])))
        return max(found)

    async def close(self) -> None:
        for worker in self.workers:
            await worker.close()


async def _awaited(answer: Any) -> Any:
    return await answer if asyncio.iscoroutine(answer) else answer


@pytest.fixture(params=[False, True], ids=["one folder", "two folders"])
async def two(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    monkeypatch.setattr(topic_index, "RETRY_S", 0.001)
    monkeypatch.setattr(topic_index, "FOLLOWERS_POLL_S", 0.005)
    two = Two(tmp_path, own=request.param)
    yield two
    await two.close()


def all_indexed(two: Two) -> bool:
    lead, follower, ends = two.lead, two.bridge.follower, {p: len(values) for p, values in two.log.values.items()}
    return follower is not None and not lead.behind({0: ends[0]}) and not follower.behind({1: ends[1]})


async def test_a_cut_over_waits_for_every_worker_and_is_one_for_all_searches(two: Two) -> None:
    follower = two.follow()
    two.append(*LINES)
    await until(lambda: all_indexed(two))
    assert await two.search() == (1, len(LINES))
    two.workers[1].go["two"] = threading.Event()  # the follower's model stands still
    two.change_model("two")
    await until(lambda: two.lead.building is not None and not two.lead.building.behind({0: 20}))
    for _ in range(20):
        assert await two.search() == (1, len(LINES))
    two.append("disk written meanwhile")
    two.workers[1].go["two"].set()
    seen = []
    while live_number(follower) != 2 or follower.building is not None:
        seen.append(await two.search())
    assert [number for number, _ in seen] == sorted(number for number, _ in seen)
    await until(lambda: all_indexed(two))
    assert await two.search() == (2, len(LINES) + 1)
    two.append("disk written afterwards")
    await until(lambda: all_indexed(two))
    await two.lead.go_back()
    two.change_model("one")
    await until(lambda: live_number(two.lead) == live_number(follower) == 1)
    await until(lambda: all_indexed(two))
    assert await two.search() == (1, len(LINES) + 2)


async def test_who_comes_later_begins_with_the_lead_s_last_word(two: Two) -> None:
    two.append(*LINES)
    await until(lambda: two.bridge.told is not None and two.bridge.told["live"] is not None)
    follower = two.follow()
    two.append()
    await until(lambda: all_indexed(two))
    assert live_number(follower) == 1
    assert follower.status()["partitions"].keys() == {1}


async def test_a_worker_of_another_generation_is_asked_again_not_believed(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else hits of two models would be merged by scores that mean different things."""
    monkeypatch.setattr("vector.topic_search.CUT_OVER_S", 0.05)
    follower = two.follow()
    two.append(*LINES)
    await until(lambda: all_indexed(two))
    two.bridge.follower = None  # it hears nothing any more
    two.change_model("two")
    await asyncio.sleep(0)
    await two.lead.rebuild() if two.lead.building is None else None
    await until(lambda: two.lead.building is not None)
    await two.lead.cut_over()
    two.bridge.follower = follower
    with pytest.raises(KafkaError, match="has just been replaced") as refused:
        await two.search()
    assert refused.value.code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
