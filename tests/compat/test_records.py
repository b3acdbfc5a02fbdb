"""Topics, records of every codec, idempotence, and where reading begins: with every client."""

import time
from collections.abc import Callable

import kafka
import pytest

from tests.compat.conftest import fresh
from tests.compat.driver import Driver
from tests.compat.roster import CODECS, Client

Start = Callable[[], Driver]
# Headers change every hundred records, since kcat runs once for each set.
RECORDS = [
    [
        None if number % 3 == 0 else f"key-{number % 7}",
        f"value {number} " * (1 + number % 40),
        [["n", str(number // 100)]],
    ]
    for number in range(300)
]


def without_nulls(record: list[object]) -> list[object]:
    """kcat shows no difference between a null and an empty key."""
    return [record[0] or "", record[1], record[2]]


def produced(
    driver: Driver, topic: str, codec: str, records: list[list[object]], *, idempotent: bool = True
) -> list[int]:
    driver.producer(name="p", codec=codec, idempotent=idempotent)
    offsets = driver.send(name="p", topic=topic, partition=0, records=records)
    driver.close_producer(name="p")
    return list(offsets)


@pytest.mark.capability("topics")
def test_topics(start: Start) -> None:
    """create, list, add partitions, delete."""
    driver, topic = start(), fresh("topics")
    driver.create_topic(topic=topic, partitions=2)
    assert topic in driver.list_topics()
    driver.create_partitions(topic=topic, count=4)
    driver.producer(name="p", idempotent=False)
    assert driver.send(name="p", topic=topic, partition=3, records=[["k", "v", []]]) == [0]
    driver.close_producer(name="p")  # an old producer asks for what it knows, and so creates it again
    driver.delete_topic(topic=topic)
    assert topic not in start().list_topics()


@pytest.mark.capability("codec {codec}")
@pytest.mark.parametrize("codec", CODECS)
def test_codec(start: Start, client: Client, house: Driver, topic: str, codec: str) -> None:
    """Records come back with key, value and headers, in order, at the offsets that the acks named, to it and to another client."""
    driver = start()
    acked = produced(driver, topic, codec, RECORDS, idempotent=False)
    assert acked in (list(range(len(RECORDS))), [])  # kcat does not tell
    for reader in (driver, house):
        got = reader.read(topic=topic, start={"beginning": 0}, count=len(RECORDS), committed=False, timeout_s=30)
        assert [record[1] for record in got] == list(range(len(RECORDS)))
        assert [without_nulls(record[2:]) for record in got] == [without_nulls(record) for record in RECORDS]


@pytest.mark.capability("records of another client")
def test_foreign(start: Start, house: Driver, client: Client, topic: str) -> None:
    """It reads batches of every codec that it has, as librdkafka writes them, nulls among them."""
    records = [*RECORDS[:40], ["k", None, []]]
    codecs = [codec for codec in CODECS if f"codec {codec}" not in client.cannot]
    for codec in codecs:
        produced(house, topic, codec, records)
    got = start().read(
        topic=topic, start={"beginning": 0}, count=len(records) * len(codecs), committed=False, timeout_s=30
    )
    assert [without_nulls(record[2:]) for record in got] == [without_nulls(record) for record in records] * len(codecs)


@pytest.mark.capability("idempotence")
def test_idempotence(start: Start, bootstrap: str, topic: str) -> None:
    """The broker knows the producer by an id and the sequence number of its last record."""
    produced(start(), topic, "none", RECORDS[:100])
    admin = kafka.KafkaAdminClient(bootstrap_servers=bootstrap)
    [producer] = next(iter(admin.describe_producers([kafka.TopicPartition(topic, 0)]).values())).active_producers
    admin.close()
    assert producer.producer_id >= 0
    assert producer.last_sequence == 99


@pytest.mark.capability("from an offset, from a time")
def test_places(start: Start, house: Driver, topic: str) -> None:
    """Reading begins at an offset, or at the first record of a time."""
    record = lambda number: ["k", f"value {number}", []]  # noqa: E731
    house.send(name="house", topic=topic, partition=0, records=[record(number) for number in range(5)])
    time.sleep(0.05)
    between_ms = int(time.time() * 1000)
    time.sleep(0.05)
    house.send(name="house", topic=topic, partition=0, records=[record(number) for number in range(5, 8)])
    driver = start()
    for place, first in (({"offset": 3}, 3), ({"time_ms": between_ms}, 5)):
        got = driver.read(topic=topic, start=place, count=8 - first, committed=False, timeout_s=30)
        assert [entry[3] for entry in got] == [f"value {number}" for number in range(first, 8)]


@pytest.mark.capability("read committed", apis=(24, 26))
def test_read_committed(start: Start, house: Driver, topic: str) -> None:
    """Of a committed, an aborted and another committed transaction it reads the committed ones."""
    house.producer(name="t", transactional_id=fresh("house"))
    for value, end in (("first", house.commit), ("second", house.abort), ("third", house.commit)):
        house.begin(name="t")
        house.send(name="t", topic=topic, partition=0, records=[["k", value, []]])
        end(name="t")
    house.close_producer(name="t")
    for committed, expected in ((True, ["first", "third"]), (False, ["first", "second", "third"])):
        got = start().read(topic=topic, start={"beginning": 0}, count=len(expected), committed=committed, timeout_s=30)
        assert [entry[3] for entry in got] == expected
