"""A compacted topic behind a socket: real clients rebuild their table from what is left, also after kill -9."""

import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import confluent_kafka
import httpx
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from senselog_client import SenselogClient

from storage.check import check_directory
from tests.broker_process import BrokerProcess

KEYS = 500
ROUNDS = 60
TIMEOUT_S = 60
TOPIC = "table"
CONFIGS = {
    "cleanup.policy": "compact",
    "segment.bytes": str(1 << 20),
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "0",
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """Checkpoints follow one another quickly: compaction waits for them."""
    settings = ("storage.checkpoint.interval.ms=500", "vector.embedding.model=hashing:32")
    process = BrokerProcess(tmp_path_factory.mktemp("broker"), *settings)
    process.start()
    yield process
    process.end()


def read(broker: BrokerProcess, topic: str = TOPIC) -> list[confluent_kafka.Message]:
    """Everything that is left, from the start."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "check.crcs": True,
        }
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    messages = []
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        message = consumer.poll(1)
        if message is None:
            continue
        error = message.error()
        if error is None:
            messages.append(message)
        elif error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
            consumer.close()
            return messages
    raise AssertionError("the reader did not come to the end of the topic")


Written = dict[int, tuple[bytes, bytes | None]]


def fill(broker: BrokerProcess, rounds: range) -> Written:
    """Updates of all keys in turn, several codecs, the odd deletion; what was written at which offset."""
    written: Written = {}
    chance = random.Random(rounds.start)

    def delivered(error: object, message: confluent_kafka.Message) -> None:
        assert error is None
        written[message.offset()] = message.key(), message.value()

    for number in rounds:
        codec = ("none", "gzip", "snappy", "lz4", "zstd")[number % 5]
        producer = confluent_kafka.Producer(
            {"bootstrap.servers": broker.bootstrap, "enable.idempotence": number % 2 == 0, "compression.type": codec}
        )
        for key in range(KEYS):
            value = None if (key + number) % 50 == 0 else chance.randbytes(400)
            producer.produce(TOPIC, key=b"key-%d" % key, value=value, on_delivery=delivered)
        assert producer.flush(30) == 0
    return written


def table(records: Iterable[tuple[bytes, bytes | None]]) -> dict[bytes, bytes]:
    """What the records come to, in order."""
    latest = dict(records)
    return {key: value for key, value in latest.items() if value is not None}


def create(broker: BrokerProcess, topic: str, **configs: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for future in admin.create_topics([NewTopic(topic, 1, 1, config=CONFIGS | configs)]).values():
        future.result(30)


def wait_until_compacted(broker: BrokerProcess, size_bytes: int, topic: str = TOPIC) -> None:
    directory: Path = broker.data_directory / f"{topic}-0"
    deadline = time.monotonic() + TIMEOUT_S
    while sum(file.stat().st_size for file in directory.glob("*.log")) > size_bytes or [*directory.glob("*.cleaned")]:
        assert time.monotonic() < deadline, sorted((file.name, file.stat().st_size) for file in directory.iterdir())
        time.sleep(0.2)


@pytest.mark.slow
def test_a_table_is_rebuilt_from_what_compaction_left(broker: BrokerProcess) -> None:
    """The last value of every key, at the offset where it was written; kill -9 changes nothing; fsck is content."""
    create(broker, TOPIC)
    written = fill(broker, range(ROUNDS))
    wait_until_compacted(broker, 5 << 19)
    for number in (ROUNDS, ROUNDS + 1):
        left = {message.offset(): (message.key(), message.value()) for message in read(broker)}
        assert left.items() <= written.items()
        assert table(left.values()) == table(written[offset] for offset in sorted(written))
        assert len(left) < len(written) / 4
        broker.kill()
        broker.start()
        written |= fill(broker, range(number, number + 1))
    assert broker.stop() == 0
    assert check_directory(broker.data_directory) == []


def buried(broker: BrokerProcess, topic: str) -> int:
    """Records that the index knows to be gone."""
    told = httpx.get(f"http://{broker.http}/v1/topics/{topic}/vector", timeout=30).json()
    return int(told["partitions"][0]["buried"])


@pytest.mark.slow
def test_a_search_shows_what_compaction_left(broker: BrokerProcess) -> None:
    """A record that is gone is no hit, and takes no hit's place: as many are returned as are left, up to the limit."""
    if broker.process is None or broker.process.poll() is not None:
        broker.start()
    create(broker, "texts", **{"vector.enabled": "true"})
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap})
    for number in range(8000):
        producer.produce("texts", key=b"%d" % (number % 40), value=f"line {number} of {number % 40} " + "x" * 300)
    assert producer.flush(30) == 0
    with SenselogClient(bootstrap_servers=broker.bootstrap) as search:
        options = {"latest": True, "max_wait_ms": 30_000, "timeout_ms": 30_000, "max_value_bytes": 10}
        assert len(search.search("texts", "line 7", limit=1000, **options)) == 1000
        deadline = time.monotonic() + TIMEOUT_S
        while len(live := {message.offset() for message in read(broker, "texts")}) > 6000:
            assert time.monotonic() < deadline
        while buried(broker, "texts") < 2000:  # the index has heard of it, from no search
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for limit in (1, 10, 1000):
            hits = search.search("texts", "line 7", limit=limit, **options)
            assert len(hits) == min(limit, len(live))
            assert {hit.offset for hit in hits} <= live
        for worker in broker.children():  # a new one knows nothing of what is gone, until it has looked
            worker.kill()
        for limit in (1000, 10, 1):
            hits = search.search("texts", "line 7", limit=limit, **options)
            assert len(hits) == min(limit, len(live))
            assert {hit.offset for hit in hits} <= live
        while buried(broker, "texts") < 2000:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.slow
def test_aborted_updates_are_nobodys_latest_value(broker: BrokerProcess) -> None:
    """Before and after compaction a reader of committed records sees the same table, and fsck is content with what is left."""
    if broker.process is None or broker.process.poll() is not None:
        broker.start()
    create(broker, "accounts")
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": "teller"})
    producer.init_transactions(30)
    chance = random.Random(1)
    committed: dict[bytes, bytes] = {}
    for number in range(120):
        producer.begin_transaction()
        written = {b"%d" % chance.randrange(50): b"%d:" % number + chance.randbytes(900) for _ in range(25)}
        for key, value in written.items():
            producer.produce("accounts", key=key, value=value)
        if chance.random() < 0.5:
            producer.commit_transaction(30)
            committed |= written
        else:
            producer.flush(30)
            producer.abort_transaction(30)
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        messages = read(broker, "accounts")
        assert {message.key(): message.value() for message in messages} == committed
        if len(messages) < 500:
            break
        assert time.monotonic() < deadline, f"{len(messages)} records are left"
        time.sleep(0.5)
    broker.kill()
    broker.start()
    assert {message.key(): message.value() for message in read(broker, "accounts")} == committed
    assert broker.stop() == 0
    assert check_directory(broker.data_directory) == []
