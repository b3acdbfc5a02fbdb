"""Compacted segments in the hands of others: Kafka's dump-log verifies them, three Python clients and the console consumer read on."""

import asyncio
import random
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess

import aiokafka
import confluent_kafka
import kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from broker.app import MAINTENANCE_INTERVAL_S
from tests.broker_process import BrokerProcess

TOPIC, KEYS, ROUNDS, TIMEOUT_S = "table", 200, 40, 60
CONFIGS = {"cleanup.policy": "compact", "segment.bytes": str(1 << 20), "min.cleanable.dirty.ratio": "0.01"}


@pytest.fixture(scope="module")
def compacted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BrokerProcess, dict[int, bytes]]]:
    """A broker with a compacted topic, and the value that each offset was written with. Plain and compressed batches, with holes
    and without records: producers end in the middle, so their last batches are kept empty."""
    broker = BrokerProcess(tmp_path_factory.mktemp("compacted"), "storage.checkpoint.interval.ms=500")
    broker.start()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for future in admin.create_topics([NewTopic(TOPIC, 1, 1, config=CONFIGS)]).values():
        future.result(30)
    written: dict[int, bytes] = {}
    chance = random.Random(1)
    for number in range(ROUNDS):
        codec = ("none", "gzip", "snappy", "lz4", "zstd")[number % 5]
        producer = confluent_kafka.Producer(
            {"bootstrap.servers": broker.bootstrap, "enable.idempotence": True, "compression.type": codec}
        )
        for _ in range(KEYS):
            key, value = b"%d" % int(KEYS * chance.random() ** 3), chance.randbytes(400)
            producer.produce(
                TOPIC,
                key=key,
                value=value,
                on_delivery=lambda _, message: written.update({message.offset(): message.value()}),
            )
        assert producer.flush(30) == 0
    wait_until_compacted(broker)
    yield broker, written
    assert broker.stop() == 0


def wait_until_compacted(broker: BrokerProcess) -> None:
    """Until nothing has been compacted for two rounds of the broker's maintenance, and nothing waits for it: what one test counts,
    the next one must find."""
    names = ("senselog_compactions_total", "senselog_compaction_waiting_partitions")
    deadline = time.monotonic() + TIMEOUT_S
    seen: list[float] = []
    since = time.monotonic()
    while not (seen and seen[0] >= 1 and seen[1] == 0 and time.monotonic() - since > 2 * MAINTENANCE_INTERVAL_S):
        assert time.monotonic() < deadline, f"still compacting: {seen}"
        lines = urllib.request.urlopen(f"http://{broker.http}/metrics").read().decode().splitlines()
        now = [float(line.split()[1]) for name in names for line in lines if line.startswith(f"{name} ")]
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.2)


def dumped(output: str) -> dict[int, tuple[int, int]]:
    """Of each batch of a dump: base offset -> (last offset, records)."""
    found = re.findall(r"^baseOffset: (\d+) lastOffset: (\d+) count: (\d+) .* isvalid: true$", output, re.MULTILINE)
    assert len(found) == output.count("baseOffset: "), output[-2000:]
    return {int(base): (int(last), int(count)) for base, last, count in found}


def test_dump_log_verifies_segments_and_indexes(
    compacted: tuple[BrokerProcess, dict[int, bytes]], kafka_tool: Callable[..., "CompletedProcess[str]"]
) -> None:
    """Every batch is valid, some have holes, some no records; the indexes point at batches."""
    broker, _ = compacted
    directory = broker.data_directory / f"{TOPIC}-0"
    batches: dict[int, tuple[int, int]] = {}
    for file in sorted(directory.glob("*.log")):
        result = kafka_tool("dump-log", "--files", str(file), "--deep-iteration")
        assert result.returncode == 0, result.stderr
        batches |= dumped(result.stdout)
    assert any(count == 0 for _, count in batches.values())
    assert any(0 < count < last - base + 1 for base, (last, count) in batches.items())
    for file in sorted([*directory.glob("*.index"), *directory.glob("*.timeindex")]):
        if file.stat().st_size:
            result = kafka_tool("dump-log", "--files", str(file), "--verify-index-only")
            assert result.returncode == 0, result.stderr
            assert "mismatch" not in result.stdout.lower()
            assert "out of order" not in result.stdout.lower()


def confluent_values(bootstrap: str) -> dict[int, bytes]:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": "c", "enable.partition.eof": True})
    consumer.assign([confluent_kafka.TopicPartition(TOPIC, 0, 0)])
    values: dict[int, bytes] = {}
    while True:
        message = consumer.poll(10)
        assert message is not None, "the consumer is stuck"
        if message.error() is not None:
            consumer.close()
            return values
        values[message.offset()] = message.value()


def kafka_python_values(bootstrap: str) -> dict[int, bytes]:
    consumer = kafka.KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    place = kafka.TopicPartition(TOPIC, 0)
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    end, values = consumer.end_offsets([place])[place], dict[int, bytes]()
    deadline = time.monotonic() + TIMEOUT_S
    while consumer.position(place) < end:
        assert time.monotonic() < deadline, "the consumer is stuck"
        for records in consumer.poll(timeout_ms=1000).values():
            values |= {record.offset: record.value for record in records}
    consumer.close()
    return values


def aiokafka_values(bootstrap: str) -> dict[int, bytes]:
    async def read() -> dict[int, bytes]:
        consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
        await consumer.start()
        place = aiokafka.TopicPartition(TOPIC, 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        end, values = (await consumer.end_offsets([place]))[place], dict[int, bytes]()
        async with asyncio.timeout(TIMEOUT_S):
            while await consumer.position(place) < end:
                for records in (await consumer.getmany(timeout_ms=1000)).values():
                    values |= {record.offset: record.value for record in records}
        await consumer.stop()
        return values

    return asyncio.run(read())


@pytest.mark.parametrize("values", [confluent_values, kafka_python_values, aiokafka_values])
def test_python_clients_read_over_holes_and_empty_batches(
    compacted: tuple[BrokerProcess, dict[int, bytes]], values: Callable[[str], dict[int, bytes]]
) -> None:
    """Every client sees the same records, each as it was written."""
    broker, written = compacted
    found = values(broker.bootstrap)
    assert found.items() <= written.items()
    assert KEYS / 2 < len(found) < len(written) / 2
    assert found == confluent_values(broker.bootstrap)


def test_the_console_consumer_reads_them(
    compacted: tuple[BrokerProcess, dict[int, bytes]], kafka_tool: Callable[..., "CompletedProcess[str]"]
) -> None:
    broker, _ = compacted
    count = len(confluent_values(broker.bootstrap))
    options = (
        "--topic",
        TOPIC,
        "--from-beginning",
        "--timeout-ms",
        "10000",
        "--formatter-property",
        "print.value=false",
    )
    result = kafka_tool("console-consumer", "--bootstrap-server", broker.bootstrap, *options)
    assert f"Processed a total of {count} messages" in result.stdout + result.stderr
