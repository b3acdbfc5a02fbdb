"""Groups of thousands of members: how long everybody else waits while one is rebalanced, and what it costs the broker.

Members are driven from one loop, those of the consumer protocol on shared connections, classic ones on one each (a JoinGroup holds
its connection until it is answered). Another connection sends ApiVersions all the time: its longest answer is the broker's longest
stall. On a machine that others use, the CPU time that the broker used meanwhile tells more than the clock.
"""

import asyncio
import multiprocessing
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Self

from benchmarks import librdkafka
from benchmarks.brokers import Broker
from benchmarks.frames import frame
from benchmarks.report import Result
from protocol.api_keys import ApiKey
from protocol.codec import decode_response, encode_data, encode_request
from protocol.headers import decode_response_header
from protocol.messages import (
    ApiVersionsRequest,
    ConsumerGroupHeartbeatRequest,
    ConsumerProtocolSubscription,
    JoinGroupRequest,
    Message,
    SyncGroupRequest,
)

CONNECTIONS = 20
PACE_S = 0.0005
PARTITIONS = 1_000
IDLE_S = 2
REBALANCE_TIMEOUT_MS = 300_000
MEMBER_ID_REQUIRED = 79


class Connection:
    """One request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, bootstrap: str) -> "Connection":
        host, _, port = bootstrap.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def call(self, key: ApiKey, version: int, message: Message) -> Any:
        self._writer.write(frame(key, version, [bytes(part) for part in encode_request(key, version, message)]))
        (size,) = struct.unpack(">i", await self._reader.readexactly(4))
        data = await self._reader.readexactly(size)
        _, position = decode_response_header(key, version, memoryview(data))
        return decode_response(key, version, data, position)

    def close(self) -> None:
        self._writer.close()


async def call_all(
    connections: Sequence[Connection], key: ApiKey, version: int, messages: Sequence[Message]
) -> list[Any]:
    """Every message's answer. Connections take turns and start one after the other: what is measured is not the crowd."""

    async def run(position: int) -> list[Any]:
        await asyncio.sleep(position * PACE_S)
        return [
            await connections[position].call(key, version, message)
            for message in messages[position :: len(connections)]
        ]

    answers: list[Any] = [None] * len(messages)
    for position, run_answers in enumerate(await asyncio.gather(*map(run, range(len(connections))))):
        answers[position :: len(connections)] = run_answers
    return answers


def _ping(bootstrap: str, pid: int, until: Any, result: Any) -> None:
    """A process of its own, so that the load does not hold it up."""
    usage = Path(f"/proc/{pid}/task/{pid}/schedstat")  # of the event loop's thread: nanoseconds on a core, …
    host, _, port = bootstrap.rpartition(":")
    request = ApiVersionsRequest(client_software_name="bench", client_software_version="1")
    data = frame(ApiKey.API_VERSIONS, 3, [bytes(part) for part in encode_request(ApiKey.API_VERSIONS, 3, request)])
    longest_s, longest_cpu_ns = 0.0, 0
    with socket.create_connection((host, int(port))) as connection, connection.makefile("rb") as answers:
        while not until.is_set():
            started, used = time.perf_counter(), int(usage.read_text().split()[0])
            connection.sendall(data)
            answers.read(struct.unpack(">i", answers.read(4))[0])
            longest_s = max(longest_s, time.perf_counter() - started)
            longest_cpu_ns = max(longest_cpu_ns, int(usage.read_text().split()[0]) - used)
            time.sleep(0.001)
    result.send((longest_s * 1e3, longest_cpu_ns / 1e6))


class Pings:
    """Asks for ApiVersions again and again: the longest time one answer took, and the most CPU time the broker used in one."""

    longest_ms = longest_cpu_ms = 0.0

    def __init__(self, broker: Broker) -> None:
        processes = multiprocessing.get_context("spawn")
        self._until = processes.Event()
        self._result, result = processes.Pipe(duplex=False)
        self._process = processes.Process(target=_ping, args=(broker.bootstrap, broker.pid, self._until, result))

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._until.set()
        self.longest_ms, self.longest_cpu_ms = self._result.recv()
        self._process.join()


async def consumer_protocol(connections: Sequence[Connection], topic: str, members: int) -> None:
    """All members join, and heartbeat until everybody is where the broker wants them."""
    ids, epochs, owned = [f"m{number}" for number in range(members)], [0] * members, [list[Any]()] * members
    for _ in range(4):
        requests = [
            ConsumerGroupHeartbeatRequest(
                group_id=topic,
                member_id=member_id,
                member_epoch=epoch,
                rebalance_timeout_ms=-1 if epoch else REBALANCE_TIMEOUT_MS,
                subscribed_topic_names=None if epoch else [topic],
                topic_partitions=partitions,
            )
            for member_id, epoch, partitions in zip(ids, epochs, owned, strict=True)
        ]
        answers = await call_all(connections, ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, requests)
        assert not any(answer.error_code for answer in answers)
        epochs = [answer.member_epoch for answer in answers]
        owned = [
            before if answer.assignment is None else answer.assignment.topic_partitions
            for before, answer in zip(owned, answers, strict=True)
        ]
        await asyncio.sleep(1.1)  # consumer.assignment.interval.ms


async def classic_protocol(connections: Sequence[Connection], topic: str, members: int) -> None:
    """All members take their ids and join; one generation; the leader deals out, everybody syncs."""
    metadata = b"\0\0" + encode_data("ConsumerProtocolSubscription", 0, ConsumerProtocolSubscription(topics=[topic]))

    def join(member_id: str) -> JoinGroupRequest:
        protocol = JoinGroupRequest.JoinGroupRequestProtocol(name="range", metadata=metadata)
        return JoinGroupRequest(
            group_id=topic,
            session_timeout_ms=REBALANCE_TIMEOUT_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            member_id=member_id,
            protocol_type="consumer",
            protocols=[protocol],
        )

    known = await call_all(connections, ApiKey.JOIN_GROUP, 9, [join("")] * members)
    assert {answer.error_code for answer in known} == {MEMBER_ID_REQUIRED}
    joined = await call_all(connections, ApiKey.JOIN_GROUP, 9, [join(answer.member_id) for answer in known])
    assert {answer.generation_id for answer in joined} == {1}
    dealt = [
        SyncGroupRequest.SyncGroupRequestAssignment(member_id=answer.member_id, assignment=bytes(20))
        for answer in joined
    ]
    requests = [
        SyncGroupRequest(
            group_id=topic,
            generation_id=1,
            member_id=answer.member_id,
            protocol_type="consumer",
            protocol_name="range",
            assignments=dealt if answer.member_id == answer.leader else [],
        )
        for answer in joined
    ]
    synced = await call_all(connections, ApiKey.SYNC_GROUP, 5, requests)
    assert not any(answer.error_code for answer in synced)


PROTOCOLS: dict[str, Callable[[Sequence[Connection], str, int], Awaitable[None]]] = {
    "consumer": consumer_protocol,
    "classic": classic_protocol,
}
SETTINGS = ("group.initial.rebalance.delay.ms=20000", "max.connections=20000")
"""The delay gathers all classic members in one generation."""


async def _measure(broker: Broker, protocol: str, members: int) -> Result:
    topic = f"{protocol}-{members}"
    librdkafka.create_topic(broker.bootstrap, topic, PARTITIONS)
    connections = [
        await Connection.open(broker.bootstrap) for _ in range(members if protocol == "classic" else CONNECTIONS)
    ]
    with Pings(broker) as idle:
        await asyncio.sleep(IDLE_S)
    with Pings(broker) as busy:
        await PROTOCOLS[protocol](connections, topic, members)
    figures = {
        "longest answer, broker CPU ms": busy.longest_cpu_ms,
        "longest answer ms": busy.longest_ms,
        "idle: longest answer ms": idle.longest_ms,
    }
    for connection in connections:
        connection.close()
    return Result(f"{members} members, {protocol} protocol", broker.name, figures)


def rebalances(broker: Broker, *, scale: float) -> list[Result]:
    """Both protocols, with a thousand members and with ten thousand."""
    sizes = [max(int(size * scale), CONNECTIONS) for size in (1_000, 10_000)]
    return [asyncio.run(_measure(broker, protocol, members)) for protocol in PROTOCOLS for members in sizes]
