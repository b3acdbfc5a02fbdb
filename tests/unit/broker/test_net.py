"""broker.net and broker.dispatch together, over a transport that remembers: order, waiting, back-pressure, closing."""

import asyncio
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from broker.bounded_log import LOG_LINES_PER_SECOND, BoundedLog
from broker.deferred import Deferred
from broker.dispatch import Dispatcher
from broker.metrics import LATENCY_SAMPLE_EVERY, Metrics
from broker.net import IDLE_CHECKS_PER_PERIOD, Client, Entrance, KafkaListener
from broker.registry import Api
from protocol.api_keys import ApiKey
from protocol.codec import encode_request
from protocol.messages import HeartbeatResponse, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse
from tests.integration.raw import frame


class Loop:
    """The part of an event loop that is used, by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.soon: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.later: list[Callable[..., None]] = []
        self.tasks: list[asyncio.Task[None]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        self.soon.append((callback, args))

    def call_later(self, delay: float, callback: Callable[..., None]) -> Any:
        self.later.append(callback)
        return SimpleNamespace(cancel=lambda: None)

    def create_task(self, coroutine: Any) -> Any:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.append(task)
        return task

    def turn(self) -> None:
        while self.soon:
            callback, args = self.soon.pop(0)
            callback(*args)


class Transport:
    """Remembers what was written; `room` bytes fit before the client is full."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.writes: list[bytes] = []
        self.reading = True
        self.closed = False
        self.room = 1 << 30

    def get_extra_info(self, name: str) -> Any:
        return "192.0.2.1", 5000

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(bytes(data))
        self.room -= len(data)
        if self.room < 0:
            self.client.pause_writing()

    def writelines(self, buffers: list[bytes]) -> None:
        self.write(b"".join(buffers))

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def drain(self) -> None:
        self.room = 1 << 30
        self.client.resume_writing()

    @property
    def correlation_ids(self) -> list[int]:
        found, data = [], b"".join(self.writes)
        while data:
            size, correlation_id = struct.unpack_from(">ii", data)
            found.append(correlation_id)
            data = data[4 + size :]
        return found


class Net:
    """A listener with handlers of the test's making."""

    def __init__(self, **limits: int) -> None:
        self.loop = Loop()
        self.commits = 0
        self.on_commit: list[Callable[[], None]] = []
        self.handled: list[tuple[int, Any]] = []
        self.deferred: list[Deferred[Any]] = []
        self.metrics = Metrics()
        self.answer: Callable[[Any, Any], Any] = lambda context, request: HeartbeatResponse()
        apis = {
            key: Api(key, 0 if key == ApiKey.HEARTBEAT else 1, 13, 0, self._handler(key))
            for key in (ApiKey.PRODUCE, ApiKey.HEARTBEAT, ApiKey.METADATA)
        }
        apis[ApiKey.HEARTBEAT] = Api(ApiKey.HEARTBEAT, 0, 4, 0, self._handler(ApiKey.HEARTBEAT))
        apis[ApiKey.API_VERSIONS] = Api(ApiKey.API_VERSIONS, 0, 4, 0, self._handler(ApiKey.API_VERSIONS))
        services: Any = SimpleNamespace(metrics=self.metrics)
        self.dispatcher = Dispatcher(services, apis, self.loop)  # type: ignore[arg-type]
        self.listener = KafkaListener(
            self.loop,  # type: ignore[arg-type]
            self.commit,
            self.metrics,
            **{"frame_bytes_max": 1 << 20, "connections_max": 10, "idle_ms": 10_000, **limits},
        )

    def _handler(self, key: ApiKey) -> Callable[[Any, Any], Any]:
        def handle(context: Any, request: Any) -> Any:
            self.handled.append((key, context))
            if key == ApiKey.PRODUCE:
                deferred: Deferred[Any] = Deferred()
                self.deferred.append(deferred)
                return deferred
            if key == ApiKey.METADATA:
                return MetadataResponse()
            return self.answer(context, request)

        return handle

    def commit(self) -> None:
        self.commits += 1
        for callback in self.on_commit:
            callback()

    def client(self) -> tuple[Client, Transport]:
        client = Client(self.listener, Entrance(lambda _: self.dispatcher.dispatch))
        transport = Transport(client)
        client.connection_made(transport)  # type: ignore[arg-type]
        return client, transport

    def receive(self, client: Client, data: bytes) -> None:
        while data:
            buffer = client.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            client.buffer_updated(size)
            data = data[size:]

    def deliver(self, client: Client, data: bytes) -> None:
        self.receive(client, data)
        self.loop.turn()

    def resolve(self, count: int) -> None:
        for _ in range(count):
            self.deferred.pop(0).resolve(ProduceResponse())


def request(key: int, version: int, correlation_id: int, body: bytes = b"", client_id: bytes = b"me") -> bytes:
    return frame(struct.pack(">hhih", key, version, correlation_id, len(client_id)) + client_id + body)


def heartbeat(correlation_id: int, client_id: bytes = b"me") -> bytes:
    return request(12, 0, correlation_id, struct.pack(">h", 1) + b"g" + struct.pack(">ih", 1, 1) + b"m", client_id)


def produce(correlation_id: int, padding: int = 0) -> bytes:
    message = ProduceRequest(acks=-1, timeout_ms=1, transactional_id="x" * padding)
    return request(0, 7, correlation_id, b"".join(encode_request(0, 7, message)))


def metadata(correlation_id: int) -> bytes:
    return request(3, 1, correlation_id, b"".join(encode_request(3, 1, MetadataRequest(topics=[]))))


def test_a_chunk_is_one_write() -> None:
    net = Net()
    client, transport = net.client()
    net.deliver(client, heartbeat(1) + heartbeat(2) + heartbeat(3))
    assert len(transport.writes) == 1
    assert transport.correlation_ids == [1, 2, 3]


def test_small_chunks_of_one_turn_share_a_commit_and_large_ones_do_not_wait() -> None:
    net = Net()
    clients = [net.client() for _ in range(3)]
    for client, _ in clients:
        net.receive(client, produce(1))
    assert net.commits == 0
    net.loop.turn()
    assert net.commits == 1
    net.receive(clients[0][0], b"".join(produce(number, padding=20_000) for number in range(4)))
    assert net.commits == 2


def test_acks_of_one_wake_up_leave_in_one_write() -> None:
    net = Net()
    client, transport = net.client()
    net.deliver(client, b"".join(produce(number) for number in range(5)))
    assert transport.writes == []
    net.resolve(5)
    net.loop.turn()
    assert len(transport.writes) == 1
    assert transport.correlation_ids == [0, 1, 2, 3, 4]


def test_acks_that_a_large_chunk_brings_leave_with_it() -> None:
    net = Net()
    client, transport = net.client()
    net.on_commit.append(lambda: net.resolve(len(net.deferred)))
    net.receive(client, b"".join(produce(number, padding=20_000) for number in range(4)))
    assert transport.correlation_ids == [0, 1, 2, 3]


def test_other_requests_wait_for_the_produces_before_them() -> None:
    net = Net()
    client, transport = net.client()
    net.deliver(client, produce(1) + metadata(2) + produce(3))
    assert [key for key, _ in net.handled] == [0]
    assert not transport.reading
    net.resolve(1)
    net.loop.turn()
    assert [key for key, _ in net.handled] == [0, 3, 0]
    assert transport.reading
    net.resolve(1)
    net.loop.turn()
    assert transport.correlation_ids == [1, 2, 3]


def test_a_commit_makes_way_for_the_request_behind_a_produce() -> None:
    net = Net()
    client, transport = net.client()
    net.on_commit.append(lambda: net.resolve(len(net.deferred)))
    net.deliver(client, produce(1) + metadata(2))
    assert transport.correlation_ids == [1, 2]
    assert transport.reading


def test_a_client_that_does_not_read_is_not_read_either() -> None:
    net = Net()
    client, transport = net.client()
    transport.room = 0
    net.deliver(client, heartbeat(1))
    net.deliver(client, heartbeat(2) + heartbeat(3))
    assert len(net.handled) == 1
    assert not transport.reading
    transport.drain()
    net.loop.turn()
    assert transport.correlation_ids == [1, 2, 3]
    assert transport.reading


def test_a_coroutine_answers_later_and_in_order() -> None:
    async def scenario() -> None:
        net = Net()
        gate = asyncio.Event()

        async def slow() -> HeartbeatResponse:
            await gate.wait()
            return HeartbeatResponse(error_code=7)

        client, transport = net.client()
        net.answer = lambda context, request: slow()
        net.deliver(client, heartbeat(1) + metadata(2))
        assert transport.writes == []
        gate.set()
        await net.loop.tasks[0]
        net.loop.turn()
        assert transport.correlation_ids == [1, 2]
        assert net.metrics.errors[12, 7] == 1

    asyncio.run(scenario())


def test_an_unexpected_failure_closes_its_connection_only() -> None:
    net = Net()
    bad, good = net.client(), net.client()
    net.answer = lambda context, request: 1 / 0
    net.deliver(bad[0], metadata(1) + heartbeat(2) + metadata(3))
    assert bad[1].closed
    assert bad[1].correlation_ids == [1]
    net.deliver(good[0], metadata(1))
    assert good[1].correlation_ids == [1]


def test_a_response_that_cannot_be_encoded_closes_its_connection_only() -> None:
    net = Net()
    client, transport = net.client()
    net.deliver(client, produce(1))
    net.deferred.pop().resolve(ProduceResponse(throttle_time_ms="soon"))  # type: ignore[arg-type]
    assert transport.closed


@pytest.mark.parametrize(
    "bad",
    [
        struct.pack(">i", -1),
        struct.pack(">i", (1 << 20) + 1),
        frame(b""),
        frame(b"\0\1"),
        request(99, 0, 1),
        request(12, 9, 1),
        request(3, 0, 1),
        request(12, 0, 1, b"\0\5g"),
        frame(struct.pack(">hhih", 12, 0, 1, 900) + b"abc"),
    ],
)
def test_bad_bytes_close_after_the_answers_before_them(bad: bytes) -> None:
    net = Net()
    client, transport = net.client()
    net.deliver(client, produce(1) + bad)
    net.resolve(1)
    net.loop.turn()
    assert transport.correlation_ids == [1]
    assert transport.closed
    assert net.metrics.connections_closed["bad request"] == 1


def test_the_header_is_known_again_but_never_mistaken() -> None:
    net = Net()
    client, _ = net.client()
    for client_id in (b"a", b"a", b"bb", b"", b"a"):
        net.deliver(client, heartbeat(1, client_id))
    net.deliver(client, frame(heartbeat(1)[4:12] + b"\xff\xff" + heartbeat(1)[16:]))
    assert [context.client_id for _, context in net.handled] == ["a", "a", "bb", "", "a", None]
    assert net.handled[0][1] is net.handled[1][1]
    assert net.handled[0][1].client_host == "192.0.2.1"


def test_an_unknown_version_of_api_versions_is_answered() -> None:
    net = Net()
    client, transport = net.client()
    net.deliver(client, request(18, 99, 5, b"\0"))
    assert struct.unpack(">iihihhh", transport.writes[0]) == (16, 5, 35, 1, 18, 0, 4)
    net.deliver(client, request(18, 99, 6))
    assert transport.closed


def test_connections_are_bounded_and_idle_ones_closed() -> None:
    net = Net(connections_max=1, idle_ms=1000)
    first, second = net.client(), net.client()
    assert second[1].closed
    assert not first[1].closed
    second[0].connection_lost(None)
    assert net.metrics.connections == 1
    for _ in range(IDLE_CHECKS_PER_PERIOD):
        net.listener._check_idle()
    net.deliver(first[0], heartbeat(1))
    for _ in range(IDLE_CHECKS_PER_PERIOD):
        net.listener._check_idle()
    assert not first[1].closed
    net.listener._check_idle()
    assert first[1].closed
    assert net.metrics.connections_closed == {"too many connections": 1, "idle": 1}


def test_who_leaves_is_told_once() -> None:
    net = Net()
    client, _ = net.client()
    told: list[int] = []
    client.close_callbacks.add(lambda: told.append(1))
    client.connection_lost(None)
    assert told == [1]
    assert net.listener.clients == set()


def test_requests_are_counted_and_some_are_timed() -> None:
    net = Net()
    client, _ = net.client()
    for number in range(LATENCY_SAMPLE_EVERY):
        net.deliver(client, heartbeat(number))
    text = net.metrics.exposition().decode()
    assert f'senselog_requests_total{{api="HEARTBEAT"}} {float(LATENCY_SAMPLE_EVERY)}' in text
    assert 'senselog_request_latency_seconds_count{api="HEARTBEAT"} 1.0' in text
    assert "senselog_connections 1.0" in text


def test_log_lines_about_clients_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, object]] = []
    monkeypatch.setattr(
        "broker.bounded_log.logger", SimpleNamespace(warning=lambda event, **fields: lines.append(fields))
    )
    now = [1.0]
    log = BoundedLog(lambda: now[0])
    for _ in range(100):
        log.warning("closed")
    assert len(lines) == LOG_LINES_PER_SECOND
    now[0] = 2.0
    log.warning("closed")
    assert lines[-1] == {"left_out": 100 - LOG_LINES_PER_SECOND}
