"""kill -9 while compacting under load: of every key the newest acked record is there, at its offset, and what is left keeps its order."""

import argparse
import contextlib
import itertools
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import confluent_kafka
from rich.progress import track

from tests.crash.__main__ import PARTITIONS, Node, check_directory, console, create, read, timed_start

TOPIC = "table"
KEYS = 300
VALUE_BYTES = 600
CONFIGS = {
    "cleanup.policy": "compact",
    "segment.bytes": str(1 << 20),
    "min.cleanable.dirty.ratio": "0.01",
}
PRODUCER = {
    "enable.idempotence": True,
    "linger.ms": 2,
    "message.timeout.ms": 300_000,
    "reconnect.backoff.max.ms": 200,
    "retry.backoff.ms": 50,
    "queue.buffering.max.messages": 2_000,
    "log_level": 0,
}


@dataclass(slots=True)
class Table:
    """What was acked: value by (partition, offset), and the newest number by (partition, key)."""

    acked: dict[tuple[int, int], bytes] = field(default_factory=dict)
    newest: dict[tuple[int, int], int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.refused.append(str(error))
            return
        key, number = parsed(message.value())
        self.acked[message.partition(), message.offset()] = message.value()
        place = message.partition(), key
        self.newest[place] = max(self.newest.get(place, -1), number)

    def problems(self, log: dict[int, list[tuple[int, bytes]]], newest: dict[tuple[int, int], int]) -> list[str]:
        """What is wrong with a whole read that began when `newest` had been acked."""
        found = []
        for partition, records in log.items():
            last_offset, numbers = -1, dict[int, int]()
            for offset, value in records:
                key, number = parsed(value)
                if offset <= last_offset:
                    found.append(f"partition {partition}: offset {offset} follows {last_offset}")
                if self.acked.get((partition, offset), value) != value:
                    found.append(f"partition {partition}: offset {offset} was acked with another value")
                if number <= numbers.get(key, -1):
                    found.append(f"partition {partition}: key {key} goes from {numbers[key]} back to {number}")
                last_offset, numbers[key] = offset, number
            for (place, key), number in newest.items():
                if place == partition and numbers.get(key, -1) < number:
                    found.append(f"partition {partition}: key {key} was acked as {number}, is {numbers.get(key)}")
        return found


def parsed(value: bytes) -> tuple[int, int]:
    """Key and number."""
    key, number, _ = value.split(b":", 2)
    return int(key), int(number)


@contextlib.contextmanager
def updates(node: Node, table: Table) -> Iterator[None]:
    """An idempotent producer of updates that goes on over every restart of the broker; ends when the block does."""
    stop = threading.Event()

    def run() -> None:
        producer = confluent_kafka.Producer({"bootstrap.servers": node.bootstrap, **PRODUCER})
        chance = random.Random(1)
        for number in itertools.count():
            if stop.is_set():
                break
            key = int(KEYS * chance.random() ** 2)
            value = b"%d:%d:" % (key, number) + bytes(VALUE_BYTES)
            with contextlib.suppress(BufferError):
                producer.produce(
                    TOPIC, key=b"%d" % key, value=value, partition=number % PARTITIONS, on_delivery=table.delivered
                )
            producer.poll(0.001 if number % 5 == 0 else 0)
        producer.flush(60)

    thread = threading.Thread(target=run, name="updates")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def main() -> int:
    """Runs the rounds; exit code 1 and the problems when one fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.compaction", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--sync", default="always", choices=["always", "interval", "os"])
    chosen = parser.parse_args()
    console.print(f"seed {chosen.seed}, storage.sync={chosen.sync}")
    chance = random.Random(chosen.seed)
    directory = Path(tempfile.mkdtemp(prefix="senselog-compaction-"))
    node = Node(directory, f"storage.sync={chosen.sync}", "storage.checkpoint.interval.ms=500")
    table, problems, left, staged = Table(), list[str](), 0, 0
    try:
        node.start()
        create(node, TOPIC, **CONFIGS)
        with updates(node, table):
            for number in track(range(chosen.rounds), description="kill -9", console=console):
                # Maintenance, which begins compactions, comes every 5 s.
                time.sleep(5 + chance.uniform(0, 1.5))
                node.kill()
                staged += len([*node.data_directory.glob("*/*.cleaned")]) > 0
                timed_start(node)
                newest = dict(table.newest)
                problems += [f"round {number}: {text}" for text in table.problems(read(node, TOPIC), newest)]
                if problems:
                    break
        log = read(node, TOPIC)
        left = sum(map(len, log.values()))
        problems += [f"at the end: {text}" for text in table.problems(log, table.newest)]
        problems += [f"refused: {text}" for text in table.refused]
        if left > len(table.acked) / 2:
            problems.append(f"nothing to speak of was compacted: {left} of {len(table.acked)} records are left")
        node.stop()
        check_directory(node)
    finally:
        if node.process is not None and node.process.poll() is None:
            node.kill()
        if problems:
            console.print(f"data kept in {directory}")
        else:
            shutil.rmtree(directory)
    for problem in problems[:20]:
        console.print(f"[red]{problem}[/red]")
    print(
        f"{chosen.rounds} rounds, {len(table.acked)} records acked, {left} left, {len(problems)} problems; "
        f"killed {staged} times with a compaction unfinished"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
