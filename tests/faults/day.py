"""A provider that fails in every way while records arrive, a worker and a broker that are killed: nothing is lost, and what is
poison is listed with its reason. Produce does not notice."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import confluent_kafka
import httpx
import psutil
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType
from senselog_client import SenselogClient

from tests.broker_process import BrokerProcess
from tests.unit.vector.embed.embedding_server import Asked, EmbeddingServer, Fault, running, vector_of

TOPIC = "logs"
PARTITIONS = 3
POISON_EVERY, NAN_EVERY, VECTOR_EVERY, EMPTY_EVERY = 97, 211, 503, 89
TIMEOUT_MS = 500
WAIT_S = 1800
WINDOW = 500
"""Offsets whose records are counted by one search."""


@dataclass
class Outcome:
    """What a day was like. `faults`: calls answered with each of them."""

    records: int
    seconds: float
    produce_seconds: float
    calls: int
    faults: dict[str, int]
    pauses: int
    indexed: int
    skipped: int
    failed: int
    embedded_texts: int = 0


@dataclass
class _Provider:
    """The server's moods. Transient ones come by chance; those that need a person come once each and stay until one comes."""

    chance: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    lasting: list[str] = field(default_factory=lambda: ["401", "quota", "wrong dimensions", "refuses everything"])
    mood: str | None = None
    calls: int = 0
    pause_every: int = 60
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, asked: Asked) -> Fault | None:
        with self.lock:
            self.calls += 1
            if self.mood is None and self.lasting and self.calls % self.pause_every == 0:
                self.mood = self.lasting.pop()
            name = self.mood or self._passing()
            if name is not None:
                self.faults[name] += 1
                return _FAULTS[name]
        if any("poison" in text for text in asked.texts):
            return Fault(400, message="the input is not acceptable")
        return Fault(vectors=_vectors)

    def _passing(self) -> str | None:
        if self.chance.random() > 0.06:
            return None
        return self.chance.choice([name for name in _FAULTS if name not in _LASTING])

    def mend(self) -> None:
        """A person came."""
        with self.lock:
            self.mood = None


_LASTING = ("401", "quota", "wrong dimensions", "refuses everything")
_FAULTS = {
    "429 with Retry-After": Fault(429, headers={"Retry-After": "0.05"}),
    "500": Fault(500),
    "503": Fault(503),
    "slow": Fault(delay_s=1.2 * TIMEOUT_MS / 1000),
    "cut": Fault(cut=True),
    "not JSON": Fault(raw=b"<html>maintenance</html>"),
    "too few vectors": Fault(vectors=lambda texts: [vector_of(text) for text in texts[1:]]),
    "401": Fault(401, message="bad key"),
    "quota": Fault(402, message="no quota left"),
    "wrong dimensions": Fault(vectors=lambda texts: [[1.0, 2.0] for _ in texts]),
    "refuses everything": Fault(400, message="no such option"),
}


def _vectors(texts: list[str]) -> list[list[float]]:
    return [[float("nan")] * 4 if "not a number" in text else vector_of(text) for text in texts]


def record(number: int) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The value and headers of a record; what must become of it is `expected`."""
    if number % EMPTY_EVERY == 5:
        return b"  ", []
    if number % VECTOR_EVERY == 7:
        return b"a record with a bad vector", [("senselog.vector", b"abc")]
    kind = " poison" if number % POISON_EVERY == 3 else " not a number" if number % NAN_EVERY == 11 else ""
    return f"line {number}{kind} of service {number % 17}".encode(), []


def expected(number: int) -> str:
    """indexed, skipped or failed."""
    value, headers = record(number)
    if headers:
        return "failed"
    if not value.strip():
        return "skipped"
    return "failed" if b"poison" in value or b"not a number" in value else "indexed"


class Day:
    """One run; `run` raises AssertionError, or TimeoutError, when something is not as it must be."""

    def __init__(self, directory: Path, *, records: int, seed: int) -> None:
        self._records = records
        self._provider = _Provider(random.Random(seed), pause_every=max(20, records // 400))
        self._pauses = 0
        self._broker = BrokerProcess(directory)

    def run(self) -> Outcome:
        started = time.monotonic()
        with running() as server:
            try:
                self._start(server)
                produced = self._produce_all()
                self._wait_indexed()
                outcome = self._check()
            finally:
                self._broker.end()
        return Outcome(
            records=self._records,
            seconds=round(time.monotonic() - started, 1),
            produce_seconds=round(produced, 1),
            calls=self._provider.calls,
            faults=dict(self._provider.faults),
            pauses=self._pauses,
            **outcome,
        )

    def _start(self, server: EmbeddingServer) -> None:
        settings = {"format": "texts", "url": server.url, "timeout.ms": TIMEOUT_MS, "texts.per.call": 64}
        self._broker.settings = (
            "vector.embedding.model=http:faulty",
            *(f"vector.http.faulty.{name}={value}" for name, value in settings.items()),
        )
        self._broker.start()
        admin = AdminClient({"bootstrap.servers": self._broker.bootstrap})
        new = NewTopic(TOPIC, PARTITIONS, config={"vector.enabled": "true", "retention.ms": "-1"})
        admin.create_topics([new])[TOPIC].result()
        self._until(lambda: self._status()["embedder"] is not None)
        server.script = self._provider

    def _produce_all(self) -> float:
        """Seconds it took. Half way through, the worker is killed; later the broker, which the producer outlives."""
        producer = confluent_kafka.Producer({"bootstrap.servers": self._broker.bootstrap, "enable.idempotence": True})
        refused: list[Any] = []
        started = time.monotonic()
        for number in range(self._records):
            if number == self._records // 2:
                producer.flush(60)
                self._kill_worker()
            if number == self._records * 3 // 4:
                producer.flush(60)
                self._broker.kill()
                self._broker.start()
            value, headers = record(number)
            producer.produce(
                TOPIC,
                value,
                headers=headers,
                partition=number % PARTITIONS,
                on_delivery=lambda error, _: refused.append(error) if error else None,
            )
            producer.poll(0)
            self._help()
        assert producer.flush(60) == 0, "records were not acknowledged"
        assert not refused, f"produce failed: {refused[0]}"
        return time.monotonic() - started

    def _kill_worker(self) -> None:
        for process in self._broker.children():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def _help(self) -> None:
        """What a person does when indexing has paused: mends the provider, and says so."""
        if self._provider.mood is None:
            return
        status = self._status()
        if status["state"] != "paused":
            return
        self._pauses += 1
        assert status["reason"], "a pause says why"
        self._provider.mend()
        for value in ("true", "false"):
            self._configure("vector.paused", value)

    def _configure(self, name: str, value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, TOPIC, incremental_configs=[entry])
        admin = AdminClient({"bootstrap.servers": self._broker.bootstrap})
        for future in admin.incremental_alter_configs([resource]).values():
            future.result()

    def _status(self) -> dict[str, Any]:
        answer = httpx.get(f"http://{self._broker.http}/v1/topics/{TOPIC}/vector", timeout=30)
        answer.raise_for_status()
        status: dict[str, Any] = answer.json()
        for partition in status["partitions"]:
            if partition["indexed_offset"] >= 0:
                done = partition["indexed"] + sum(partition["skipped"].values()) + partition["failed"]
                assert done == partition["indexed_offset"], f"the identity does not hold: {partition}"
        return status

    def _until(self, condition: Any) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not after {WAIT_S} s: {self._status()}")
            time.sleep(0.05)

    def _wait_indexed(self) -> None:
        def done() -> bool:
            self._help()
            partitions = self._status()["partitions"]
            return all(partition["indexed_offset"] == self._end(partition["partition"]) for partition in partitions)

        self._until(done)

    def _end(self, partition: int) -> int:
        return len(range(partition, self._records, PARTITIONS))

    def _check(self) -> dict[str, int]:
        outcomes = Counter(expected(number) for number in range(self._records))
        status = self._status()
        told = {name: sum(row[name] for row in status["partitions"]) for name in ("indexed", "failed")}
        skipped = sum(sum(row["skipped"].values()) for row in status["partitions"])
        assert (told["indexed"], skipped, told["failed"]) == (
            outcomes["indexed"],
            outcomes["skipped"],
            outcomes["failed"],
        )
        failed = [number for number in range(self._records) if expected(number) == "failed"]
        listed = list(self._failures())
        assert sorted(entry["offset"] * PARTITIONS + entry["partition"] for entry in listed) == failed, (
            "told each one, once"
        )
        assert all(entry["reason"] for entry in listed)
        indexed = [number for number in range(self._records) if expected(number) == "indexed"]
        assert sorted(self._searchable()) == indexed, "all but these can be found"
        return {**told, "skipped": skipped, "embedded_texts": status["embedder"]["texts_embedded"]}

    def _failures(self) -> Iterator[dict[str, Any]]:
        """The ordinary topic's records, as any consumer reads them."""
        settings = {"bootstrap.servers": self._broker.bootstrap, "group.id": "reader", "auto.offset.reset": "earliest"}
        consumer = confluent_kafka.Consumer({**settings, "enable.partition.eof": True})
        consumer.assign([confluent_kafka.TopicPartition("__vector_failures", 0, 0)])
        while True:
            message = consumer.poll(10)
            assert message is not None
            if message.error() is not None:
                assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, message.error()
                break
            yield json.loads(message.value())
        consumer.close()

    def _searchable(self) -> Iterator[int]:
        with SenselogClient(bootstrap_servers=self._broker.bootstrap) as client:
            for first in range(0, self._end(0), WINDOW):
                hits = client.search(
                    TOPIC,
                    vector=[1.0, 1.0, 1.0, 1.0],
                    limit=1000,
                    filter={"min_offset": first, "max_offset": first + WINDOW // PARTITIONS - 1},
                    include=(),
                    timeout_ms=30_000,
                )
                yield from (hit.offset * PARTITIONS + hit.partition for hit in hits)
                hits = client.search(
                    TOPIC,
                    vector=[1.0, 1.0, 1.0, 1.0],
                    limit=1000,
                    filter={"min_offset": first + WINDOW // PARTITIONS, "max_offset": first + WINDOW - 1},
                    include=(),
                    timeout_ms=30_000,
                )
                yield from (hit.offset * PARTITIONS + hit.partition for hit in hits)
