"""Calls of administration with every client that has them."""

from collections.abc import Callable

import pytest

from tests.compat.conftest import eventually, fresh
from tests.compat.driver import Driver

Start = Callable[[], Driver]


@pytest.mark.capability("configs")
def test_configs(start: Start, topic: str) -> None:
    """describe and alter."""
    driver = start()
    before = driver.describe_config(topic=topic)
    driver.alter_config(topic=topic, key="retention.ms", value="3600000")
    assert driver.describe_config(topic=topic) == before | {"retention.ms": "3600000"}


@pytest.mark.capability("groups")
def test_groups(start: Start, house: Driver, topic: str) -> None:
    """list, describe with and without a member, the committed offsets, delete."""
    driver, group = start(), fresh("groups")
    house.send(name="house", topic=topic, partition=0, records=[["k", "v", []]] * 3)
    house.member(name=group, topic=topic, group=group)
    eventually("the member has committed", lambda: driver.committed(group=group, topic=topic).get("0") == 3)
    assert group in driver.list_groups()
    assert driver.describe_group(group=group) == {"state": "stable", "members": 1}
    house.leave(name=group)
    assert driver.describe_group(group=group) == {"state": "empty", "members": 0}
    driver.delete_group(group=group)
    assert group not in driver.list_groups()


@pytest.mark.capability("delete records")
def test_delete_records(start: Start, house: Driver, topic: str) -> None:
    """The partition begins later."""
    house.send(name="house", topic=topic, partition=0, records=[["k", f"{number}", []] for number in range(10)])
    assert start().delete_records(topic=topic, before=4) == 4
    got = house.read(topic=topic, start={"beginning": 0}, count=6, committed=False, timeout_s=30)
    assert [record[1] for record in got] == list(range(4, 10))
