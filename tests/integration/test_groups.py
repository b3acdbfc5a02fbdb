"""Consumer groups of real clients against the real broker: rebalances, static members, cooperative assignment, kill -9."""

import gc
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import confluent_kafka
import confluent_kafka.admin
import pytest
from confluent_kafka import TopicPartition

from tests.broker_process import BrokerProcess

PARTITIONS = 4
TIMEOUT_S = 30

# kafka-python 3.0.12 forgets sockets whose broker was killed; each test collects its own.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker that the test may kill."""
    process = BrokerProcess(tmp_path, "group.initial.rebalance.delay.ms=0")
    process.start()
    yield process
    process.end()


class Consumer:
    """A confluent-kafka member that notes what happens to it; a setting of None takes it out."""

    def __init__(self, bootstrap: str, topic: str, group: str, **settings: object) -> None:
        self.events: list[tuple[str, list[int]]] = []
        chosen = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 200,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 0,
            **{name.replace("_", "."): value for name, value in settings.items()},
        }
        self.client = confluent_kafka.Consumer({name: value for name, value in chosen.items() if value is not None})
        self.client.subscribe(
            [topic], on_assign=self._note("assigned"), on_revoke=self._note("revoked"), on_lost=self._note("lost")
        )

    def _note(self, event: str) -> Callable[..., None]:
        return lambda _, places: self.events.append((event, sorted(place.partition for place in places)))

    def owned(self) -> set[int]:
        """Polls once, then says which partitions are assigned."""
        self.client.poll(0.05)
        return {place.partition for place in self.client.assignment()}


class Reader(Consumer):
    """A member that commits each record as it reads it."""

    def __init__(self, bootstrap: str, topic: str, group: str) -> None:
        super().__init__(bootstrap, topic, group)
        self.offsets: list[int] = []

    def read(self) -> int:
        """Polls once; how many records it has read so far."""
        message = self.client.poll(0.05)
        if message is not None and message.error() is None:
            self.offsets.append(message.offset())
            self.client.commit(message, asynchronous=False)
        return len(self.offsets)


def produce(bootstrap: str, topic: str, count: int) -> None:
    """Records for partition 1."""
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    for number in range(count):
        producer.produce(topic, f"value {number}".encode(), partition=1)
    assert producer.flush(TIMEOUT_S) == 0


def fresh(bootstrap: str) -> tuple[str, str]:
    """A new topic and a group name."""
    topic = f"groups-{uuid.uuid4().hex[:8]}"
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([confluent_kafka.admin.NewTopic(topic, PARTITIONS, 1)])[topic].result(TIMEOUT_S)
    return topic, f"of-{topic}"


def until(what: str, condition: Callable[[], bool]) -> None:
    """Waits for a condition; fails naming it."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {TIMEOUT_S} s: {what}"


def shared(*members: Consumer) -> bool:
    owned = [member.owned() for member in members]
    return set.union(*owned) == set(range(PARTITIONS)) and sum(map(len, owned)) == PARTITIONS and all(owned)


def committed(bootstrap: str, topic: str, group: str) -> list[int]:
    """The group's committed offsets by partition; -1001 where there is none."""
    asking = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    places = asking.committed([TopicPartition(topic, partition) for partition in range(PARTITIONS)], timeout=TIMEOUT_S)
    asking.close()
    return [place.offset for place in places]


def described(bootstrap: str, group: str) -> tuple[str, int]:
    """State and number of members, as an administrator sees them."""
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": bootstrap})
    found = admin.describe_consumer_groups([group])[group].result(TIMEOUT_S)
    return found.state.name, len(found.members)


def test_members_go_on_after_kill(own_broker: BrokerProcess) -> None:
    """kill -9 and a restart: members keep their generation, nothing is revoked or lost, and commits are where they were."""
    topic, group = fresh(own_broker.bootstrap)
    members = [Consumer(own_broker.bootstrap, topic, group) for _ in range(2)]
    until("the members share the partitions", lambda: shared(*members))
    for member in members:
        places = [TopicPartition(topic, partition, 7 + partition) for partition in member.owned()]
        member.client.commit(offsets=places, asynchronous=False)
    before = [list(member.events) for member in members]
    own_broker.kill()
    own_broker.start()
    assert committed(own_broker.bootstrap, topic, group) == [7, 8, 9, 10]
    beats_until = time.monotonic() + 2  # ten heartbeats: a generation that the broker forgot would be noticed by then
    until("heartbeats", lambda: shared(*members) and time.monotonic() > beats_until)
    assert [member.events for member in members] == before
    assert described(own_broker.bootstrap, group) == ("STABLE", 2)
    for member in members:
        member.client.close()


def test_reading_goes_on_after_kill(own_broker: BrokerProcess) -> None:
    """A member reads on where it committed after kill -9, and a new member of the group finds nothing left to read."""
    topic, group = fresh(own_broker.bootstrap)
    produce(own_broker.bootstrap, topic, 20)
    member = Reader(own_broker.bootstrap, topic, group)
    until("the member reads what is there", lambda: member.read() == 20)
    own_broker.kill()
    own_broker.start()
    produce(own_broker.bootstrap, topic, 20)
    until("the member reads on", lambda: member.read() >= 40)
    member.client.close()
    assert set(member.offsets) == set(range(40))
    late = Reader(own_broker.bootstrap, topic, group)
    until("the late member owns the partitions", lambda: len(late.owned()) == PARTITIONS)
    produce(own_broker.bootstrap, topic, 1)
    until("the late member reads what is new", lambda: late.read() >= 1)
    late.client.close()
    assert late.offsets == [40]


def test_static_member_returns_without_a_rebalance(broker: BrokerProcess) -> None:
    """A static member that restarts gets its partitions back, and the other member is not disturbed."""
    topic, group = fresh(broker.bootstrap)
    stays = Consumer(broker.bootstrap, topic, group, group_instance_id="stays")
    leaves = Consumer(broker.bootstrap, topic, group, group_instance_id="leaves")
    until("the members share the partitions", lambda: shared(stays, leaves))
    owned, before = leaves.owned(), list(stays.events)
    leaves.client.close()  # a static member does not leave the group with that
    returns = Consumer(broker.bootstrap, topic, group, group_instance_id="leaves")
    until("the member has its partitions again", lambda: shared(stays, returns))
    assert returns.owned() == owned
    assert stays.events == before
    for member in (stays, returns):
        member.client.close()


def test_cooperative_members_keep_what_they_need_not_give(broker: BrokerProcess) -> None:
    """cooperative-sticky: the first member gives up only what the second gets, and never stands without partitions."""
    topic, group = fresh(broker.bootstrap)
    strategy = {"partition_assignment_strategy": "cooperative-sticky"}
    first = Consumer(broker.bootstrap, topic, group, **strategy)
    until("the first member owns all", lambda: len(first.owned()) == PARTITIONS)
    second = Consumer(broker.bootstrap, topic, group, **strategy)
    until("the members share the partitions", lambda: shared(first, second))
    assert [len(places) for event, places in first.events if event == "revoked"] == [PARTITIONS // 2]
    second.client.close()
    until("the first member owns all again", lambda: len(first.owned()) == PARTITIONS)
    first.client.close()


def test_groups_are_listed_and_deleted_for_good(own_broker: BrokerProcess) -> None:
    """A group that was deleted does not come back with a restart."""
    topic, group = fresh(own_broker.bootstrap)
    member = Consumer(own_broker.bootstrap, topic, group)
    until("the member owns all", lambda: len(member.owned()) == PARTITIONS)
    member.client.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=False)
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": own_broker.bootstrap})
    with pytest.raises(confluent_kafka.KafkaException, match="NON_EMPTY_GROUP"):
        admin.delete_consumer_groups([group])[group].result(TIMEOUT_S)
    member.client.close()
    admin.delete_consumer_groups([group])[group].result(TIMEOUT_S)
    own_broker.kill()
    own_broker.start()
    assert admin.list_consumer_groups().result(TIMEOUT_S).valid == []
