"""The consumer group protocol (KIP-848) with confluent-kafka: rebalances, a member's crash, kill -9 of the broker, migration."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition

from tests.broker_process import BrokerProcess
from tests.integration.test_groups import PARTITIONS, Consumer, committed, described, fresh, shared, until

SETTINGS = (
    "group.initial.rebalance.delay.ms=0",
    "group.consumer.min.session.timeout.ms=1000",
    "group.consumer.session.timeout.ms=4000",
    "group.consumer.min.heartbeat.interval.ms=100",
    "group.consumer.heartbeat.interval.ms=200",
)
# A member that another process can kill.
MEMBER = """
import sys, confluent_kafka
bootstrap, topic, group = sys.argv[1:]
member = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": group, "group.protocol": "consumer"})
member.subscribe([topic], on_assign=lambda _, places: print(len(places), flush=True))
while True:
    member.poll(0.1)
"""


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker with short sessions that the test may kill."""
    process = BrokerProcess(tmp_path, *SETTINGS)
    process.start()
    yield process
    process.end()


class NewConsumer(Consumer):
    """A member that speaks the consumer protocol."""

    def __init__(self, bootstrap: str, topic: str, group: str, **settings: object) -> None:
        # The broker sets both for this protocol; the client refuses them.
        new = {"group.protocol": "consumer", "session.timeout.ms": None, "heartbeat.interval.ms": None, **settings}
        super().__init__(bootstrap, topic, group, **new)


def owned_by(*members: Consumer) -> Callable[[], bool]:
    return lambda: shared(*members)


def test_three_members_share_and_hand_over(own_broker: BrokerProcess) -> None:
    """Members come and go; each gives up only what another gets, and commits carry over."""
    topic, group = fresh(own_broker.bootstrap)
    first, second = (NewConsumer(own_broker.bootstrap, topic, group) for _ in range(2))
    until("two members share the partitions", owned_by(first, second))
    for member in (first, second):
        places = [TopicPartition(topic, partition, 7 + partition) for partition in member.owned()]
        member.client.commit(offsets=places, asynchronous=False)
    third = NewConsumer(own_broker.bootstrap, topic, group)
    until("three members share the partitions", owned_by(first, second, third))
    assert committed(own_broker.bootstrap, topic, group) == [7, 8, 9, 10]
    assert described(own_broker.bootstrap, group) == ("STABLE", 3)
    # Never all at once: what a member keeps is not taken from it.
    for member in (first, second):
        revoked = [len(places) for event, places in member.events if event == "revoked"]
        assert all(count <= PARTITIONS // 2 for count in revoked)
    third.client.close()
    until("two members share the partitions again", owned_by(first, second))
    for member in (first, second):
        member.client.close()


def test_a_crashed_member_is_replaced(own_broker: BrokerProcess) -> None:
    """kill -9 of a member: after its session its partitions are read on by the others."""
    topic, group = fresh(own_broker.bootstrap)
    doomed = subprocess.Popen(
        [sys.executable, "-c", MEMBER, own_broker.bootstrap, topic, group], stdout=subprocess.PIPE, text=True
    )
    assert doomed.stdout is not None
    assert doomed.stdout.readline() == f"{PARTITIONS}\n"
    stays = NewConsumer(own_broker.bootstrap, topic, group)
    until("the two share the partitions", lambda: len(stays.owned()) == PARTITIONS // 2)
    doomed.kill()
    doomed.communicate()
    until("the other has them all", owned_by(stays))
    stays.client.close()


def test_members_and_epochs_survive_kill(own_broker: BrokerProcess) -> None:
    """kill -9 of the broker: nothing is revoked or lost, and members go on at their epochs."""
    topic, group = fresh(own_broker.bootstrap)
    members = [NewConsumer(own_broker.bootstrap, topic, group) for _ in range(2)]
    until("the members share the partitions", owned_by(*members))
    before = [list(member.events) for member in members]
    own_broker.kill()
    own_broker.start()
    beats_until = time.monotonic() + 2  # ten heartbeats
    until("heartbeats", lambda: shared(*members) and time.monotonic() > beats_until)
    assert [member.events for member in members] == before
    assert described(own_broker.bootstrap, group) == ("STABLE", 2)
    for member in members:
        member.client.close()


def test_a_group_changes_its_protocol_while_it_works(own_broker: BrokerProcess) -> None:
    """Members of both protocols share one group, in both directions; the last one to leave turns it."""
    topic, group = fresh(own_broker.bootstrap)
    strategy = {"partition_assignment_strategy": "cooperative-sticky"}
    old = Consumer(own_broker.bootstrap, topic, group, **strategy)
    until("the old member owns all", owned_by(old))
    new = NewConsumer(own_broker.bootstrap, topic, group)
    until("old and new share the partitions", owned_by(old, new))
    assert group_type(own_broker.bootstrap, group) == "CONSUMER"
    old.client.close()
    until("the new member owns all", owned_by(new))
    back = Consumer(own_broker.bootstrap, topic, group, **strategy)
    until("new and old share the partitions", owned_by(new, back))
    new.client.close()
    until("the old protocol has the group again", owned_by(back))
    assert group_type(own_broker.bootstrap, group) == "CLASSIC"
    back.client.close()


def group_type(bootstrap: str, group: str) -> str:
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": bootstrap})
    listed = admin.list_consumer_groups().result(10).valid
    return next(entry.type.name for entry in listed if entry.group_id == group)
