"""Kafka's own transactional-copier copies a topic exactly once while it and the broker are killed. Needs Kafka's Java tools."""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console

from tests.broker_process import ROOT, BrokerProcess
from tests.crash.reading import check_directory, read_committed

KAFKA = Path(os.environ.get("KAFKA_LAUNCHER", ROOT.parent / "shared" / "kafka" / "kafka"))
TIMEOUT_S = 900
console = Console(stderr=True)


def fill(bootstrap: str, records: int) -> None:
    """The numbers from 0, in order."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic("original", 1, 1), NewTopic("copy", 1, 1)]).values():
        future.result(30)
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    for number in range(records):
        while True:
            try:
                producer.produce("original", b"%d" % number, partition=0)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush(60)


class Copier:
    """The tool, started as often as it dies."""

    def __init__(self, bootstrap: str, directory: Path, transaction_records: int) -> None:
        self._command = [
            str(KAFKA), "transactional-copier", "--broker-list", bootstrap, "--input-topic", "original", "--input-partition", "0",
            "--output-topic", "copy", "--consumer-group", "copiers", "--transactional-id", "copier", "--enable-random-aborts",
            "--transaction-size", str(transaction_records), "--transaction-timeout", "60000", "--use-group-metadata",
        ]  # fmt: skip
        self._output = directory / "copier.log"
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        environment = {"KAFKA_HEAP": "-Xms64m -Xmx256m", **os.environ}
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                self._command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=environment
            )

    def kill(self) -> None:
        """kill -9, the Java process included."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def remaining(self) -> int | None:
        """As the tool last said it."""
        for line in reversed(self._output.read_text(errors="replace").splitlines()[-50:]):
            if line.startswith("{") and '"remaining"' in line:
                return int(json.loads(line)["remaining"])
        return None


def run(broker: BrokerProcess, copier: Copier, chance: random.Random) -> tuple[int, int]:
    """Until the tool has copied everything; how often it and the broker were killed. Raises TimeoutError."""
    copier_kills = broker_kills = 0
    deadline = time.monotonic() + TIMEOUT_S
    copier.start()
    next_kill = time.monotonic() + chance.uniform(3, 8)
    while copier.process.poll() is None or copier.process.returncode:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not copied within {TIMEOUT_S} s, {copier.remaining()} records to go")
        if copier.process.poll() is not None:
            copier.start()  # what the broker's death has done to it
        if time.monotonic() >= next_kill:
            if chance.random() < 0.4:
                broker.kill()
                broker.start()
                broker_kills += 1
            else:
                copier.kill()
                copier.start()
                copier_kills += 1
            next_kill = time.monotonic() + chance.uniform(3, 8)
        time.sleep(0.1)
    return copier_kills, broker_kills


def main() -> int:
    """Exit code 1 when the copy is not the original."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.copier", description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--transaction-records", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args()
    if not KAFKA.exists():
        console.print(f"no Apache Kafka at {KAFKA}: set KAFKA_LAUNCHER")
        return 2
    console.print(f"seed {chosen.seed}")
    directory = Path(tempfile.mkdtemp(prefix="senselog-copier-"))
    broker = BrokerProcess(directory, "group.initial.rebalance.delay.ms=0", "group.min.session.timeout.ms=1000")
    copier = Copier(broker.bootstrap, directory, chosen.transaction_records)
    same = False
    try:
        broker.start()
        fill(broker.bootstrap, chosen.records)
        copier_kills, broker_kills = run(broker, copier, random.Random(chosen.seed))
        copy = read_committed(broker.bootstrap, "copy", 1)[0]
        same = copy == [b"%d" % number for number in range(chosen.records)]
        broker.stop()
        check_directory(broker)
    finally:
        if hasattr(copier, "process"):
            copier.kill()
        broker.end()
        if same:
            shutil.rmtree(directory)
        else:
            console.print(f"data and logs kept in {directory}")
    print(
        f"{len(copy)} of {chosen.records} records copied, {len(copy) - len(set(copy))} doubled, in order: {same}; "
        f"copier killed {copier_kills} times, broker {broker_kills} times"
    )
    return 0 if same else 1


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
