"""A consumer group (KIP-848) on a virtual clock, with clients that do what Kafka's do and note what they own."""

import itertools
from collections.abc import Iterable

from broker.coordinator.assignment import assignment_of
from broker.coordinator.classic_group import ClassicGroup
from broker.coordinator.consumer_group import ConsumerGroup
from broker.coordinator.consumer_member import AWAY_EPOCH, LEAVES_EPOCH
from broker.coordinator.effects import Effects, TimerKey
from broker.coordinator.group_state import ConsumerSettings, GroupLimits, JoiningClient
from broker.coordinator.records import CoordinatorRecord, decode_record, encode_record
from broker.coordinator.topic_catalog import TopicFacts
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse

SESSION_MS, REBALANCE_MS, INTERVAL_MS = 45_000, 30_000, 5000

_Request = ConsumerGroupHeartbeatRequest


class Catalog:
    """Topics in memory."""

    def __init__(self, **counts: int) -> None:
        self.revision = 0
        self.topics: dict[str, TopicFacts] = {}
        self._ids = itertools.count(1)
        for name, count in counts.items():
            self.create(name, count)

    def create(self, name: str, count: int) -> None:
        self.topics[name] = TopicFacts(name, next(self._ids).to_bytes(16), count)
        self.revision += 1

    def grow(self, name: str, count: int) -> None:
        self.topics[name] = self.topics[name]._replace(partition_count=count)
        self.revision += 1

    def delete(self, name: str) -> None:
        del self.topics[name]
        self.revision += 1

    def named(self, name: str) -> TopicFacts | None:
        return self.topics.get(name)

    def identified(self, topic_id: bytes) -> TopicFacts | None:
        return next((facts for facts in self.topics.values() if facts.topic_id == topic_id), None)

    def names(self) -> list[str]:
        return list(self.topics)


class SimulatedConsumerGroup:
    """The shell around a ConsumerGroup as a test wants it."""

    def __init__(self, catalog: Catalog, *, members_max: int = 100, interval_ms: int = 1000) -> None:
        self.now_ms = 1_000_000
        self.catalog = catalog
        self.ids = itertools.count(1)
        self.settings = ConsumerSettings(SESSION_MS, INTERVAL_MS, interval_ms, members_max, 100, "uniform", True)
        self.log: list[tuple[bytes, bytes | None]] = []
        self.group: ConsumerGroup | ClassicGroup = self.new_group()
        self.timers: dict[TimerKey, int] = {}
        self.refuses = False

    def new_group(self) -> ConsumerGroup:
        return ConsumerGroup(
            "g",
            self.catalog,
            lambda: self.settings,
            self.new_classic_group,
            time_ms=lambda: self.now_ms,
            new_id=lambda: f"id{next(self.ids)}",
        )

    def new_classic_group(self) -> ClassicGroup:
        return ClassicGroup("g", GroupLimits(100, 0), time_ms=lambda: self.now_ms, new_id=lambda: f"id{next(self.ids)}")

    def replayed(self) -> ConsumerGroup:
        """A group that knows nothing but what was written."""
        group = self.new_group()
        for key, value in self.log:
            record = decode_record(key, value)
            assert record is not None
            group.take_up(record)
        return group

    def restart(self) -> None:
        """The broker was killed."""
        self.group, self.timers = self.replayed(), {}
        self.apply(self.group.resume())

    def apply(self, effects: Effects) -> bool:
        """Does what the effects say; False when the log refuses the records."""
        if self.refuses and effects.records:
            self.group.undo(effects)
            return False
        self.log += [encode_record(record) for record in effects.records]
        if effects.replacement is not None:
            self.group, self.timers = effects.replacement, {}
        for answer, response in [*effects.joins, *effects.syncs]:
            answer.resolve(response)
        for key, delay_ms in effects.timers.items():
            self.timers.pop(key, None)
            if delay_ms is not None:
                self.timers[key] = self.now_ms + delay_ms
        return True

    def pass_time(self, duration_ms: int) -> None:
        end_ms = self.now_ms + duration_ms
        while self.timers:
            key = min(self.timers, key=lambda k: self.timers[k])
            if self.timers[key] > end_ms:
                break
            self.now_ms = max(self.now_ms, self.timers.pop(key))
            self.apply(self.group.timer_expired(key))
        self.now_ms = end_ms

    def beat(self, member_id: str, epoch: int, **fields) -> ConsumerGroupHeartbeatResponse:
        """One heartbeat; raises KafkaError, also when the log refuses what it changes."""
        request = _Request(group_id="g", member_id=member_id, member_epoch=epoch, **fields)
        response, effects = self.group.consumer_heartbeat(request, JoiningClient("client", "/127.0.0.1", 1))
        if not self.apply(effects):
            raise KafkaError(ErrorCode.NOT_COORDINATOR)
        return response

    def records(self) -> dict[bytes, CoordinatorRecord]:
        """All that the group would be replayed from, by key."""
        return by_key(self.group.live_records())


def by_key(records: Iterable[CoordinatorRecord]) -> dict[bytes, CoordinatorRecord]:
    return {encode_record(record)[0]: record for record in records}


class SimulatedConsumer:
    """A client: gives up what it is told to (at once, or when `revoke` is called), then says so, then takes what it gets."""

    def __init__(self, sim: SimulatedConsumerGroup, member_id: str, *topics: str, **fields) -> None:
        self.sim, self.member_id = sim, member_id
        self.fields = {"subscribed_topic_names": list(topics), "rebalance_timeout_ms": REBALANCE_MS, **fields}
        self.epoch = 0
        self.owned: dict[bytes, frozenset[int]] = {}
        self.told: dict[bytes, frozenset[int]] = {}
        self.slow = False
        """Does not give up anything by itself."""

    def beat(self, **changes) -> ConsumerGroupHeartbeatResponse:
        """A heartbeat as Kafka's client sends it; fenced, it drops everything and joins again with the next one."""
        self.fields |= changes
        if self.epoch == 0:
            changes = {**self.fields, "topic_partitions": []}
        else:
            changes = {"instance_id": self.fields.get("instance_id"), **changes, "topic_partitions": self._owned()}
        try:
            response = self.sim.beat(self.member_id, self.epoch, **changes)
        except KafkaError as error:
            if error.code in (25, 110):
                self.epoch, self.owned, self.told = 0, {}, {}
            raise
        self.epoch = response.member_epoch
        if response.assignment is not None:
            self.told = assignment_of(response.assignment.topic_partitions)
        if not self.slow:
            self.revoke()
        return response

    def revoke(self) -> None:
        """Gives up what it is not to have; only then it takes what it gets."""
        self.owned = dict(self.told)

    def leave(self) -> None:
        self.sim.beat(self.member_id, LEAVES_EPOCH, instance_id=self.fields.get("instance_id"))
        self.epoch, self.owned, self.told = 0, {}, {}

    def go_away(self) -> None:
        """A static member stops for a while."""
        self.sim.beat(self.member_id, AWAY_EPOCH, instance_id=self.fields.get("instance_id"))
        self.owned, self.told = {}, {}

    def partitions(self) -> set[tuple[bytes, int]]:
        """What it reads now: when it is to give something up, it still reads that."""
        return {(topic_id, partition) for topic_id, numbers in self.owned.items() for partition in numbers}

    def _owned(self):
        return [_Request.TopicPartitions(topic_id=t, partitions=sorted(p)) for t, p in self.owned.items()]


def settle(sim: SimulatedConsumerGroup, *consumers: SimulatedConsumer, rounds: int = 12) -> None:
    """Everybody heartbeats until nothing moves any more."""
    for _ in range(rounds):
        for consumer in consumers:
            consumer.beat()
        sim.pass_time(INTERVAL_MS)
