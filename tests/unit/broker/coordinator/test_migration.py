"""A group goes from one protocol to the other while its members work, on a real log; kill -9 in between changes nothing."""

import pytest

from broker.configs.definition import ConfigResource
from broker.coordinator.broker_view import BrokerTopics
from broker.coordinator.embedded_protocol import read_assignment
from broker.coordinator.group_state import GroupType, JoiningClient
from protocol.codec import encode_data
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import (
    ConsumerGroupHeartbeatRequest,
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
    JoinGroupRequest,
    LeaveGroupRequest,
)
from tests.unit.broker.coordinator.simulation import value
from tests.unit.broker.coordinator.world import World

_Subscription = ConsumerProtocolSubscription


@pytest.fixture
def worlds(tmp_path):
    opened = [World(tmp_path / "data", group_consumer_assignment_interval_ms=0)]
    opened[0].topics.create("t", 4, {})
    yield opened
    for world in opened:
        world.close()


def restarted(worlds, tmp_path) -> World:
    worlds.append(worlds[-1].killed(tmp_path / f"again{len(worlds)}"))
    return worlds[-1]


class Classic:
    """A member of the classic protocol that subscribes to t."""

    def __init__(self, world: World, instance: str | None = None) -> None:
        self.world, self.instance = world, instance
        self.member_id, self.generation, self.owned = "", -1, []

    def join(self):
        owned = [_Subscription.TopicPartition(topic="t", partitions=self.owned)] if self.owned else []
        metadata = b"\0\3" + encode_data(
            "ConsumerProtocolSubscription", 3, _Subscription(topics=["t"], owned_partitions=owned)
        )
        answer = self.world.join(
            "g",
            self.member_id,
            group_instance_id=self.instance,
            protocols=[JoinGroupRequest.JoinGroupRequestProtocol(name="cooperative-sticky", metadata=metadata)],
        )
        self.world.pass_time(0)
        response = value(answer)
        self.member_id, self.generation = response.member_id, response.generation_id
        return response

    def sync(self, *partitions: int) -> int:
        message = ConsumerProtocolAssignment(
            assigned_partitions=[ConsumerProtocolAssignment.TopicPartition(topic="t", partitions=list(partitions))]
        )
        given = b"\0\3" + encode_data("ConsumerProtocolAssignment", 3, message) if partitions else b""
        response = value(self.world.sync("g", self.member_id, self.generation, given))
        if not response.error_code:
            assignment, _ = read_assignment(response.assignment, BrokerTopics(self.world.topics))
            self.owned = sorted(partition for numbers in assignment.values() for partition in numbers)
        return response.error_code

    def heartbeat(self) -> int:
        return self.world.heartbeat("g", (self.member_id, self.generation))

    def leave(self) -> None:
        self.world.groups.leave("g", [LeaveGroupRequest.MemberIdentity(member_id=self.member_id)])
        self.world.turn()


class Modern:
    """A member of the consumer protocol that subscribes to t."""

    def __init__(self, world: World, member_id: str, instance: str | None = None) -> None:
        self.world, self.member_id, self.instance, self.epoch, self.owned = world, member_id, instance, 0, []

    def beat(self, epoch: int | None = None):
        topic_id = self.world.topics.get("t").topic_id
        owned = [ConsumerGroupHeartbeatRequest.TopicPartitions(topic_id=topic_id, partitions=self.owned)]
        request = ConsumerGroupHeartbeatRequest(
            group_id="g",
            member_id=self.member_id,
            instance_id=self.instance,
            member_epoch=self.epoch if epoch is None else epoch,
            rebalance_timeout_ms=10_000,
            subscribed_topic_names=["t"],
            topic_partitions=owned if self.owned else [],
        )
        answer = self.world.groups.consumer_heartbeat(request, JoiningClient("client", "/127.0.0.1", 1))
        self.world.turn()
        response = value(answer)
        if not response.error_code:
            self.epoch = response.member_epoch
            if response.assignment is not None:
                self.owned = sorted(p for entry in response.assignment.topic_partitions for p in entry.partitions)
        return response


def follow(member: Classic) -> None:
    """What a classic client does: it joins again whenever its heartbeat calls it."""
    for _ in range(4):
        if member.heartbeat() != ErrorCode.REBALANCE_IN_PROGRESS:
            return
        member.join()
        assert member.sync() == 0


def test_upgrade_and_downgrade_with_a_kill_in_between(worlds, tmp_path) -> None:
    """A classic member stays while a modern one comes and goes; both restarts find everybody where they were."""
    world = worlds[0]
    classic = Classic(world)
    classic.join()
    assert classic.sync(0, 1, 2, 3) == 0
    modern = Modern(world, "modern")
    assert modern.beat().error_code == 0
    assert world.groups.group("g").type is GroupType.CONSUMER
    assert modern.owned == []
    follow(classic)
    modern.beat()
    assert (len(classic.owned), len(modern.owned)) == (2, 2)
    assert not set(classic.owned) & set(modern.owned)

    world = classic.world = modern.world = restarted(worlds, tmp_path)
    assert world.groups.group("g").type is GroupType.CONSUMER
    assert classic.heartbeat() == 0
    assert modern.beat().member_epoch == modern.epoch
    assert modern.beat(-1).error_code == 0
    assert world.groups.group("g").type is GroupType.CLASSIC

    world = classic.world = restarted(worlds, tmp_path)
    assert world.groups.group("g").type is GroupType.CLASSIC
    assert world.groups.group("g").roster.members.keys() == {classic.member_id}
    classic.join()
    assert classic.sync(0, 1, 2, 3) == 0
    assert classic.heartbeat() == 0


def test_a_static_member_goes_forth_and_back(worlds) -> None:
    """Static members change the protocol one restart at a time and keep their partitions; the last one turns the group."""
    world = worlds[0]
    classic = Classic(world, "i")
    classic.join()
    assert classic.sync(0, 1, 2, 3) == 0
    modern = Modern(world, "modern", "i")
    assert modern.beat().error_code == 0
    assert modern.owned == [0, 1, 2, 3]
    assert classic.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID
    again = Classic(world, "i")
    response = again.join()
    assert response.error_code == 0
    group = world.groups.group("g")
    assert (group.type, list(group.roster.static_members)) == (GroupType.CLASSIC, ["i"])
    assert modern.beat().error_code == ErrorCode.GROUP_ID_NOT_FOUND


def test_a_classic_member_that_does_not_follow_is_out(worlds) -> None:
    """Called to join again it has its rebalance timeout for it, however often it heartbeats."""
    world = worlds[0]
    classic = Classic(world)
    classic.join()
    assert classic.sync(0, 1, 2, 3) == 0
    modern = Modern(world, "modern")
    modern.beat()
    for _ in range(6):
        classic.heartbeat()
        world.pass_time(2000)
        modern.beat()
    assert classic.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID
    modern.beat()
    assert modern.owned == [0, 1, 2, 3]


@pytest.mark.parametrize(("policy", "code"), [("downgrade", 69), ("disabled", 69), ("upgrade", 0)])
def test_the_policy_decides(tmp_path, policy, code) -> None:
    """group.consumer.migration.policy: an upgrade that is not allowed changes nothing; nor does a downgrade."""
    world = World(tmp_path / "data", group_consumer_migration_policy=policy)
    world.topics.create("t", 4, {})
    classic = Classic(world)
    classic.join()
    classic.sync(0, 1)
    assert Modern(world, "modern").beat().error_code == code
    if code:
        assert classic.heartbeat() == 0
    else:
        Modern(world, "modern").beat(-1)
        assert world.groups.group("g").type is GroupType.CONSUMER
    world.close()


def test_what_cannot_be_upgraded_stays(worlds) -> None:
    """Connect's groups and metadata that cannot be read: GROUP_ID_NOT_FOUND, and the group goes on."""
    world = worlds[0]
    answer = world.join("g", protocols=[JoinGroupRequest.JoinGroupRequestProtocol(name="x", metadata=b"?")])
    world.pass_time(0)
    joined = value(answer)
    world.sync("g", joined.member_id, joined.generation_id, b"")
    assert Modern(world, "modern").beat().error_code == ErrorCode.GROUP_ID_NOT_FOUND
    assert world.heartbeat("g", (joined.member_id, joined.generation_id)) == 0


def test_empty_groups_change_freely(worlds, tmp_path) -> None:
    """An empty group of either kind becomes what its next member speaks, and keeps its offsets."""
    world = worlds[0]
    world.commit("g", "t", 0, 5)
    modern = Modern(world, "modern")
    assert modern.beat().error_code == 0
    modern.beat(-1)
    classic = Classic(world)
    classic.join()
    assert classic.sync(0) == 0
    classic.leave()
    assert Modern(world, "other").beat().error_code == 0
    again = restarted(worlds, tmp_path)
    assert again.groups.group("g").type is GroupType.CONSUMER
    assert again.groups.offsets.of_group("g").get("t", 0).offset == 5


def test_a_refused_write_leaves_the_group(worlds) -> None:
    """A full disk stops an upgrade before it has begun."""
    world = worlds[0]
    classic = Classic(world)
    classic.join()
    classic.sync(0, 1, 2, 3)
    world.logs._services.refusal = KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "full")
    assert Modern(world, "modern").beat().error_code == ErrorCode.NOT_COORDINATOR
    world.logs._services.refusal = None
    assert world.groups.group("g").type is GroupType.CLASSIC
    assert classic.heartbeat() == 0
    assert Modern(world, "modern").beat().error_code == 0


def test_a_group_has_its_own_configs(worlds) -> None:
    """consumer.session.timeout.ms and consumer.heartbeat.interval.ms of a GROUP resource act at once, and only there."""
    world = worlds[0]
    modern = Modern(world, "modern")
    assert modern.beat().heartbeat_interval_ms == 5000
    own = {"consumer.heartbeat.interval.ms": "7000", "consumer.session.timeout.ms": "50000"}
    world.topics.set_resource_configs(ConfigResource.GROUP, "g", own)
    assert modern.beat().heartbeat_interval_ms == 7000
    world.pass_time(49_999)
    assert modern.beat().error_code == 0
    world.pass_time(50_001)
    assert modern.beat().error_code == ErrorCode.UNKNOWN_MEMBER_ID
