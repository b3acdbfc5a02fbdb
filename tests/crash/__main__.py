"""kill -9 under load: nothing acked is lost, doubled or reordered, and search comes back without embedding sealed segments again."""

import argparse
import contextlib
import itertools
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import httpx
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console
from rich.progress import track

from tests.broker_process import BrokerProcess
from tests.crash.history import History
from tests.crash.reading import check_directory

PARTITIONS = 3
INDEX_TIMEOUT_S = 300
DISTINCT_TEXTS = 12_000  # more than one growing segment holds, so that a sealed one exists
QUERIES = (
    "connection refused by the database",
    "disk is full",
    "user logged in",
    "job 77 finished",
    "certificate expired",
)
console = Console(stderr=True)


class Node(BrokerProcess):
    """The broker under test, and what is asked of it over HTTP."""

    def status(self, topic: str) -> dict[str, Any]:
        """The vector status of a topic."""
        answer = httpx.get(f"http://{self.http}/v1/topics/{topic}/vector", timeout=30)
        answer.raise_for_status()
        return dict(answer.json())

    def search(self, topic: str, query: str) -> list[tuple[int, int]]:
        """The places of the ten best hits, after everything produced so far was indexed."""
        body = {"query": query, "k": 10, "consistency": {"level": "latest", "wait_ms": 30_000}, "timeout_ms": 60_000}
        deadline = time.monotonic() + INDEX_TIMEOUT_S
        while True:
            answer = httpx.post(f"http://{self.http}/v1/topics/{topic}/search", json=body, timeout=90)
            if answer.status_code == 200:
                return [(hit["partition"], hit["offset"]) for hit in answer.json()["results"]]
            if not answer.json()["error"]["retriable"] or time.monotonic() > deadline:
                raise RuntimeError(f"search answered {answer.status_code}: {answer.text}")
            time.sleep(0.05)


def timed_start(node: Node) -> float:
    """Starts the broker; the seconds until it was ready."""
    started = time.monotonic()
    node.start()
    return time.monotonic() - started


def create(node: Node, topic: str, **configs: str) -> None:
    """Creates a topic of three partitions."""
    admin = AdminClient({"bootstrap.servers": node.bootstrap})
    for future in admin.create_topics([NewTopic(topic, PARTITIONS, 1, config=configs)]).values():
        future.result(30)


def read(node: Node, topic: str) -> dict[int, list[tuple[int, bytes]]]:
    """The whole topic, in order."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": node.bootstrap,
            "group.id": "check",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    log: dict[int, list[tuple[int, bytes]]] = {partition: [] for partition in range(PARTITIONS)}
    consumer.assign([confluent_kafka.TopicPartition(topic, partition, 0) for partition in log])
    finished: set[int] = set()
    deadline = time.monotonic() + 120
    while len(finished) < PARTITIONS:
        if time.monotonic() > deadline:
            raise TimeoutError(f"read {topic}: only partitions {sorted(finished)} came to their end")
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error():
            if message.error().code() != confluent_kafka.KafkaError._PARTITION_EOF:
                raise RuntimeError(str(message.error()))
            finished.add(message.partition())
        else:
            log[message.partition()].append((message.offset(), message.value()))
    consumer.close()
    return log


@contextlib.contextmanager
def load(node: Node, topic: str, history: History) -> Iterator[threading.Event]:
    """An idempotent producer that goes on over every restart of the broker; ends when the block does."""
    stop = threading.Event()
    numbers = [itertools.count() for _ in range(PARTITIONS)]

    def delivered(error: Any, message: Any) -> None:
        if error is not None:
            history.refused.append(str(error))
        else:
            history.acked[message.partition(), message.offset()] = message.value()

    def run() -> None:
        settings = {
            "bootstrap.servers": node.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 2,
            "message.timeout.ms": 300_000,
        }
        settings |= {
            "reconnect.backoff.max.ms": 200,
            "retry.backoff.ms": 50,
            "queue.buffering.max.messages": 2_000,
            "log_level": 0,
        }
        producer = confluent_kafka.Producer(settings)
        while not stop.is_set():
            for partition, number in enumerate(numbers):
                with contextlib.suppress(BufferError):
                    value = f"{partition}:{next(number)}"
                    producer.produce(topic, value=value, partition=partition, on_delivery=delivered)
            producer.poll(0.002)
        producer.flush(60)

    thread = threading.Thread(target=run, name="load")
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()


def fill_searchable(node: Node, topic: str) -> None:
    """Distinct texts, enough for a sealed segment, all indexed."""
    producer = confluent_kafka.Producer({"bootstrap.servers": node.bootstrap, "enable.idempotence": True})
    for number in range(DISTINCT_TEXTS):
        text = f"{QUERIES[number % len(QUERIES)]} number {number} on host {number * 7919 % 997}"
        producer.produce(topic, value=text, partition=0)
        producer.poll(0)
    producer.flush(60)
    deadline = time.monotonic() + INDEX_TIMEOUT_S
    while time.monotonic() < deadline:
        partitions = node.status(topic)["partitions"]
        if sum(partition["indexed_offset"] for partition in partitions) >= DISTINCT_TEXTS:
            return
        time.sleep(0.2)
    raise TimeoutError(f"{topic} was not indexed within {INDEX_TIMEOUT_S} s")


def main() -> int:
    """Runs the rounds; exit code 1 and the problems when one fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--sync", default="always", choices=["always", "interval", "os"])
    chosen = parser.parse_args()
    console.print(f"seed {chosen.seed}, storage.sync={chosen.sync}")
    chance = random.Random(chosen.seed)
    directory = Path(tempfile.mkdtemp(prefix="senselog-crash-"))
    node, history = Node(directory, f"storage.sync={chosen.sync}"), History()
    problems: list[str] = []
    starts: list[float] = []
    embedded: list[int] = []
    try:
        node.start()
        create(node, "load")
        create(node, "found", **{"vector.enabled": "true", "vector.embedding.model": "hashing"})
        fill_searchable(node, "found")
        expected = {query: node.search("found", query) for query in QUERIES}
        with load(node, "load", history):
            for round_number in track(range(chosen.rounds), description="kill -9", console=console):
                time.sleep(chance.uniform(0.2, 1.5))
                node.kill()
                starts.append(timed_start(node))
                problems += [f"round {round_number}: {text}" for text in history_after(node, history)]
                for query in QUERIES[:2]:
                    if (hits := node.search("found", query)) != expected[query]:
                        problems.append(
                            f"round {round_number}: search for {query!r} gave {hits}, before {expected[query]}"
                        )
                embedded.append(int(node.status("found")["embedder"]["texts_embedded"]))
                if problems:
                    break
        problems += [f"at the end: {text}" for text in history.problems(read(node, "load"))]
        problems += [f"refused: {text}" for text in history.refused]
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
        f"{chosen.rounds} rounds, {len(history.acked)} records acked, {len(problems)} problems; start after kill -9 "
        f"{max(starts):.2f} s at most; texts embedded after a restart: {max(embedded)} of {DISTINCT_TEXTS} at most"
    )
    if max(embedded) > DISTINCT_TEXTS // 4:
        console.print("[red]sealed segments were embedded again[/red]")
        return 1
    return 1 if problems else 0


def history_after(node: Node, history: History) -> list[str]:
    """What is wrong with the log, read while the load goes on; only what was acked before the read began must be in it."""
    before = History(acked=dict(history.acked))
    return before.problems(read(node, "load"))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
