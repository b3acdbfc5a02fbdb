"""The short way of a usual Produce against the long way: the same bytes in, the same answers and logs out."""

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.dispatch import Dispatcher
from broker.metrics import LATENCY_SAMPLE_EVERY
from broker.net import Client, Entrance, KafkaListener
from broker.registry import load_handlers
from broker.usual_produce import ANSWERS_MAX, UsualProduce, usual_produces
from protocol.api_keys import ApiKey
from protocol.codec import encode_request
from protocol.compression import Compression
from protocol.fast_produce import FLEXIBLE_VERSIONS
from protocol.messages import ProduceRequest
from storage.errors import StorageFailure
from tests.integration.raw import frame
from tests.unit.broker.core import Core, batch
from tests.unit.broker.test_net import Loop, Transport

TOPICS: dict[str, dict[str, str]] = {
    "plain": {},
    "stamped": {"message.timestamp.type": "LogAppendTime"},
    "compact": {"cleanup.policy": "compact"},
    "small": {"max.message.bytes": "80"},
    "recompressed": {"compression.type": "gzip"},
    "timely": {"message.timestamp.after.max.ms": "1000", "message.timestamp.before.max.ms": "1000"},
    "ageless": {"message.timestamp.after.max.ms": str(2**63 - 1), "message.timestamp.before.max.ms": str(2**63 - 1)},
    "__consumer_offsets": {},
}
IDS = {name: bytes([number + 1]) * 16 for number, name in enumerate([*TOPICS, "nowhere"])}
NOW_MS = 1_700_000_000_000
Request = tuple[int, bytes]


class World:
    """A broker with one client; `short`: with the short way."""

    def __init__(self, *, short: bool) -> None:
        self.core = core = Core()
        core.machine.clock.now_ms = NOW_MS
        for name, configs in TOPICS.items():
            core.topics.create(name, 2, configs, topic_id=IDS[name])
        self.loop = Loop()
        self.taken = 0
        shortcuts = {version: self._counted(take) for version, take in usual_produces(core.services).items()}
        dispatcher = Dispatcher(core.services, load_handlers(), self.loop, shortcuts if short else {})  # type: ignore[arg-type]
        self.entrance = Entrance(lambda _: dispatcher.dispatch)
        self.listener = KafkaListener(
            self.loop,  # type: ignore[arg-type]
            core.logs.commit,
            core.services.metrics,
            frame_bytes_max=1 << 20,
            connections_max=10,
            idle_ms=10_000,
        )
        self.connect()

    def _counted(self, take: Callable[..., bool]) -> Callable[..., bool]:
        def counted(*arguments: Any) -> bool:
            taken = take(*arguments)
            self.taken += taken
            return taken

        return counted

    def connect(self) -> None:
        self.client = Client(self.listener, self.entrance)
        self.transport = Transport(self.client)
        self.client.connection_made(self.transport)  # type: ignore[arg-type]

    def deliver(self, data: bytes, size: int = 1 << 16) -> None:
        for start in range(0, len(data), size):
            chunk = data[start : start + size]
            self.client.get_buffer(-1)[: len(chunk)] = chunk
            self.client.buffer_updated(len(chunk))

    def settle(self) -> None:
        self.loop.turn()
        self.core.settle()
        self.loop.turn()

    @property
    def seen(self) -> Any:
        """What the client and readers see."""
        logs = [log for topic in self.core.topics for log in topic.partitions]
        stored = [
            b"".join(log.read(0, 1 << 20, up_to=log.high_watermark, at_least_one=True).buffers)
            for log in sorted(logs, key=lambda log: (log.topic, log.partition))
        ]
        return b"".join(self.transport.writes), self.transport.closed, stored, self.core.services.metrics.errors


def produce(
    records: bytes | None, *, version: int = 9, topic: str = "plain", correlation_id: int = 1, partition: int = 0,
    acks: int = -1, client_id: bytes | None = b"me", transactional_id: str | None = None, partitions: int = 1,
) -> bytes:  # fmt: skip
    name: dict[str, Any] = {"topic_id": IDS[topic]} if version >= 13 else {"name": topic}
    rows = [
        ProduceRequest.PartitionProduceData(index=partition + extra, records=records)  # type: ignore[arg-type]
        for extra in range(partitions)
    ]
    request = ProduceRequest(
        acks=acks,
        timeout_ms=1000,
        transactional_id=transactional_id,
        topic_data=[ProduceRequest.TopicProduceData(**name, partition_data=rows)],
    )
    head = struct.pack(">hhih", 0, version, correlation_id, -1 if client_id is None else len(client_id))
    return frame(head + (client_id or b"") + b"\0" + b"".join(encode_request(ApiKey.PRODUCE, version, request)))


def often(usual: Any, unusual: list[Any]) -> st.SearchStrategy[Any]:
    """Mostly what is usual: one oddity at a time is the interesting case."""
    return st.integers(0, 3).flatmap(lambda chance: st.sampled_from(unusual) if not chance else st.just(usual))


@st.composite
def batches(draw: st.DrawFn) -> bytes | None:
    producer_id = draw(often(-1, [5, 6]))
    fields: dict[str, Any] = {
        "codec": draw(often(Compression.NONE, list(Compression))),
        "attributes": draw(often(0, [0x08, 0x10, 0x20, 0x40, 5, -1])),
        "base_offset": draw(often(0, [1])),
        "producer_id": producer_id,
        "producer_epoch": draw(often(0, [1])) if producer_id >= 0 else -1,
        "base_sequence": draw(st.sampled_from([0, 0, 1, 2, -1])) if producer_id >= 0 else -1,
    }
    values = [b"v" * draw(st.integers(0, 40))] * draw(st.sampled_from([1, 2, 3, 9]))
    timestamp_ms = NOW_MS + draw(often(0, [-2000, 2000, 4_000_000]))
    data = bytearray(batch(*values, timestamp_ms=timestamp_ms, key=draw(often(None, [b"k"])), **fields))
    if not draw(st.integers(0, 3)):
        data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    if not draw(st.integers(0, 9)):
        return draw(st.sampled_from([None, b"", bytes(data[:-1]), bytes(data) * 2]))
    return bytes(data)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    version = draw(st.sampled_from([*FLEXIBLE_VERSIONS, 8]))
    data = bytearray(
        produce(
            draw(batches()),
            version=version,
            topic=draw(often("plain", list(IDS))),
            correlation_id=draw(st.integers(0, 1 << 31 - 1)),
            partition=draw(often(0, [1, 2, -1])),
            acks=draw(often(-1, [0, 1, 2])),
            client_id=draw(often(b"me", [b"", b"x" * 300, None])),
            transactional_id=draw(often(None, ["t"])),
            partitions=draw(often(1, [0, 2])),
        )
        if version > 8
        else produce_unflexible(draw(batches()))
    )
    if not draw(st.integers(0, 5)):
        # Anything but the size and the key: the bytes of the header and of the body's frame matter most.
        data[draw(st.integers(6, min(len(data) - 1, 60)))] ^= 1 << draw(st.integers(0, 7))
    return draw(st.sampled_from([1 << 16, 50])), bytes(data)


def produce_unflexible(records: bytes | None) -> bytes:
    rows = [ProduceRequest.PartitionProduceData(index=0, records=records)]  # type: ignore[arg-type]
    topics = [ProduceRequest.TopicProduceData(name="plain", partition_data=rows)]
    body = b"".join(encode_request(ApiKey.PRODUCE, 8, ProduceRequest(acks=1, timeout_ms=1, topic_data=topics)))
    return frame(struct.pack(">hhih", 0, 8, 1, 2) + b"me" + body)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rounds=st.lists(
        st.tuples(st.sampled_from([0, 0, 1500, 5_000_000]), st.lists(requests(), min_size=1, max_size=4)),
        min_size=1,
        max_size=4,
    ),
    changed=st.booleans(),
)
def test_both_ways_answer_and_store_the_same(rounds: list[tuple[int, list[Request]]], changed: bool) -> None:
    worlds = World(short=True), World(short=False)
    for number, (passed_ms, requests_at_once) in enumerate(rounds):
        for world in worlds:
            world.core.machine.clock.now_ms += passed_ms
            for size, data in requests_at_once:
                world.deliver(data, size)
            if changed and not number:
                world.core.topics.set_configs("plain", {"message.timestamp.type": "LogAppendTime"})
            world.settle()
        assert worlds[0].seen == worlds[1].seen
        for world in worlds:
            if world.transport.closed:
                world.connect()


@pytest.fixture
def world() -> World:
    return World(short=True)


@pytest.mark.parametrize("version", FLEXIBLE_VERSIONS)
@pytest.mark.parametrize("records", [batch(b"v"), batch(*[b"v" * 100] * 200), batch(b"v", codec=Compression.ZSTD)])
def test_what_clients_send_takes_the_short_way(world: World, version: int, records: bytes) -> None:
    for _ in range(3):
        world.deliver(produce(records, version=version))
    world.settle()
    assert world.taken == 3
    assert len(world.transport.correlation_ids) == 3


def test_a_reading_of_the_clock_from_long_ago_costs_one_request_the_short_way(world: World) -> None:
    clock = world.core.machine.clock
    clock.now_ms += 24 * 3_600_000
    for _ in range(3):
        world.deliver(produce(batch(b"v", timestamp_ms=clock.now_ms)))
        world.settle()
    assert world.taken == 2
    assert len(world.transport.correlation_ids) == 3


def test_a_clock_that_was_set_back_is_believed(world: World) -> None:
    """Once the latency of one request has been taken."""
    clock = world.core.machine.clock
    clock.now_ms += 4_000_000
    early = produce(batch(b"v", timestamp_ms=clock.now_ms))
    for _ in range(2):
        world.deliver(early)
        world.settle()
    clock.now_ms -= 4_000_000
    for _ in range(LATENCY_SAMPLE_EVERY):
        world.deliver(produce(batch(b"v")))
        world.settle()
    taken = world.taken
    world.deliver(early)
    assert world.taken == taken == 1 + LATENCY_SAMPLE_EVERY


def test_a_client_of_several_topics_takes_the_short_way_with_each(world: World) -> None:
    for topic in ["plain", "stamped", "plain", "plain", "stamped"]:
        world.deliver(produce(batch(b"v"), topic=topic))
    world.settle()
    assert world.taken == 5


def test_acks_wait_for_the_sync_and_for_one_another(world: World) -> None:
    world.deliver(b"".join(produce(batch(b"v"), correlation_id=number) for number in range(ANSWERS_MAX + 2)))
    world.loop.turn()
    assert world.transport.writes == []
    world.settle()
    assert world.transport.correlation_ids == [*range(ANSWERS_MAX + 2)]
    assert len(world.transport.writes) == 1


def test_a_repeated_batch_is_answered_once_the_first_is_durable(world: World) -> None:
    data = produce(batch(b"v", producer_id=5, producer_epoch=0, base_sequence=0))
    world.deliver(data + data)
    world.loop.turn()
    assert world.transport.writes == []
    world.settle()
    world.deliver(data)
    world.loop.turn()
    assert world.taken == 3
    assert len(world.transport.correlation_ids) == 3
    assert world.core.topics.log("plain", 0).log_end_offset == 1


def test_a_failing_disk_fails_every_batch_that_waits() -> None:
    worlds = World(short=True), World(short=False)
    for world in worlds:
        world.deliver(produce(batch(b"v")) + produce(batch(b"w"), acks=0) + produce(batch(b"x"), partition=1))
        world.core.logs._wal.fail(StorageFailure("broken"))
        world.loop.turn()
        assert len(world.transport.correlation_ids) == 2
    assert worlds[0].seen == worlds[1].seen


def test_a_topic_created_again_gets_its_own_batches(world: World) -> None:
    world.deliver(produce(batch(b"old")))
    world.settle()
    world.core.topics.delete("plain")
    world.deliver(produce(batch(b"nowhere")))
    fresh = world.core.topics.create("plain", 2, {})
    world.deliver(produce(batch(b"new")))
    world.settle()
    assert world.taken == 2
    assert fresh.partitions[0].high_watermark == 1


@pytest.mark.parametrize("version", FLEXIBLE_VERSIONS)
def test_a_request_of_several_partitions_is_not_decoded_twice(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Java's client sends such requests all the time: they go to the handler without being read for the short way."""
    world = World(short=True)
    usual = UsualProduce(world.core.services, version)
    data = memoryview(bytearray(produce(batch(b"v"), version=version, partitions=2)))[4:]

    def learn(*_: object) -> None:
        raise AssertionError("decoded for nothing")

    monkeypatch.setattr(usual, "_learn", learn)
    assert not usual.take(data, 1, world.client, None)


def test_targets_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.usual_produce.TARGETS_MAX", 3)
    usual = UsualProduce(world.core.services, 9)
    for number in range(10):
        data = bytearray(produce(batch(b"v"), client_id=b"client %d" % number))
        assert usual.take(memoryview(data)[4:], 1, world.client, None)
        assert len(usual._targets) <= 3


LARGE = b"v" * 1000
"""More than `broker.record_checks` walks: the header alone decides."""


def odd(data: bytes, position: int, value: int) -> bytes:
    """The batch with one byte of its header changed, outside of what the CRC covers."""
    return data[:position] + bytes([value]) + data[position + 1 :]


@pytest.mark.parametrize(
    ("topic", "records"),
    [
        pytest.param("small", batch(LARGE), id="larger than max.message.bytes"),
        pytest.param("compact", batch(LARGE), id="no key in a compacted topic"),
        pytest.param("recompressed", batch(LARGE), id="to be compressed"),
        pytest.param("timely", batch(LARGE, timestamp_ms=NOW_MS - 2000), id="too old"),
        pytest.param("timely", batch(LARGE, timestamp_ms=NOW_MS + 2000), id="too new"),
        pytest.param("ageless", batch(LARGE, timestamp_ms=-(2**63)), id="older than any limit"),
        pytest.param("plain", odd(batch(LARGE), 16, 1), id="magic 1"),
        pytest.param("plain", odd(batch(LARGE), 7, 1), id="a base offset"),
        pytest.param("plain", odd(batch(LARGE), 20, 0xFF), id="a wrong CRC"),
        pytest.param("plain", batch(LARGE, attributes=0x10), id="transactional"),
        pytest.param("plain", batch(LARGE, attributes=0x20), id="control"),
        pytest.param("plain", batch(LARGE, producer_id=5, base_sequence=-1), id="no sequence"),
        pytest.param("__consumer_offsets", batch(LARGE), id="the broker's own topic"),
        pytest.param("nowhere", batch(LARGE), id="no topic"),
    ],
)
def test_what_is_not_usual_is_left_to_the_long_way(topic: str, records: bytes) -> None:
    """Not taken, and answered as the long way does; after a usual request of the same prefix, too."""
    worlds = World(short=True), World(short=False)
    for world in worlds:
        world.deliver(produce(batch(b"v"), topic=topic))
        world.settle()
    taken = worlds[0].taken
    for world in worlds:
        world.deliver(produce(records, topic=topic))
        world.settle()
    assert worlds[0].taken == taken
    assert worlds[0].seen == worlds[1].seen
