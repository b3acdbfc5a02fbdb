"""From a produced record to a hit, over sockets: freshness, filters, restarts, and a worker that is killed."""

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from senselog_client import SenselogClient
from senselog_client.errors import IndexLoading, SearchError, SearchTimedOut

from tests.broker_process import BrokerProcess

PARTITIONS = 2
WORDS = ("disk", "login", "timeout", "memory", "payment", "cache", "socket", "queue")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path, "vector.embedding.model=hashing:32")
    process.start()
    yield process
    process.end()


def create(broker: BrokerProcess, topic: str, **configs: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    new = NewTopic(topic, PARTITIONS, config={"vector.enabled": "true", "retention.ms": "-1", **configs})
    admin.create_topics([new])[topic].result()


def produce(broker: BrokerProcess, topic: str, texts: list[str]) -> None:
    """Text i goes to partition i % PARTITIONS with the timestamp 1000 + i."""
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 0})
    for number, text in enumerate(texts):
        producer.produce(topic, text, key=f"k{number}", partition=number % PARTITIONS, timestamp=1000 + number)
    assert producer.flush(30) == 0


def texts(count: int) -> list[str]:
    return [f"{WORDS[number % 8]} {WORDS[number // 8 % 8]} number {number}" for number in range(count)]


def client(broker: BrokerProcess) -> SenselogClient:
    return SenselogClient(bootstrap_servers=broker.bootstrap)


def status(broker: BrokerProcess, topic: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{broker.http}/v1/topics/{topic}/vector") as answer:
        return dict(json.load(answer))


def newest(search: SenselogClient, topic: str, text: str, **options: Any) -> Any:
    return search.search(topic, text, latest=True, max_wait_ms=20_000, timeout_ms=10_000, **options)


def test_what_was_acknowledged_is_found_and_reads_as_it_was_written(broker: BrokerProcess) -> None:
    create(broker, "logs")
    lines = texts(200)
    produce(broker, "logs", lines)
    with client(broker) as search:
        for number in (0, 77, 199):
            hit = newest(search, "logs", lines[number], limit=1, include=("key", "value", "vector"))[0]
            assert (hit.partition, hit.offset) == (number % PARTITIONS, number // PARTITIONS)
            assert (hit.key, hit.value) == (f"k{number}".encode(), lines[number].encode())
            assert hit.timestamp_ms == 1000 + number
            assert hit.similarity == pytest.approx(1.0, abs=1e-3)
            assert len(hit.vector or ()) == 32
        result = newest(search, "logs", "disk", limit=1000)
        assert len(result) == 200
        assert [hit.score for hit in result] == sorted((hit.score for hit in result), reverse=True)
        assert result.complete
        assert [state.indexed_offset for state in result.freshness] == [100, 100]


def test_filters_are_exact(broker: BrokerProcess) -> None:
    create(broker, "logs")
    lines = texts(100)
    produce(broker, "logs", lines)
    places = {(number % PARTITIONS, number // PARTITIONS): number for number in range(100)}
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"partition": 1}, lambda p, o, t: p == 1),
        ({"min_offset": 10, "max_offset": 20}, lambda p, o, t: 10 <= o <= 20),
        ({"offsets": {"0": {"gte": 48}, "1": {"lt": 2}}}, lambda p, o, t: o >= 48 if p == 0 else o < 2),
        ({"timestamp": {"gte": 1040, "lt": 1050}}, lambda p, o, t: 1040 <= t < 1050),
        (
            {"partition": 0, "timestamp": {"gte": 1090}, "min_offset": 47},
            lambda p, o, t: p == 0 and t >= 1090 and o >= 47,
        ),
        ({"min_offset": 1000}, lambda p, o, t: False),
    ]
    with client(broker) as search:
        newest(search, "logs", "disk")
        for conditions, matches in cases:
            result = search.search("logs", "disk number", filter=conditions, limit=1000)
            expected = {place for place, number in places.items() if matches(*place, 1000 + number)}
            assert {(hit.partition, hit.offset) for hit in result} == expected, conditions


def test_more_like_a_record_and_a_vector_of_ones_own(broker: BrokerProcess) -> None:
    create(broker, "logs")
    produce(broker, "logs", [*texts(20), "disk disk number 0"])
    with client(broker) as search:
        first = newest(search, "logs", texts(1)[0], limit=1, include=("vector",))[0]
        alike = search.search("logs", record=(0, 0), limit=2)
        assert [(hit.partition, hit.offset) for hit in alike] == [(0, 10), (0, 0)]  # the same text, the newer first
        by_vector = search.search("logs", vector=list(first.vector or ()), limit=1)
        assert (by_vector[0].partition, by_vector[0].offset) == (0, 10)
        with pytest.raises(SearchError, match="no embedded record"):
            search.search("logs", record=(0, 10_000))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"vector": [1.0, 2.0]}, 42),
        ({"vector": [float("nan")] * 32}, 42),
        ({"vector": [0.0] * 32}, 42),
        ({"text": "disk", "limit": 0}, 42),
        ({"text": "disk", "limit": 1001}, 44),
        ({"text": ""}, 42),
        ({"text": "disk", "collapse": "level"}, 42),
        ({"text": "disk", "cursor": b"x"}, 42),
        ({"vector": [1.0] * 32, "mode": "hybrid"}, 42),
        ({"text": "disk", "filter": {"key": {"is": "a"}}}, 42),
        ({"text": "disk", "filter": {"partition": 7}}, 3),
        ({"text": "disk", "min_offsets": {0: 10_000}, "max_wait_ms": 1}, 78),
    ],
)
def test_bad_requests_get_the_errors_of_the_design(broker: BrokerProcess, arguments: dict[str, Any], code: int) -> None:
    create(broker, "logs")
    with client(broker) as search:
        newest(search, "logs", "disk")
        with pytest.raises(SearchError) as refused:
            search.search("logs", **arguments)
        assert refused.value.code == code
        assert search.search("logs", "disk").complete


def test_topics_that_cannot_be_searched_say_so(broker: BrokerProcess) -> None:
    create(broker, "plain", **{"vector.enabled": "false"})
    with client(broker) as search:
        for topic, code in (("plain", 40), ("nowhere", 3)):
            with pytest.raises(SearchError) as refused:
                search.search(topic, "disk")
            assert refused.value.code == code


def test_a_restart_embeds_nothing_again(broker: BrokerProcess) -> None:
    create(broker, "logs")
    produce(broker, "logs", texts(300))
    with client(broker) as search:
        before = [(hit.partition, hit.offset, hit.score) for hit in newest(search, "logs", "disk login", limit=50)]
    assert status(broker, "logs")["embedder"]["texts_embedded"] == 300
    broker.stop()
    broker.start()
    with client(broker) as search:
        after = [(hit.partition, hit.offset, hit.score) for hit in newest(search, "logs", "disk login", limit=50)]
    assert after == before
    told = status(broker, "logs")
    assert told["embedder"]["texts_embedded"] == 0
    assert [partition["indexed"] for partition in told["partitions"]] == [150, 150]


def test_a_text_is_embedded_once_for_all_partitions(broker: BrokerProcess) -> None:
    create(broker, "logs")
    produce(broker, "logs", texts(20) * 30)
    with client(broker) as search:
        result = newest(search, "logs", texts(1)[0], limit=1000)
    told = status(broker, "logs")
    assert told["embedder"]["texts_embedded"] == 20
    assert len(result) == 600
    assert result[0].duplicates == 29


def test_a_killed_worker_disturbs_nobody_and_comes_back(broker: BrokerProcess) -> None:
    create(broker, "logs")
    produce(broker, "logs", texts(50))
    with client(broker) as search:
        newest(search, "logs", "disk")
        (worker,) = broker.children()
        worker.kill()
        produce(broker, "logs", texts(60)[50:])
        deadline = time.monotonic() + 20
        while True:
            try:
                search.search("logs", "disk")
                if status(broker, "logs")["workers"][0]["restarts"]:
                    break
            except IndexLoading:
                pass
            assert time.monotonic() < deadline
        assert len(newest(search, "logs", "disk", limit=1000)) == 60
    (successor,) = broker.children()
    assert successor.pid != worker.pid


@pytest.mark.slow
def test_the_ports_are_open_before_the_index_is(tmp_path: Path) -> None:
    """Other engines built their graphs first, and were killed for not being there: here all but search works at once."""
    broker = BrokerProcess(tmp_path, "vector.embedding.model=hashing")
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import sys, time\nif 'vector.worker' in sys.orig_argv:\n    time.sleep(3600)\n"
    )
    broker.environment = {"PYTHONPATH": str(hook)}
    broker.start()
    try:
        create(broker, "logs")
        produce(broker, "logs", texts(10))
        with client(broker) as search, pytest.raises(IndexLoading, match="vector worker starting"):
            search.search("logs", "disk")
        assert status(broker, "logs")["state"] == "loading"
    finally:
        assert broker.stop() == 0


@pytest.mark.slow
def test_a_worker_that_hangs_is_named_and_replaced(broker: BrokerProcess) -> None:
    """A search ends at its own deadline and says whose fault it is; soon afterwards there is another worker."""
    create(broker, "logs")
    produce(broker, "logs", texts(50))
    with client(broker) as search:
        newest(search, "logs", "disk")
        (worker,) = broker.children()
        worker.suspend()
        produce(broker, "logs", texts(60)[50:])
        with pytest.raises(SearchTimedOut, match=r"timeout_ms of 3000: vector worker has not answered for \d s"):
            search.search("logs", "disk", timeout_ms=3000)
        assert len(newest(search, "logs", "disk", limit=1000)) == 60  # which waits for the index to be back
    (successor,) = broker.children()
    assert successor.pid != worker.pid
    assert "it hangs: no answer within 5 s" in broker.log()


@pytest.mark.slow
def test_a_worker_that_outlives_its_broker_keeps_the_next_one_waiting(broker: BrokerProcess) -> None:
    """Both would write one index, under the same names, where a killed broker is started again before its worker has ended."""
    create(broker, "logs")
    produce(broker, "logs", texts(50))
    with client(broker) as search:
        newest(search, "logs", "disk")
    (worker,) = broker.children()
    worker.suspend()
    broker.kill_alone()
    broker.start()
    produce(broker, "logs", texts(60)[50:])  # as ever
    with client(broker) as search:
        with pytest.raises(IndexLoading, match="vector worker waiting"):
            search.search("logs", "disk", max_wait_ms=2000)
        assert not broker.children()
        worker.resume()
        assert len(newest(search, "logs", "disk", limit=1000)) == 60
    assert broker.log().count("workers of the broker before have not ended yet") == 1


def test_a_deleted_topic_leaves_no_index(broker: BrokerProcess) -> None:
    create(broker, "logs")
    produce(broker, "logs", texts(10))
    with client(broker) as search:
        assert len(newest(search, "logs", "disk")) == 10
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.delete_topics(["logs"])["logs"].result()
        create(broker, "logs")
        assert len(newest(search, "logs", "disk")) == 0
    broker.stop()
    assert len(list((broker.data_directory / "vector").iterdir())) == 1


def test_an_existing_log_is_indexed_when_vectors_are_switched_on(broker: BrokerProcess) -> None:
    create(broker, "logs", **{"vector.enabled": "false"})
    produce(broker, "logs", texts(40))
    assert broker.children() == []
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    resource = confluent_kafka.admin.ConfigResource("topic", "logs")
    resource.add_incremental_config(
        confluent_kafka.admin.ConfigEntry(
            "vector.enabled", "true", incremental_operation=confluent_kafka.admin.AlterConfigOpType.SET
        )
    )
    admin.incremental_alter_configs([resource])[resource].result()
    with client(broker) as search:
        assert len(newest(search, "logs", "disk", limit=1000)) == 40


def test_a_missing_model_says_how_to_get_it(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path, f"vector.model.dir={tmp_path}")
    broker.start()
    try:
        create(broker, "logs")
        produce(broker, "logs", texts(2))
        deadline = time.monotonic() + 20
        while status(broker, "logs")["state"] != "paused":
            assert time.monotonic() < deadline
        assert "senselog models export" in status(broker, "logs")["reason"]
        with client(broker) as search, pytest.raises(SearchError, match="senselog models export"):
            search.search("logs", "disk")
    finally:
        broker.end()


def test_the_broker_itself_loads_no_faiss_and_no_model(broker: BrokerProcess) -> None:
    create(broker, "logs")
    produce(broker, "logs", texts(2))
    with client(broker) as search:
        newest(search, "logs", "disk")
    assert broker.process is not None
    mapped = {Path(entry.path).name for entry in psutil.Process(broker.process.pid).memory_maps()}
    assert not [name for name in mapped if "faiss" in name or "onnxruntime" in name or "torch" in name]
