"""Two hundred members in one group that join and leave, in both protocols; nobody else waits for them."""

import asyncio
import struct
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.coordinator.assignment import assignment_of
from protocol.codec import decode_response, encode_data, encode_request
from protocol.headers import decode_response_header, encode_request_header
from protocol.messages import (
    ConsumerGroupHeartbeatRequest,
    ConsumerProtocolSubscription,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    Message,
    SyncGroupRequest,
)
from tests.broker_process import BrokerProcess
from tests.integration.raw import RawConnection

MEMBERS, PARTITIONS, LEAVING = 200, 300, 50
TIMEOUT_S = 60
PROTOCOL = "range"


class Connection:
    """A member's own connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, bootstrap: str) -> "Connection":
        host, _, port = bootstrap.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def call(self, key: int, version: int, message: Message) -> Any:
        header = encode_request_header(key, version, 1, "member")
        body = b"".join([header, *encode_request(key, version, message)])
        self._writer.write(struct.pack(">i", len(body)) + body)
        (size,) = struct.unpack(">i", await self._reader.readexactly(4))
        data = await self._reader.readexactly(size)
        _, position = decode_response_header(key, version, memoryview(data))
        return decode_response(key, version, data, position)

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class NewMember:
    """The consumer protocol (KIP-848)."""

    def __init__(self, connection: Connection, topic: str, group: str) -> None:
        self.connection, self.topic, self.group = connection, topic, group
        self.member_id, self.epoch, self.owned = str(uuid.uuid4()), 0, {}

    async def beat(self, epoch: int | None = None) -> None:
        owned = [
            ConsumerGroupHeartbeatRequest.TopicPartitions(topic_id=topic_id, partitions=sorted(partitions))
            for topic_id, partitions in self.owned.items()
        ]
        request = ConsumerGroupHeartbeatRequest(
            group_id=self.group,
            member_id=self.member_id,
            member_epoch=self.epoch if epoch is None else epoch,
            rebalance_timeout_ms=TIMEOUT_S * 1000,
            subscribed_topic_names=[self.topic],
            topic_partitions=owned,
        )
        response = await self.connection.call(68, 1, request)
        assert response.error_code == 0, response.error_message
        self.epoch = response.member_epoch
        if response.assignment is not None:
            self.owned = assignment_of(response.assignment.topic_partitions)

    async def leave(self) -> None:
        await self.beat(-1)

    def partitions(self) -> list[int]:
        return [partition for partitions in self.owned.values() for partition in partitions]


class OldMember:
    """The classic protocol; the leader deals the partitions out in turn."""

    def __init__(self, connection: Connection, topic: str, group: str) -> None:
        self.connection, self.topic, self.group = connection, topic, group
        self.member_id, self.generation, self.owned = "", -1, []
        subscription = ConsumerProtocolSubscription(topics=[topic], owned_partitions=[])
        self.metadata = b"\0\0" + encode_data("ConsumerProtocolSubscription", 0, subscription)

    async def beat(self) -> None:
        request = HeartbeatRequest(group_id=self.group, generation_id=self.generation, member_id=self.member_id)
        if self.generation < 0 or (await self.connection.call(12, 4, request)).error_code:
            await self._join()

    async def _join(self) -> None:
        protocol = JoinGroupRequest.JoinGroupRequestProtocol(name=PROTOCOL, metadata=self.metadata)
        while True:
            request = JoinGroupRequest(
                group_id=self.group,
                session_timeout_ms=30_000,
                rebalance_timeout_ms=TIMEOUT_S * 1000,
                member_id=self.member_id,
                protocol_type="consumer",
                protocols=[protocol],
            )
            joined = await self.connection.call(11, 9, request)
            self.member_id = joined.member_id
            if joined.error_code == 79:
                continue
            assert joined.error_code == 0
            if await self._sync(joined):
                return

    async def _sync(self, joined: Any) -> bool:
        """False when another rebalance has begun since."""
        self.generation = joined.generation_id
        request = SyncGroupRequest(
            group_id=self.group,
            generation_id=self.generation,
            member_id=self.member_id,
            protocol_type="consumer",
            protocol_name=PROTOCOL,
            assignments=[
                SyncGroupRequest.SyncGroupRequestAssignment(
                    member_id=member.member_id, assignment=bytes(range(256))[: PARTITIONS // len(joined.members)]
                )
                for member in joined.members
            ],
        )
        synced = await self.connection.call(14, 5, request)
        assert synced.error_code in (0, 22, 27), synced.error_code
        self.owned = list(synced.assignment)
        return synced.error_code == 0

    async def leave(self) -> None:
        identity = LeaveGroupRequest.MemberIdentity(member_id=self.member_id)
        await self.connection.call(13, 5, LeaveGroupRequest(group_id=self.group, members=[identity]))

    def partitions(self) -> list[int]:
        return self.owned


async def settled(members: list[Any], condition: Callable[[], bool]) -> None:
    """All members heartbeat, each in its own time, until the condition holds."""
    settled_down = False

    async def live(member: Any) -> None:
        while not settled_down:
            await member.beat()
            await asyncio.sleep(0.2)

    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as lives:
        for member in members:
            lives.create_task(live(member))
        while not condition():
            await asyncio.sleep(0.1)
        settled_down = True


async def joined_and_left(
    broker: BrokerProcess, kind: type[NewMember | OldMember], condition: Callable[[list[Any]], bool]
) -> None:
    topic = f"many-{uuid.uuid4().hex[:8]}"
    with RawConnection(broker.bootstrap) as admin:
        admin.create_topic(topic, PARTITIONS)
    connections = [await Connection.open(broker.bootstrap) for _ in range(MEMBERS)]
    members = [kind(connection, topic, f"of-{topic}") for connection in connections]
    await settled(members, lambda: condition(members))
    leaving, staying = members[:LEAVING], members[LEAVING:]
    goodbyes: list[Awaitable[None]] = [member.leave() for member in leaving]
    await asyncio.gather(*goodbyes)
    await settled(staying, lambda: condition(staying))
    returning = [kind(connection, topic, f"of-{topic}") for connection in connections[:LEAVING]]
    await settled(staying + returning, lambda: condition(staying + returning))
    for connection in connections:
        await connection.close()


@pytest.mark.slow
async def test_two_hundred_members_of_the_consumer_protocol(broker: BrokerProcess) -> None:
    """After each wave every partition has one reader, and the loads differ by one at most."""

    def shared(members: list[Any]) -> bool:
        owned = [partition for member in members for partition in member.partitions()]
        loads = [len(member.partitions()) for member in members]
        return sorted(owned) == list(range(PARTITIONS)) and max(loads) - min(loads) <= 1

    await joined_and_left(broker, NewMember, shared)


@pytest.mark.slow
async def test_two_hundred_members_of_the_classic_protocol(broker: BrokerProcess) -> None:
    """After each wave all are in one generation and have what the leader dealt out for that many."""

    def shared(members: list[Any]) -> bool:
        generations = {member.generation for member in members}
        dealt = {len(member.partitions()) for member in members}
        return len(generations) == 1 and generations != {-1} and dealt == {PARTITIONS // len(members)}

    await joined_and_left(broker, OldMember, shared)
