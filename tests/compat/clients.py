"""The Python clients behind one small surface, so that every scenario runs with each of them."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import aiokafka
import aiokafka.admin
import confluent_kafka
import confluent_kafka.admin
import kafka
import kafka.admin

TIMEOUT_S = 60


class Sent(NamedTuple):
    """A record as a client sends it and must get it back."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Got(NamedTuple):
    """A record as a client got it."""

    partition: int
    offset: int
    record: Sent


class Member(Protocol):
    """One member of a consumer group, polling in a thread of its own and committing after each poll."""

    got: list[Got]

    def assignment(self) -> set[int]: ...
    def close(self) -> None: ...


class Client(Protocol):
    """What a scenario needs of a client library."""

    name: str
    codecs: Sequence[str]

    def create(self, bootstrap: str, topic: str, partitions: int) -> None: ...
    def produce(
        self, bootstrap: str, topic: str, records: Sequence[Sent], *, codec: str, partition: int
    ) -> list[int]: ...
    def consume(self, bootstrap: str, topic: str, count: int) -> list[Got]: ...
    def member(self, bootstrap: str, topic: str, group: str) -> Member: ...


class _Polling:
    """Runs `step` in a thread until closed; an error of the thread is raised by `close`."""

    def __init__(self, step: Callable[[], None], end: Callable[[], None]) -> None:
        self.got: list[Got] = []
        self.owned: set[int] = set()  # written by the member's thread: the clients are not to be asked from another one
        self._step, self._end = step, end
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="member", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._step()
            self._end()
        except BaseException as error:
            self._error = error

    def assignment(self) -> set[int]:
        if self._error:
            raise self._error
        return self.owned

    def close(self) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_S)
        if self._error:
            raise self._error


class Confluent:
    """confluent-kafka (librdkafka)."""

    name = "confluent-kafka"
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")

    def create(self, bootstrap: str, topic: str, partitions: int) -> None:
        admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": bootstrap})
        for future in admin.create_topics([confluent_kafka.admin.NewTopic(topic, partitions, 1)]).values():
            future.result(TIMEOUT_S)

    def produce(self, bootstrap: str, topic: str, records: Sequence[Sent], *, codec: str, partition: int) -> list[int]:
        producer = confluent_kafka.Producer(
            {"bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": codec, "linger.ms": 20}
        )
        offsets: list[int] = []

        def delivered(error: Any, message: Any) -> None:
            assert error is None, error
            offsets.append(message.offset())

        for record in records:
            producer.produce(
                topic, record.value, record.key, partition, headers=list(record.headers), on_delivery=delivered
            )
        assert producer.flush(TIMEOUT_S) == 0
        return offsets

    def consume(self, bootstrap: str, topic: str, count: int) -> list[Got]:
        consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": f"read-{topic}"})
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, confluent_kafka.OFFSET_BEGINNING)])
        got: list[Got] = []
        deadline = time.monotonic() + TIMEOUT_S
        while len(got) < count and time.monotonic() < deadline:
            got += [self._got(message) for message in consumer.consume(count, 0.5)]
        consumer.close()
        return got

    def member(self, bootstrap: str, topic: str, group: str) -> Member:
        settings = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
        consumer = confluent_kafka.Consumer(settings | {"session.timeout.ms": 10_000, "heartbeat.interval.ms": 500})
        consumer.subscribe([topic])

        def step() -> None:
            polling.owned = {place.partition for place in consumer.assignment()}
            if messages := consumer.consume(100, 0.1):
                polling.got.extend(self._got(message) for message in messages)
                consumer.commit(asynchronous=False)

        polling = _Polling(step, consumer.close)
        polling.start()
        return polling

    @staticmethod
    def _got(message: Any) -> Got:
        assert message.error() is None, message.error()
        return Got(
            message.partition(), message.offset(), Sent(message.key(), message.value(), tuple(message.headers() or ()))
        )


def _records(polled: Any) -> list[Got]:
    """What kafka-python and aiokafka give for one poll: records by partition."""
    return [
        Got(message.partition, message.offset, Sent(message.key, message.value, tuple(message.headers)))
        for messages in polled.values()
        for message in messages
    ]


class KafkaPython:
    """kafka-python."""

    name = "kafka-python"
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")

    def create(self, bootstrap: str, topic: str, partitions: int) -> None:
        admin = kafka.KafkaAdminClient(bootstrap_servers=bootstrap)
        admin.create_topics([kafka.admin.NewTopic(topic, partitions, 1)])
        admin.close()

    def produce(self, bootstrap: str, topic: str, records: Sequence[Sent], *, codec: str, partition: int) -> list[int]:
        producer = kafka.KafkaProducer(
            bootstrap_servers=bootstrap,
            compression_type=None if codec == "none" else codec,
            linger_ms=20,
            enable_idempotence=True,
        )
        futures = [
            producer.send(topic, record.value, record.key, partition=partition, headers=list(record.headers))
            for record in records
        ]
        producer.flush(TIMEOUT_S)
        offsets = [future.get(TIMEOUT_S).offset for future in futures]
        producer.close()
        return offsets

    def consume(self, bootstrap: str, topic: str, count: int) -> list[Got]:
        consumer = kafka.KafkaConsumer(bootstrap_servers=bootstrap)
        place = kafka.TopicPartition(topic, 0)
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        got: list[Got] = []
        deadline = time.monotonic() + TIMEOUT_S
        while len(got) < count and time.monotonic() < deadline:
            got += _records(consumer.poll(500))
        consumer.close()
        return got

    def member(self, bootstrap: str, topic: str, group: str) -> Member:
        consumer = kafka.KafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=10_000,
            heartbeat_interval_ms=500,
        )

        def step() -> None:
            polling.owned = {place.partition for place in consumer.assignment()}
            if got := _records(consumer.poll(100)):
                polling.got.extend(got)
                consumer.commit()

        polling = _Polling(step, consumer.close)
        polling.start()
        return polling


class AioKafka:
    """aiokafka, on an event loop in a thread."""

    name = "aiokafka"
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")

    def create(self, bootstrap: str, topic: str, partitions: int) -> None:
        async def run() -> None:
            admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=bootstrap)
            await admin.start()
            await admin.create_topics([aiokafka.admin.NewTopic(topic, partitions, 1)])
            await admin.close()

        asyncio.run(run())

    def produce(self, bootstrap: str, topic: str, records: Sequence[Sent], *, codec: str, partition: int) -> list[int]:
        async def run() -> list[int]:
            producer = aiokafka.AIOKafkaProducer(
                bootstrap_servers=bootstrap,
                compression_type=None if codec == "none" else codec,
                enable_idempotence=True,
                linger_ms=20,
            )
            await producer.start()
            futures = [
                await producer.send(topic, record.value, record.key, partition, headers=list(record.headers))
                for record in records
            ]
            offsets = [(await future).offset for future in futures]
            await producer.stop()
            return offsets

        return asyncio.run(run())

    def consume(self, bootstrap: str, topic: str, count: int) -> list[Got]:
        async def run() -> list[Got]:
            consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap)
            await consumer.start()
            place = aiokafka.TopicPartition(topic, 0)
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            got: list[Got] = []
            deadline = time.monotonic() + TIMEOUT_S
            while len(got) < count and time.monotonic() < deadline:
                got += _records(await consumer.getmany(timeout_ms=500))
            await consumer.stop()
            return got

        return asyncio.run(run())

    def member(self, bootstrap: str, topic: str, group: str) -> Member:
        loop = asyncio.new_event_loop()
        consumer: Any = None

        async def poll() -> None:
            nonlocal consumer
            if consumer is None:
                consumer = aiokafka.AIOKafkaConsumer(
                    topic,
                    bootstrap_servers=bootstrap,
                    group_id=group,
                    auto_offset_reset="earliest",
                    enable_auto_commit=False,
                    session_timeout_ms=10_000,
                    heartbeat_interval_ms=500,
                )
                await consumer.start()
            polling.owned = {place.partition for place in consumer.assignment()}
            if got := _records(await consumer.getmany(timeout_ms=100)):
                polling.got.extend(got)
                await consumer.commit()

        def end() -> None:
            loop.run_until_complete(consumer.stop())
            loop.close()

        polling = _Polling(lambda: loop.run_until_complete(poll()), end)
        polling.start()
        return polling


CLIENTS: tuple[Client, ...] = (Confluent(), KafkaPython(), AioKafka())
