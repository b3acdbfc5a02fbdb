"""Transactions with every client that has them: commit and abort, a fenced zombie, consume-transform-produce through a kill -9."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.compat.conftest import fresh
from tests.compat.driver import ClientError, Driver

Start = Callable[[], Driver]
TRANSACTIONS = (24, 25, 26, 28)  # the APIs that are about nothing else


def send(driver: Driver, topic: str, value: str) -> None:
    driver.send(name="t", topic=topic, partition=0, records=[["k", value, []]])


def committed(reader: Driver, topic: str, count: int, timeout_s: float = 30) -> list[str]:
    got: list[Any] = reader.read(topic=topic, start={"beginning": 0}, count=count, committed=True, timeout_s=timeout_s)
    return [record[3] for record in got]


@pytest.mark.capability("transaction: commit, abort", apis=TRANSACTIONS)
def test_commit_and_abort(start: Start, topic: str) -> None:
    """What is committed is read, what is aborted is not, and both by the producer that goes on."""
    driver = start()
    driver.producer(name="t", transactional_id=fresh("id"))
    for value, end in (("one", driver.commit), ("two", driver.abort), ("three", driver.commit)):
        driver.begin(name="t")
        send(driver, topic, value)
        end(name="t")
    assert committed(driver, topic, 2) == ["one", "three"]


@pytest.mark.capability("transaction: zombie fenced", apis=TRANSACTIONS)
def test_zombie(start: Start, topic: str) -> None:
    """A second producer of the same transactional id ends the transaction of the first, which then can commit no more."""
    zombie, heir, name = start(), start(), fresh("id")
    zombie.producer(name="t", transactional_id=name)
    zombie.begin(name="t")
    send(zombie, topic, "zombie")
    heir.producer(name="t", transactional_id=name)
    heir.begin(name="t")
    send(heir, topic, "heir")
    heir.commit(name="t")
    with pytest.raises(ClientError):
        zombie.commit(name="t")
    assert committed(start(), topic, 1) == ["heir"]


@pytest.mark.capability("transaction: consume, transform, produce", apis=TRANSACTIONS)
def test_copy(start: Start, house: Driver, topic: str) -> None:
    """A copier is killed within a transaction; the next one goes on; every record is copied once, in order."""
    target, group, name, count = fresh("copy"), fresh("copy"), fresh("id"), 60
    house.create_topic(topic=target, partitions=1)
    house.send(name="house", topic=topic, partition=0, records=[["k", f"{number}", []] for number in range(count)])
    copy = {"source": topic, "target": target, "group": group, "transactional_id": name}
    first = start()
    first.copy(**copy, count=25, leave_open=True)
    first.kill()
    before = committed(house, target, count, timeout_s=2)
    assert 0 < len(before) < 25
    start().copy(**copy, count=count - len(before), leave_open=False)
    assert committed(house, target, count) == [f"{number}" for number in range(count)]
