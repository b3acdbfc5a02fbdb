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
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.brokers import Broker, start_senselog, stop_senselog
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
