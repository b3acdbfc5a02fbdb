"""confluent-kafka, kafka-python and aiokafka: every codec, groups through rebalances, and one another's records."""

import itertools
import time
import uuid
from collections.abc import Callable

import pytest

from tests.compat.clients import CLIENTS, TIMEOUT_S, Client, Member, Sent

RECORDS = [
    Sent(
        None if number % 3 == 0 else f"key-{number % 7}".encode(),
        f"value {number} ".encode() * (number % 40),
        (("n", str(number).encode()),),
    )
    for number in range(300)
]
PARTITIONS = 4


def fresh(name: str) -> str:
    """A topic or group name nobody has used."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def eventually(what: str, condition: Callable[[], bool]) -> None:
    """Waits for a condition; fails naming it."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {TIMEOUT_S} s: {what}"
        time.sleep(0.02)


CODECS = [(client, codec) for client in CLIENTS for codec in client.codecs]


@pytest.mark.parametrize(("client", "codec"), CODECS, ids=lambda part: getattr(part, "name", part))
def test_codec(bootstrap: str, client: Client, codec: str) -> None:
    """Records produced with a codec, idempotently, come back byte-equal and in order, at the offsets the acks named."""
    topic = fresh(f"codec-{codec}")
    client.create(bootstrap, topic, 1)
    assert client.produce(bootstrap, topic, RECORDS, codec=codec, partition=0) == list(range(len(RECORDS)))
    got = client.consume(bootstrap, topic, len(RECORDS))
    assert [(entry.offset, entry.record) for entry in got] == list(enumerate(RECORDS))


@pytest.mark.parametrize(("writer", "reader"), list(itertools.permutations(CLIENTS, 2)), ids=lambda client: client.name)
def test_one_reads_what_another_wrote(bootstrap: str, writer: Client, reader: Client) -> None:
    """Each client reads the others' batches of every codec."""
    topic = fresh("exchange")
    writer.create(bootstrap, topic, 1)
    for codec in writer.codecs:
        writer.produce(bootstrap, topic, RECORDS[:50], codec=codec, partition=0)
    got = reader.consume(bootstrap, topic, 50 * len(writer.codecs))
    assert [entry.record for entry in got] == RECORDS[:50] * len(writer.codecs)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_group(bootstrap: str, client: Client) -> None:
    """Two members share the partitions, one takes over when the other leaves, and a new one resumes at the commits."""
    topic, group = fresh("group"), fresh("group")
    client.create(bootstrap, topic, PARTITIONS)
    for partition in range(PARTITIONS):
        client.produce(bootstrap, topic, RECORDS[:50], codec="none", partition=partition)
    first = client.member(bootstrap, topic, group)
    eventually("the first member owns all partitions", lambda: first.assignment() == set(range(PARTITIONS)))
    eventually("it reads what is there", lambda: len(first.got) == 50 * PARTITIONS)
    second = client.member(bootstrap, topic, group)
    eventually("the members share the partitions", lambda: _shared(first, second))
    for partition in range(PARTITIONS):
        client.produce(bootstrap, topic, RECORDS[50:100], codec="none", partition=partition)
    eventually("both together read the rest", lambda: len(first.got) + len(second.got) == 100 * PARTITIONS)
    second.close()
    eventually("the first takes over", lambda: first.assignment() == set(range(PARTITIONS)))
    first.close()
    places = [(entry.partition, entry.offset) for entry in first.got + second.got]
    assert sorted(places) == sorted(itertools.product(range(PARTITIONS), range(100)))
    for partition in range(PARTITIONS):
        client.produce(bootstrap, topic, RECORDS[100:110], codec="none", partition=partition)
    third = client.member(bootstrap, topic, group)
    eventually("a new member reads what is new", lambda: len(third.got) >= 10 * PARTITIONS)
    third.close()
    assert sorted((entry.partition, entry.offset) for entry in third.got) == sorted(
        itertools.product(range(PARTITIONS), range(100, 110))
    )


def _shared(first: Member, second: Member) -> bool:
    mine, other = first.assignment(), second.assignment()
    return bool(mine) and bool(other) and not mine & other and mine | other == set(range(PARTITIONS))
