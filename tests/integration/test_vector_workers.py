"""Partitions of one topic in several vector workers: searched as if in one, and each worker's death is its own partitions' alone."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import httpx
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from senselog_client import SenselogClient
from senselog_client.errors import IndexLoading

from tests.broker_process import ROOT, BrokerProcess

WORKERS = 3
PARTITIONS = 4
WORDS = ("disk", "login", "timeout", "memory", "payment", "cache", "socket", "queue")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path, "vector.embedding.model=hashing:32", f"vector.workers={WORKERS}")
    process.start()
    yield process
    process.end()


def create(broker: BrokerProcess, topic: str, partitions: int = PARTITIONS) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    new = NewTopic(topic, partitions, config={"vector.enabled": "true", "retention.ms": "-1"})
    admin.create_topics([new])[topic].result()


def texts(count: int) -> list[str]:
    """Every fifth line is a repetition."""
    return [f"{WORDS[n % 8]} {WORDS[n // 8 % 8]} number {n if n % 5 else 0}" for n in range(count)]


def produce(broker: BrokerProcess, topic: str, lines: list[str], first: int = 0) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 0})
    for number, text in enumerate(lines, first):
        value = f'{{"message": "{text}", "level": "{WORDS[number % 3]}"}}'
        producer.produce(topic, value, key=f"k{number % 7}", partition=number % PARTITIONS, timestamp=1000 + number)
    assert producer.flush(30) == 0


def client(broker: BrokerProcess) -> SenselogClient:
    return SenselogClient(bootstrap_servers=broker.bootstrap)


def newest(search: SenselogClient, topic: str, text: str | None = None, **options: Any) -> Any:
    return search.search(topic, text, **{"latest": True, "max_wait_ms": 30_000, "timeout_ms": 20_000, **options})


def status(broker: BrokerProcess, topic: str) -> dict[str, Any]:
    return dict(httpx.get(f"http://{broker.http}/v1/topics/{topic}/vector", timeout=30).json())


def command(broker: BrokerProcess, topic: str, name: str, **body: Any) -> None:
    httpx.post(f"http://{broker.http}/v1/topics/{topic}/vector/{name}", json=body, timeout=60).raise_for_status()


def until(look: Callable[[], Any]) -> Any:
    """What it finds, once it finds something."""
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def rows(result: Any) -> list[tuple[Any, ...]]:
    """All of the answer that one worker and several must agree about."""
    return [
        (hit.partition, hit.offset, round(hit.score, 4), hit.duplicates, hit.vector_rank, hit.text_rank, hit.value)
        for hit in result
    ]


SEARCHES: list[dict[str, Any]] = [
    {"text": "disk login number 3"},
    {"text": "disk login", "mode": "text"},
    {"text": "disk login", "mode": "hybrid"},
    {"text": "disk login", "mode": "hybrid", "fusion": "weighted", "collapse": "$.level"},
    {"text": "payment", "collapse": "text", "limit": 200},
    {"text": "payment", "collapse": "key"},
    {"record": (0, 3), "limit": 7},
    {"record": (1, 3), "limit": 7},
    {"record": (3, 3), "limit": 7, "filter": {"must": [{"path": "$.level", "eq": "disk"}]}},
    {"text": "queue", "filter": {"partitions": [1, 2]}, "limit": 300},
    {"text": "queue", "min_similarity": 0.4, "limit": 300},
    {"text": "queue", "exact": True},
    {"positive": [(0, 3), (1, 5), "socket"], "negative": [(3, 1)], "limit": 20},
]


def pages(search: SenselogClient, request: dict[str, Any]) -> list[list[tuple[Any, ...]]]:
    """Three pages, or all."""
    found, cursor = [], None
    for _ in range(3):
        result = newest(search, "logs", **request, cursor=cursor, include=("key", "value", "scores"))
        found.append(rows(result))
        cursor = result.cursor
        if cursor is None:
            break
    return found


def test_several_workers_answer_as_one_and_their_number_may_change(broker: BrokerProcess) -> None:
    """Every kind of search, page by page; a partition that moves to another worker is not embedded again."""
    create(broker, "logs")
    produce(broker, "logs", texts(400))
    with client(broker) as search:
        answers = [pages(search, request) for request in SEARCHES]
        assert all(answer[0] for answer in answers)
        batch = ["disk login", {"record": (2, 7)}, "queue"]
        together = search.search_batch("logs", batch, limit=30, include=("value", "vector"), timeout_ms=20_000)
        alone = [
            search.search("logs", **one, limit=30) for one in ({"text": "disk login"}, batch[1], {"text": "queue"})
        ]
        assert [[row[:4] for row in rows(one)] for one in together] == [[row[:4] for row in rows(one)] for one in alone]
        assert all(len(hit.vector or ()) == 32 for one in together for hit in one)
    told = status(broker, "logs")
    assert len({partition["worker"] for partition in told["partitions"]}) == WORKERS
    assert (told["state"], told["indexed"], len(broker.children())) == ("green", 400, WORKERS)
    broker.stop()
    broker.settings = ("vector.embedding.model=hashing:32",)
    broker.start()
    with client(broker) as search:
        for request, expected in zip(SEARCHES, answers, strict=True):
            assert pages(search, request) == expected, request
    assert status(broker, "logs")["embedder"]["texts_embedded"] == 0


def test_a_killed_worker_disturbs_its_own_partitions_alone(broker: BrokerProcess) -> None:
    create(broker, "logs")
    produce(broker, "logs", texts(80))
    with client(broker) as search:
        whole = newest(search, "logs", "disk", limit=1000)
        assert len(whole) == 80
        told = status(broker, "logs")
        answers_in_part = 0
        for number in range(WORKERS):
            lost = {one["partition"] for one in told["partitions"] if one["worker"] == number}
            rest = sorted(set(range(PARTITIONS)) - lost)
            process = next(one for one in broker.children() if one.pid == told["workers"][number]["pid"])
            process.suspend()  # killed while it is stopped: the others are asked before it can be back
            process.kill()
            alive = search.search("logs", "disk", filter={"partitions": rest}, limit=1000, timeout_ms=20_000)
            assert {hit.partition for hit in alive} == set(rest)
            assert alive.complete
            try:
                part = search.search("logs", "disk", limit=1000, partial_ok=True, timeout_ms=20_000)
                states = {state.partition: state.error_code for state in part.freshness}
                assert part.complete == (not any(states.values()))
                answers_in_part += not part.complete
                assert {hit.partition for hit in part} == {p for p, code in states.items() if not code} >= set(rest)
                search.search("logs", "disk", limit=1000, timeout_ms=20_000)
            except IndexLoading as error:
                assert "loading" in str(error)  # noqa: PT017
            produce(broker, "logs", texts(4), first=80 + 4 * number)
            assert len(newest(search, "logs", "disk", limit=1000)) == 84 + 4 * number
            told = until(lambda: _all_there(status(broker, "logs")))
            assert told["workers"][number]["restarts"] >= 1
        assert answers_in_part


def _all_there(told: dict[str, Any]) -> dict[str, Any] | None:
    return told if all(worker["pid"] for worker in told["workers"]) else None


def test_a_change_of_the_model_is_one_for_all_workers(broker: BrokerProcess) -> None:
    """Searches go on, see one generation at a time, and can go back; with the lead killed on the way it is finished all the same."""
    create(broker, "logs")
    produce(broker, "logs", texts(200))
    with client(broker) as search:
        newest(search, "logs", "disk")
        lead = next(one for one in broker.children() if one.pid == status(broker, "logs")["workers"][0]["pid"])
        command(broker, "logs", "reembed", model="hashing:16")
        lead.kill()

        def generation() -> int:
            result = newest(search, "logs", "disk", limit=1000)
            assert len(result) == 200
            assert result.dimensions == (16 if result.generation == 2 else 32)
            return int(result.generation)

        until(lambda: generation() == 2)
        told = until(lambda: _green(status(broker, "logs")))
        assert told["generation"] == 2
        assert (told["generations"]["previous"]["generation"], told["indexed"]) == (1, 200)
        command(broker, "logs", "rollback")
        until(lambda: generation() == 1)
        command(broker, "logs", "retry")
        until(lambda: generation() == 3)
        assert len(list((broker.data_directory / "vector").glob("*/3/?"))) == PARTITIONS


def _green(told: dict[str, Any]) -> dict[str, Any] | None:
    return told if told["state"] == "green" else None


def test_partitions_that_are_added_go_to_their_workers(broker: BrokerProcess) -> None:
    create(broker, "logs", 1)
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap})
    producer.produce("logs", "disk is full", partition=0)
    producer.flush(30)
    with client(broker) as search:
        assert len(newest(search, "logs", "disk")) == 1
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_partitions([NewPartitions("logs", PARTITIONS)])["logs"].result()
        produce(broker, "logs", texts(40))
        assert len(newest(search, "logs", "disk", limit=1000)) == 41
    shown = subprocess.run(
        [sys.executable, "-m", "senselog", "vector", "status", "logs", "--bootstrap", broker.bootstrap],
        cwd=ROOT, env={**os.environ, "COLUMNS": "160"}, capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert "worker 0 running · worker 1 running · worker 2 running" in shown
    embedded = httpx.post(f"http://{broker.http}/v1/embed", json={"topic": "logs", "texts": ["disk"]}, timeout=30)
    assert embedded.status_code == 200


@pytest.mark.slow
def test_whoever_dies_during_a_change_of_the_model_it_is_finished(broker: BrokerProcess) -> None:
    """kill -9 of one worker after the other while generations are built and cut over: never two of them in one answer, nothing lost."""
    create(broker, "logs")
    produce(broker, "logs", texts(300))
    chance = random.Random(5)
    with client(broker) as search:
        newest(search, "logs", "disk")
        for round_ in range(4):
            model = ("hashing:16", "hashing:32")[round_ % 2]
            command(broker, "logs", "reembed", model=model)
            time.sleep(chance.random() * 0.4)  # wherever that is: before, while or after the workers cut over
            chance.choice(broker.children()).kill()

            def done(model: str = model) -> bool:
                result = newest(search, "logs", "disk", limit=1000)
                assert len({(hit.partition, hit.offset) for hit in result}) == len(result) == 300
                assert result.dimensions == int(result.model.removeprefix("hashing:"))
                return bool(result.model == model)

            until(done)
            told = until(lambda: _green(status(broker, "logs")))
            assert told["indexed"] == 300


def test_a_deleted_topic_leaves_no_index_of_any_worker(broker: BrokerProcess) -> None:
    create(broker, "logs")
    produce(broker, "logs", texts(40))
    with client(broker) as search:
        newest(search, "logs", "disk")
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.delete_topics(["logs"])["logs"].result()
        until(lambda: not list((broker.data_directory / "vector").iterdir()))
        create(broker, "logs")
        assert len(newest(search, "logs", "disk")) == 0


@pytest.mark.slow
def test_broker_and_workers_are_killed_together_and_lose_nothing(broker: BrokerProcess) -> None:
    create(broker, "logs")
    for round_ in range(2):
        produce(broker, "logs", texts(60), first=60 * round_)
        with client(broker) as search:
            assert len(newest(search, "logs", "disk", limit=1000)) == 60 * (round_ + 1)
        broker.kill()
        broker.start()
    with client(broker) as search:
        assert len(newest(search, "logs", "disk", limit=1000)) == 120


@pytest.mark.slow
def test_memory_that_is_used_up_pauses_indexing_and_is_seen(tmp_path: Path) -> None:
    limit = 2_000_000
    broker = BrokerProcess(
        tmp_path,
        "vector.embedding.model=hashing:32",
        "vector.workers=2",
        f"vector.worker.memory.bytes={limit}",
    )
    broker.start()
    try:
        create(broker, "logs")
        produce(broker, "logs", [f"{WORDS[n % 8]} line {n}" for n in range(20_000)])
        told = until(lambda: told if (told := status(broker, "logs"))["state"] == "over_budget" else None)
        assert "vector.worker.memory.bytes" in told["reason"]
        assert 0 < told["indexed"] < 20_000
        with client(broker) as search:
            assert len(search.search("logs", "disk", limit=100, timeout_ms=20_000)) == 100
        produce(broker, "logs", ["produce does not notice"])
        until(lambda: _memory(broker, "bytes") > limit / 2)
        assert _memory(broker, "bytes") <= limit == _memory(broker, "limit_bytes")
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.delete_topics(["logs"])["logs"].result()
        create(broker, "other")
        produce(broker, "other", texts(100))
        with client(broker) as search:
            assert len(newest(search, "other", "disk", limit=1000)) == 100
    finally:
        broker.end()


def _memory(broker: BrokerProcess, name: str) -> float:
    """The most of any worker, by the metrics."""
    lines = httpx.get(f"http://{broker.http}/metrics", timeout=30).text.splitlines()
    return max(float(line.split()[1]) for line in lines if line.startswith(f"senselog_vector_worker_memory_{name}{{"))
