"""Quotas without sockets, and what the dispatcher does with them."""

import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.dispatch import Dispatcher
from broker.net import Client, Entrance, KafkaListener
from broker.registry import load_handlers
from broker.security.quotas import (
    CLIENT_ID,
    CONNECTION_CREATION_RATE,
    CONSUMER_BYTE_RATE,
    IP,
    PRODUCER_BYTE_RATE,
    USER,
    Bucket,
    Quotas,
    entity_of,
)
from broker.usual_produce import usual_produces
from protocol.api_keys import ApiKey
from protocol.codec import decode_response, encode_request
from protocol.headers import decode_response_header, encode_request_header
from protocol.messages import CreateTopicsRequest, FetchResponse, MetadataRequest
from tests.integration.raw import batch, fetch_request, frame, produce_request
from tests.unit.broker.core import Core
from tests.unit.broker.security.test_authentication import TimedLoop
from tests.unit.broker.test_net import Transport

BURST_S = 11


@given(
    st.floats(0.1, 1e9),
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e10)), min_size=1, max_size=40),
)
def test_who_waits_as_told_never_exceeds_the_rate(rate: float, uses: list[tuple[float, float]]) -> None:
    """Whatever a client does and however long it pauses: beyond the burst, all it did took as long as its rate allows."""
    bucket, now, used = Bucket(rate, BURST_S, 0.0), 0.0, 0.0
    for pause_s, units in uses:
        now += pause_s
        used += units
        now += bucket.take(units, now)
        assert used <= rate * (now + BURST_S) * (1 + 1e-9) + 1e-6


NAMES: list[dict[str, str | None]] = [
    {USER: "alice", CLIENT_ID: "app"},
    {USER: "alice", CLIENT_ID: None},
    {USER: "alice"},
    {USER: None, CLIENT_ID: "app"},
    {USER: None, CLIENT_ID: None},
    {USER: None},
    {CLIENT_ID: "app"},
    {CLIENT_ID: None},
]


@given(st.sets(st.sampled_from(range(len(NAMES)))))
def test_the_most_specific_quota_holds(which: set[int]) -> None:
    """Kafka's order of precedence, for every subset of what can be set."""
    quotas = Quotas([(entity_of(NAMES[i]), {PRODUCER_BYTE_RATE: i + 1.0}) for i in which], BURST_S)
    expected = (min(which) + 1) * BURST_S if which else float("inf")
    assert quotas.window_units(PRODUCER_BYTE_RATE, "alice", "app") == expected
    assert quotas.window_units(CONSUMER_BYTE_RATE, "alice", "app") == float("inf")


def test_a_default_holds_for_each_by_itself() -> None:
    """Users under the default do not share it; the connections of one user do."""
    quotas = Quotas([(entity_of({USER: None}), {PRODUCER_BYTE_RATE: 10.0})], 1.0)
    assert quotas.take(PRODUCER_BYTE_RATE, "alice", "one", 30, 0.0) == pytest.approx(2.0)
    assert quotas.take(PRODUCER_BYTE_RATE, "alice", "two", 0, 0.0) == pytest.approx(2.0)
    assert quotas.take(PRODUCER_BYTE_RATE, "bob", "one", 10, 0.0) == 0


class World:
    """One client of a broker with quotas, over a clock moved by hand."""

    def __init__(self, **quotas: float) -> None:
        self.core = core = Core()
        core.topics.create("t", 1, {})
        self.loop = TimedLoop()
        core.services.clock = SimpleNamespace(
            monotonic=lambda: self.loop.now, time_ms=lambda: core.machine.clock.time_ms()
        )
        core.services.security.quotas.replace([(entity_of({USER: None}), quotas)] if quotas else [])
        self.dispatcher = Dispatcher(
            core.services,
            load_handlers(),
            self.loop,
            usual_produces(core.services),
            core.services.security.quotas,  # type: ignore[arg-type]
        )
        self.listener = KafkaListener(
            self.loop,  # type: ignore[arg-type]
            core.logs.commit,
            core.services.metrics,
            frame_bytes_max=1 << 24,
            connections_max=10,
            idle_ms=10_000_000,
        )
        self.client = Client(self.listener, Entrance(lambda _: self.dispatcher.dispatch))
        self.transport = Transport(self.client)
        self.client.connection_made(self.transport)  # type: ignore[arg-type]
        self.seen = 0

    def send(self, key: ApiKey, version: int, request: Any) -> None:
        header = encode_request_header(key, version, 7, "test")
        data = frame(b"".join([header, *encode_request(key, version, request)]))
        while data:
            buffer = self.client.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self.client.buffer_updated(size)
            data = data[size:]
        self.settle()

    def settle(self) -> None:
        self.loop.turn()
        self.core.settle()
        self.loop.turn()

    def answer(self, key: ApiKey, version: int) -> Any:
        written = b"".join(self.transport.writes)[self.seen :]
        if not written:
            return None
        (size,) = struct.unpack_from(">i", written)
        self.seen += 4 + size
        data = memoryview(written[4 : 4 + size])
        _, position = decode_response_header(key, version, data)
        return decode_response(key, version, data, position)

    def ask(self, key: ApiKey, version: int, request: Any) -> Any:
        self.send(key, version, request)
        return self.answer(key, version)

    def heard(self) -> bool:
        """Whether another request is answered now."""
        return self.ask(ApiKey.METADATA, 9, MetadataRequest(topics=[])) is not None


def test_a_producer_over_its_rate_is_told_at_once_and_not_heard_meanwhile() -> None:
    """KIP-219; the record is in the log, and after the time the next request is answered."""
    world = World(producer_byte_rate=1000.0)
    answer = world.ask(ApiKey.PRODUCE, 9, produce_request("t", batch(b"x" * 21_000)))
    assert answer.responses[0].partition_responses[0].error_code == 0
    assert 10_000 <= answer.throttle_time_ms <= 10_300
    assert not world.heard()
    world.loop.pass_time(9.5)
    assert world.answer(ApiKey.METADATA, 9) is None
    world.loop.pass_time(1.0)
    assert world.answer(ApiKey.METADATA, 9) is not None
    assert world.core.services.metrics.throttled == 1


def test_acks_0_waits_too_though_it_is_told_nothing() -> None:
    """There is no response to carry the time."""
    world = World(producer_byte_rate=1000.0)
    assert world.ask(ApiKey.PRODUCE, 9, produce_request("t", batch(b"x" * 21_000), acks=0)) is None
    assert not world.heard()
    world.loop.pass_time(11)
    assert world.answer(ApiKey.METADATA, 9) is not None


def test_a_consumer_over_its_rate_gets_nothing_until_it_may() -> None:
    """Responses that fit the windows come whole; then an empty one, and what was not sent is not counted."""
    world = World(consumer_byte_rate=1000.0)
    world.ask(ApiKey.PRODUCE, 9, produce_request("t", batch(b"x" * 9_000)))
    first = world.ask(ApiKey.FETCH, 12, fetch_request("t", 0))
    assert first.throttle_time_ms == 0
    assert first.responses
    second: FetchResponse = world.ask(ApiKey.FETCH, 12, fetch_request("t", 0))
    assert second.throttle_time_ms > 0
    assert second.responses == []
    world.loop.pass_time(second.throttle_time_ms / 1000)
    assert world.ask(ApiKey.FETCH, 12, fetch_request("t", 0)).responses


def test_partitions_beyond_the_mutation_rate_are_refused_and_old_clients_wait() -> None:
    """KIP-599: from the version on that knows the error."""
    world = World(controller_mutation_rate=1.0)

    def create(name: str, version: int) -> Any:
        topic = CreateTopicsRequest.CreatableTopic(name=name, num_partitions=13, replication_factor=1)
        return world.ask(ApiKey.CREATE_TOPICS, version, CreateTopicsRequest(topics=[topic], timeout_ms=1000))

    assert create("a", 7).topics[0].error_code == 0
    world.loop.pass_time(1.9)
    assert world.answer(ApiKey.CREATE_TOPICS, 7) is None
    world.loop.now -= 1.9  # within the time, on another connection of the user
    world.client._stopped = 0
    refused = create("b", 7)
    assert (refused.topics[0].error_code, refused.throttle_time_ms > 0) == (89, True)
    world.client._stopped = 0
    patient = create("c", 5)
    assert (patient.topics[0].error_code, patient.throttle_time_ms > 10_000) == (0, True)


def test_requests_over_their_share_of_time_wait_a_second_at_most() -> None:
    """`request_percentage` of one core; Kafka's limit is its window."""
    world = World(request_percentage=1.0)
    slow: Callable[[], float] = world.core.services.clock.monotonic
    ticks = iter(range(10_000))
    world.core.services.clock.monotonic = lambda: slow() + next(ticks) * 0.5
    for _ in range(40):
        world.client._stopped = 0
        answer = world.ask(ApiKey.METADATA, 9, MetadataRequest(topics=[]))
    assert answer.throttle_time_ms == 1000


def test_connections_of_an_address_come_no_faster_than_allowed() -> None:
    """KIP-612; addresses do not share."""
    quotas = Quotas([(entity_of({IP: None}), {CONNECTION_CREATION_RATE: 2.0})], 1.0)
    assert [quotas.connection_wait_s("a", 0.0) for _ in range(4)] == [0, 0, 0.5, 1.0]
    assert quotas.connection_wait_s("b", 0.0) == 0


def test_without_quotas_nothing_is_measured() -> None:
    """Not even a bucket is made, and usual produces take their short way."""
    world = World()
    world.ask(ApiKey.PRODUCE, 9, produce_request("t", batch(b"x")))
    assert not world.core.services.security.quotas.active
    assert not world.core.services.security.quotas._buckets
