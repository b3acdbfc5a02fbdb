"""Search over sockets: what a hit carries, exact filters, freshness. tests/contract holds all doors to the same answers."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from senselog_client import (
    InvalidSearch,
    RecordNotFound,
    SenselogClient,
)

from tests.broker_process import BrokerProcess

TOPIC, PLAIN, PARTITIONS, PER_PARTITION = "doors", "plain", 2, 60
WORDS = ("disk", "login", "network", "memory", "payment", "timeout")
WAIT: dict[str, Any] = {"latest": True, "max_wait_ms": 20_000}


@pytest.fixture(scope="module")
def topic(broker: BrokerProcess) -> str:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    config = {"vector.enabled": "true", "vector.embedding.model": "hashing:64"}
    for future in admin.create_topics([NewTopic(TOPIC, PARTITIONS, config=config), NewTopic(PLAIN, 1)]).values():
        future.result(30)
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for number in range(PARTITIONS * PER_PARTITION):
        word, other = WORDS[number % 6], WORDS[number // 6 % 6]
        value = f"{word} trouble with {other} number {number}"
        producer.produce(
            TOPIC, value, key=word, partition=number % PARTITIONS, timestamp=1000 + number, headers={"n": str(number)}
        )
    assert producer.flush(30) == 0
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
        until_loaded(client, TOPIC)
    return TOPIC


def until_loaded(client: SenselogClient, topic: str) -> None:
    """The vector worker starts with the first topic that has vectors."""
    deadline = time.monotonic() + 60
    while not client.status(topic).complete:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def client(broker: BrokerProcess) -> Iterator[SenselogClient]:
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
        yield client


def rest(broker: BrokerProcess, topic: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"http://{broker.http}/v1/topics/{topic}/search", json=body, timeout=30)


FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"partition": 1},
    {"partition": 0, "min_offset": 10, "max_offset": 19},
    {"offset": {"gte": 30, "lt": 40}},
    {"offsets": {"0": {"gte": 50}, "1": {"lt": 3}}},
    {"timestamp": {"gte": 1020, "lt": 1060}},
    {"partition": 1, "timestamp": {"gt": 1100}, "min_offset": 20},
    {"key": {"any": ["disk", "login"]}},
    {"key": {"prefix": "pay"}, "min_offset": 20},
)


def matches(conditions: dict[str, Any], partition: int, offset: int) -> bool:
    timestamp = 1000 + offset * PARTITIONS + partition
    key, test = WORDS[(timestamp - 1000) % 6], conditions.get("key", {})
    time, bounds = conditions.get("timestamp", {}), dict(conditions.get("offset", {}))
    bounds |= conditions.get("offsets", {}).get(str(partition), {})
    return (
        conditions.get("partition", partition) == partition
        and conditions.get("min_offset", 0) <= offset <= conditions.get("max_offset", offset)
        and bounds.get("gte", 0) <= offset < bounds.get("lt", offset + 1)
        and time.get("gte", 0) <= timestamp < time.get("lt", timestamp + 1)
        and timestamp > time.get("gt", 0)
        and key in test.get("any", [key])
        and key.startswith(test.get("prefix", ""))
    )


@pytest.mark.parametrize("conditions", FILTERS, ids=str)
def test_a_filter_is_exact(topic: str, client: SenselogClient, conditions: dict[str, Any]) -> None:
    expected = {(p, o) for p in range(PARTITIONS) for o in range(PER_PARTITION) if matches(conditions, p, o)}
    found = client.search(topic, "login trouble with memory", limit=1000, filter=conditions, **WAIT)
    assert {(hit.partition, hit.offset) for hit in found} == expected


def test_filters_on_what_no_record_has_and_on_values_that_are_no_json(topic: str, client: SenselogClient) -> None:
    for missing in (
        {"path": "$.level", "exists": True},
        {"header": "nothing", "prefix": ""},
        {"path": "$.a.b", "eq": None},
    ):
        assert len(client.search(topic, "disk", filter={"must": [missing]}, **WAIT)) == 0
        assert len(client.search(topic, "disk", filter={"must_not": [missing]}, **WAIT)) == 10
    found = client.search(topic, "disk", filter={"must": [{"header": "n", "any": ["7", b"8"]}]}, **WAIT)
    assert sorted(hit.timestamp_ms for hit in found) == [1007, 1008]


def test_a_hit_carries_the_record(topic: str, client: SenselogClient) -> None:
    hit = client.search(topic, "payment trouble with timeout number 34", limit=1, **WAIT)[0]
    assert (hit.partition, hit.offset, hit.timestamp_ms) == (0, 17, 1034)
    assert (hit.key, hit.value) == (b"payment", b"payment trouble with timeout number 34")
    assert hit.headers == (("n", b"34"),)
    assert hit.similarity == pytest.approx(1.0, abs=1e-3)
    bare = client.search(topic, "payment", limit=1, include=(), **WAIT)[0]
    assert (bare.key, bare.value, bare.headers, bare.vector) == (None, None, (), None)
    whole = client.search(topic, "payment", limit=1, include=("value", "vector"), max_value_bytes=7, **WAIT)[0]
    assert (whole.value_cut, len(whole.value or b""), len(whole.vector or ())) == (True, 7, 64)


def test_more_like_a_record_and_by_its_vector(topic: str, client: SenselogClient) -> None:
    like = client.search(topic, record=(0, 17), limit=3, include=("vector",), **WAIT)
    assert like[0].vector is not None
    by_vector = client.search(topic, vector=like[0].vector, limit=3, **WAIT)
    assert by_vector[0].score == pytest.approx(1.0, abs=1e-3)
    both = client.search_batch(topic, ["disk trouble", {"record": (0, 17)}], limit=3, **WAIT)
    assert [hit.offset for hit in both[1]] == [hit.offset for hit in like]


def test_the_status_counts_every_record(broker: BrokerProcess, topic: str, client: SenselogClient) -> None:
    client.search(topic, "anything", **WAIT)
    status = client.status(topic)
    assert (status.lag, status.dimensions, status.metric) == (0, 64, "cosine")
    assert [state.indexed_offset for state in status.freshness] == [PER_PARTITION] * PARTITIONS
    detail = httpx.get(f"http://{broker.http}/v1/topics/{topic}/vector").json()
    for state in detail["partitions"]:
        assert state["indexed"] + sum_of(state["skipped"]) + state["failed"] == PER_PARTITION


def sum_of(skipped: Any) -> int:
    return sum(skipped.values()) if isinstance(skipped, dict) else int(skipped)


def test_vectors_that_do_not_fit_are_refused(broker: BrokerProcess, topic: str, client: SenselogClient) -> None:
    with pytest.raises(InvalidSearch, match="vector: "):
        client.search(topic, vector=[1.0, 2.0])
    with pytest.raises(InvalidSearch, match="vector: "):
        client.search(topic, vector=[float("nan")] * 64)
    with pytest.raises(RecordNotFound):
        client.search(topic, record=(0, 9999))
    assert rest(broker, topic, {"query": {"vector": [1.0, 2.0]}}).json()["error"]["code"] == "DIMENSION_MISMATCH"


def test_own_writes_are_found(broker: BrokerProcess, topic: str, client: SenselogClient) -> None:
    """A topic of its own: the others count their records."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    config = {"vector.enabled": "true", "vector.embedding.model": "hashing:64"}
    admin.create_topics([NewTopic("own", 1, config=config)])["own"].result(30)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 0})
    for number in range(20):
        producer.produce("own", f"note {number}")
        producer.flush(30)
        hit = client.search("own", f"note {number}", limit=1, min_offsets={0: number + 1}, max_wait_ms=10_000)[0]
        assert (hit.offset, hit.value) == (number, b"note %d" % number)
