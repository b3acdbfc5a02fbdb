"""One broker with one topic, which nobody changes."""

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from senselog_client import SenselogClient

from tests.broker_process import BrokerProcess
from tests.contract.cases import DIMENSIONS, FRESH, PARTITIONS, PLAIN, RECORDS, TOPIC

WORDS = ("disk", "login", "network", "memory", "payment", "timeout")
START_TIMEOUT_S = 60


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """Searchable: everything produced is indexed."""
    process = BrokerProcess(tmp_path_factory.mktemp("contract"))
    process.start()
    try:
        _fill(process)
        yield process
    finally:
        process.end()


def _fill(broker: BrokerProcess) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    # The records are of 1970.
    config = {"vector.enabled": "true", "vector.embedding.model": f"hashing:{DIMENSIONS}", "retention.ms": "-1"}
    for future in admin.create_topics([NewTopic(TOPIC, PARTITIONS, config=config), NewTopic(PLAIN, 1)]).values():
        future.result(30)
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for number in range(RECORDS):
        word, other = WORDS[number % 6], WORDS[number // 6 % 6]
        producer.produce(
            TOPIC,
            f"{word} trouble with {other} number {number}" if number % 10 else f"{word} again",
            key=word if number % 3 else b"\xff\xfe",
            partition=number % PARTITIONS,
            timestamp=1000 + number,
            headers=[("n", str(number)), ("binary", b"\x80"), ("nothing", None)],
        )
    assert producer.flush(30) == 0
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not client.status(TOPIC).complete:  # the vector worker starts with the first topic that has vectors
            assert time.monotonic() < deadline
            time.sleep(0.05)
        client.search(TOPIC, "anything", **FRESH)
