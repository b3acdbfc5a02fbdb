"""What a consumer of committed records gets, partition by partition, and what a data directory says of itself."""

import subprocess
import sys
import time

import confluent_kafka

from tests.broker_process import ROOT, BrokerProcess

READ_TIMEOUT_S = 120


def read_committed(bootstrap: str, topic: str, partitions: int) -> dict[int, list[bytes]]:
    """The values of the whole topic, in order. Raises TimeoutError, RuntimeError."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "check",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, partition, 0) for partition in range(partitions)])
    values: dict[int, list[bytes]] = {partition: [] for partition in range(partitions)}
    finished: set[int] = set()
    deadline = time.monotonic() + READ_TIMEOUT_S
    try:
        while len(finished) < partitions:
            if time.monotonic() > deadline:
                raise TimeoutError(f"read {topic}: only partitions {sorted(finished)} came to their end")
            for message in consumer.consume(1000, 1):
                if message.error() is None:
                    values[message.partition()].append(message.value())
                elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    finished.add(message.partition())
                else:
                    raise RuntimeError(str(message.error()))
    finally:
        consumer.close()
    return values


def check_directory(broker: BrokerProcess) -> None:
    """`senselog check` finds nothing wrong; raises RuntimeError with what it printed otherwise."""
    command = [sys.executable, "-m", "senselog", "check", str(broker.data_directory)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if checked.returncode:
        raise RuntimeError(f"senselog check: {checked.stdout}{checked.stderr}")
