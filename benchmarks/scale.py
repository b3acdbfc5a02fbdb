"""Thousands of partitions on one broker: Metadata for all of them, what it costs to do nothing, and how long a start after kill -9 takes."""

import contextlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import confluent_kafka
import httpx
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.brokers import Broker, senselog, start_senselog, stop_senselog
from benchmarks.report import Result
from protocol.wire import unsigned_varint

PARTITIONS = 2_000
PARTITIONS_PER_TOPIC = 100
METADATA_REQUESTS = 50
METADATA_VERSION = 12
IDLE_S = 30.0
SETTLE_S = 40.0
"""Until the checkpoint after the last write is over."""
RECORD_BYTES = 200
TABLE_BYTES, TABLE_KEYS = 400_000_000, 100_000
COMPACTION_S = 4.0
RECORDS = 10
"""In each partition."""


def many_partitions(scale: float) -> list[Result]:
    """The three figures, of `PARTITIONS` partitions of which each has records in its log and in the WAL."""
    directory = Path(tempfile.mkdtemp(prefix="senselog-scale-"))
    process: subprocess.Popen[str] | None = None
    try:
        process, broker = start_senselog(directory)
        topics = max(int(PARTITIONS * scale) // PARTITIONS_PER_TOPIC, 1)
        started = time.perf_counter()
        create(broker, topics)
        created_s = time.perf_counter() - started
        fill(broker, topics)
        figures = {"partitions": float(topics * PARTITIONS_PER_TOPIC), "created s": created_s, **metadata(broker)}
        time.sleep(SETTLE_S * min(scale, 1.0))
        figures["idle CPU %"] = idle(broker, IDLE_S * min(scale, 1.0))
        with waiting_consumer(broker, topics):
            figures["idle CPU %, a consumer waits for all"] = idle(broker, IDLE_S * min(scale, 1.0))
        fill(broker, topics)
        process.kill()
        process.wait()
        started = time.perf_counter()
        process, broker = start_senselog(directory)
        figures["start after kill -9 s"] = time.perf_counter() - started
        figures["its CPU s"] = broker.cpu_seconds()
        return [Result("many partitions", "senselog", figures)]
    finally:
        if process is not None:
            stop_senselog(process)
        shutil.rmtree(directory, ignore_errors=True)


def compaction(scale: float) -> list[Result]:
    """The cleaner beside a producer that takes all it can get, and on its own."""
    with senselog(("storage.sync=os", "storage.checkpoint.interval.ms=1000")) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        compacted = {"cleanup.policy": "compact", "segment.bytes": str(32 << 20), "min.cleanable.dirty.ratio": "0.01"}
        for topic in (NewTopic("table", 1, 1, config=compacted), NewTopic("other", 1, 1)):
            for future in admin.create_topics([topic]).values():
                future.result(60)
        seconds = COMPACTION_S * scale
        produce(broker, "other", seconds)
        alone = produce(broker, "other", seconds)
        update(broker, "table", int(TABLE_BYTES * scale))
        wait_for_compaction(broker)
        before, started = compacted_bytes(broker), time.perf_counter()
        beside = produce(broker, "other", seconds)
        between, ended = compacted_bytes(broker), time.perf_counter()
        figures = {
            "produce MB/s": alone,
            "produce MB/s beside compaction": beside,
            "ratio": beside / alone,
            "compaction MB/s beside produce (read + written)": (between - before) / (ended - started) / 1e6,
        }
        time.sleep(seconds / 2)
        left = compacted_bytes(broker) - between
        figures["compaction MB/s alone (read + written)"] = left / (time.perf_counter() - ended) / 1e6
        return [Result("compaction of 1 KB records", "senselog", figures)]


def produce(broker: Broker, topic: str, seconds: float) -> float:
    """MB/s of one producer without keys."""
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5})
    value, count, started = bytes(1000), 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        try:
            for _ in range(100):
                producer.produce(topic, value)
                count += 1
        except BufferError:
            producer.poll(0.01)
        producer.poll(0)
    if producer.flush(60):
        raise RuntimeError("not all records were acknowledged within 60 s")
    return count * len(value) / (time.perf_counter() - started) / 1e6


def update(broker: Broker, topic: str, size: int) -> None:
    """Updates of `TABLE_KEYS` keys, 1 KB each."""
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5})
    for number in range(size // 1000):
        while True:
            try:
                producer.produce(topic, bytes(1000), key=b"%d" % (number * 7919 % TABLE_KEYS))
            except BufferError:
                producer.poll(0.01)
            else:
                break
    if producer.flush(60):
        raise RuntimeError("not all records were acknowledged within 60 s")


def wait_for_compaction(broker: Broker) -> None:
    """Until it has begun."""
    deadline = time.monotonic() + SETTLE_S
    while not compacted_bytes(broker):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no compaction within {SETTLE_S} s")
        time.sleep(0.05)


def compacted_bytes(broker: Broker) -> float:
    """What compaction has read and written so far."""
    text = httpx.get(f"http://{broker.http}/metrics", timeout=10).text
    line = next(line for line in text.splitlines() if line.startswith("senselog_compaction_bytes_total"))
    return float(line.split()[1])


def create(broker: Broker, topics: int) -> None:
    """Topics of `PARTITIONS_PER_TOPIC` partitions, in one request each."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for number in range(topics):
        for future in admin.create_topics([NewTopic(f"many{number}", PARTITIONS_PER_TOPIC, 1)]).values():
            future.result(60)


def fill(broker: Broker, topics: int) -> None:
    """A few records into every partition."""
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 50})
    for _ in range(RECORDS):
        for number in range(topics):
            for partition in range(PARTITIONS_PER_TOPIC):
                producer.produce(f"many{number}", bytes(RECORD_BYTES), partition=partition)
            producer.poll(0)
    if producer.flush(60):
        raise RuntimeError("not all records were acknowledged within 60 s")


def metadata(broker: Broker) -> dict[str, float]:
    """Of Metadata for all topics: the broker's CPU time and the round trip, in ms."""
    header = METADATA_VERSION.to_bytes(2, "big") + bytes(4) + b"\x00\x05bench" + b"\x00"
    # No list of topics (null), no creation, no authorized operations, no tags.
    body = b"\x00\x03" + header + unsigned_varint(0) + b"\x00\x00\x00"
    host, _, port = broker.bootstrap.rpartition(":")
    round_trips_ms = []
    with socket.create_connection((host, int(port))) as connection:
        before = broker.cpu_seconds()
        for _ in range(METADATA_REQUESTS):
            started = time.perf_counter()
            connection.sendall(len(body).to_bytes(4, "big") + body)
            size = int.from_bytes(receive(connection, 4), "big")
            receive(connection, size)
            round_trips_ms.append((time.perf_counter() - started) * 1000)
        cpu_ms = (broker.cpu_seconds() - before) * 1000 / METADATA_REQUESTS
    return {
        "Metadata CPU ms": cpu_ms,
        "Metadata p50 ms": statistics.median(round_trips_ms),
        "Metadata p99 ms": sorted(round_trips_ms)[int(0.99 * METADATA_REQUESTS)],
        "Metadata bytes": float(size),
    }


@contextlib.contextmanager
def waiting_consumer(broker: Broker, topics: int) -> Iterator[None]:
    """One consumer that has read every partition to its end and waits for more."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "bench",
            "enable.auto.commit": False,
            "auto.offset.reset": "latest",
        }
    )
    places = [
        confluent_kafka.TopicPartition(f"many{number}", partition)
        for number in range(topics)
        for partition in range(PARTITIONS_PER_TOPIC)
    ]
    consumer.assign(places)
    consumer.poll(5)
    try:
        yield
    finally:
        consumer.close()


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes."""
    data = bytearray()
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise ConnectionError("the broker closed the connection")
        data += chunk
    return bytes(data)


def idle(broker: Broker, seconds: float) -> float:
    """Percent of a core that the broker takes while nobody asks for anything."""
    before = broker.cpu_seconds()
    time.sleep(seconds)
    return (broker.cpu_seconds() - before) / seconds * 100
