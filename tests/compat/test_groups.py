"""Consumer groups with every client: sharing, leaving, crashing, static members, commits, the consumer protocol."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.compat.conftest import eventually, fresh
from tests.compat.driver import Driver

Start = Callable[[], Driver]
PARTITIONS = 4


class Member:
    """A process of the client as a member of a group, with all that it read."""

    def __init__(self, driver: Driver, topic: str, group: str, **options: Any) -> None:
        self.driver = driver
        self.got: list[tuple[int, int]] = []
        self.assigned: set[int] | None = set()
        driver.member(name="m", topic=topic, group=group, **options)

    def look(self) -> None:
        state = self.driver.state(name="m")
        self.assigned = None if state["assigned"] is None else set(state["assigned"])
        self.got += [(record[0], record[1]) for record in state["records"]]

    def leave(self) -> None:
        self.got += [(record[0], record[1]) for record in self.driver.leave(name="m")]


@pytest.fixture
def topic(house: Driver) -> str:
    """A new topic of several partitions."""
    name = fresh("group")
    house.create_topic(topic=name, partitions=PARTITIONS)
    return name


def fill(house: Driver, topic: str, count: int) -> None:
    for partition in range(PARTITIONS):
        records = [["k", f"value {number}", []] for number in range(count)]
        house.send(name="house", topic=topic, partition=partition, records=records)


def have(house: Driver, group: str, *members: Member) -> bool:
    """The members own the partitions between them; of a client that does not tell, the broker has seen as many."""
    for member in members:
        member.look()
    if any(member.assigned is None for member in members):
        return bool(house.describe_group(group=group) == {"state": "stable", "members": len(members)})
    owned = [partition for member in members for partition in sorted(member.assigned or ())]
    return all(member.assigned for member in members) and sorted(owned) == list(range(PARTITIONS))


def read(first: int, until: int, *members: Member) -> bool:
    """The members have read these offsets of every partition between them."""
    for member in members:
        member.look()
    wanted = set(itertools.product(range(PARTITIONS), range(first, until)))
    return wanted <= {place for member in members for place in member.got}


def share_leave_crash(start: Start, house: Driver, topic: str, **options: Any) -> None:
    """Two members share the partitions; one takes over when the other leaves, and when the other is killed."""
    group = fresh("group")
    fill(house, topic, 20)
    first = Member(start(), topic, group, **options)
    eventually("the first member owns all", lambda: have(house, group, first))
    eventually("it reads what is there", lambda: read(0, 20, first))
    second = Member(start(), topic, group, **options)
    eventually("two members share", lambda: have(house, group, first, second))
    fill(house, topic, 20)
    eventually("both read the rest", lambda: read(0, 40, first, second))
    second.leave()
    eventually("the first takes over from one that left", lambda: have(house, group, first))
    places = first.got + second.got
    assert sorted(places) == sorted(set(places)), "a record was read twice although nobody crashed"
    third = Member(start(), topic, group, **options)
    eventually("two members share again", lambda: have(house, group, first, third))
    third.driver.kill()
    fill(house, topic, 20)
    eventually("the first takes over from one that crashed", lambda: read(40, 60, first) and have(house, group, first))
    first.leave()


@pytest.mark.capability("group: share, leave, crash")
def test_group(start: Start, house: Driver, topic: str) -> None:
    """The classic protocol."""
    share_leave_crash(start, house, topic)


@pytest.mark.capability("group, consumer protocol", apis=(68, 69))
def test_consumer_protocol(start: Start, house: Driver, topic: str) -> None:
    """KIP-848."""
    share_leave_crash(start, house, topic, protocol="consumer")


@pytest.mark.capability("commit and resume")
def test_resume(start: Start, house: Driver, topic: str) -> None:
    """A member that comes later reads on where the ones before committed."""
    group = fresh("resume")
    fill(house, topic, 20)
    first = Member(start(), topic, group)
    eventually("the first reads all", lambda: read(0, 20, first))
    first.leave()
    assert house.committed(group=group, topic=topic) == {str(partition): 20 for partition in range(PARTITIONS)}
    fill(house, topic, 5)
    second = Member(start(), topic, group)
    eventually("the second reads what is new", lambda: read(20, 25, second))
    second.leave()
    assert sorted(second.got) == sorted(itertools.product(range(PARTITIONS), range(20, 25)))


@pytest.mark.capability("static member")
def test_static(start: Start, house: Driver, topic: str) -> None:
    """A static member that crashes and comes back has its partitions again, and the other one keeps its own (KIP-345)."""
    group = fresh("static")
    fill(house, topic, 20)
    first = Member(start(), topic, group, instance="one")
    second = Member(start(), topic, group, instance="two")
    eventually("two members share", lambda: have(house, group, first, second))
    before = first.assigned, second.assigned
    second.driver.kill()
    second = Member(start(), topic, group, instance="two")
    eventually("the second is back", lambda: have(house, group, first, second))
    assert (first.assigned, second.assigned) == before
    fill(house, topic, 20)
    eventually("both read", lambda: read(20, 40, first, second))
    assert house.describe_group(group=group) == {"state": "stable", "members": 2}
