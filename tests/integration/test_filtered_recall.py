"""Recall@10 of every kind of filter at every selectivity through a broker: while records arrive, after it, after DeleteRecords and after
compaction. What `benchmarks/filtered_recall.py` measures of indexes alone, here over the wire, with graphs made small."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import httpx
import numpy as np
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from senselog_client import SenselogClient
from senselog_client.result import Hit

from benchmarks.filtered_recall import NAMES, NEIGHBOURS, RECALL_MIN, START_MS, Log, Measured, scattered
from tests.broker_process import BrokerProcess
from tests.crash import marks
from tests.crash.reading import read_committed
from vector.filter.record_fields import VECTOR_HEADER
from vector.index.scoring import stored_form
from vector.index.settings import IndexSettings

RECORDS, DIMENSIONS, QUERIES = 4000, 16, 2
PRODUCE_S = 4.0
"""For so long records arrive, and searches look at what is there."""
TIMEOUT_S = 120
CONFIGS = {
    "vector.enabled": "true",
    "vector.embedding.model": "none",
    "vector.dimensions": str(DIMENSIONS),
    "cleanup.policy": "compact,delete",
    "retention.ms": "-1",
    "segment.ms": "1000",
    "min.cleanable.dirty.ratio": "0.01",
}


class KeyedLog(Log):
    """A log whose records have keys of their own, so that compaction can remove one and not the other."""

    keys_repeat = False

    def fields(self, number: int) -> dict[str, Any]:
        fields = super().fields(number)
        return {**fields, "key": fields["key"] + b":%d" % number}


class BrokerTopic:
    """A log in a topic of a broker; the counterpart of the benchmark's `Topic`."""

    def __init__(self, log: Log, broker: BrokerProcess, client: SenselogClient, name: str, policy: str) -> None:
        self.log, self.name = log, name
        self.alive = np.zeros(len(log.contents), dtype=bool)
        self._broker, self._client = broker, client
        self._admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        self._stored = stored_form(log.rows, IndexSettings(DIMENSIONS))
        self._indexed = np.zeros(len(NAMES), dtype=np.int64)
        """How far each partition was when it was searched last."""
        new = NewTopic(name, len(NAMES), config={**CONFIGS, "cleanup.policy": policy})
        self._admin.create_topics([new])[name].result()

    def produce(self, seconds: float) -> None:
        """All records, spread over this time."""
        producer = confluent_kafka.Producer(
            {"bootstrap.servers": self._broker.bootstrap, "enable.idempotence": True, "linger.ms": 5}
        )
        started = time.monotonic()
        for number in range(len(self.alive)):
            fields = self.log.fields(number)
            vector = self.log.rows[self.log.contents[number]].astype("<f4").tobytes()
            headers = [*fields["headers"], (VECTOR_HEADER, vector)]
            partition = int(self.log.partitions[number])
            producer.produce(
                self.name, fields["value"], fields["key"], partition, timestamp=START_MS + number, headers=headers
            )
            if number % 50 == 0:
                producer.flush(60)
                time.sleep(max(0.0, seconds * number / len(self.alive) - (time.monotonic() - started)))
        assert producer.flush(60) == 0

    def expire(self) -> None:
        """The older half of every partition is deleted."""
        until = []
        for partition in range(len(NAMES)):
            mine = np.flatnonzero(self.alive & (self.log.partitions == partition))
            start = len(mine) // 2
            self.alive[mine[:start]] = False
            until.append(confluent_kafka.TopicPartition(self.name, partition, int(self.log.offsets[mine[start]])))
        for future in self._admin.delete_records(until).values():
            future.result()

    def compact(self) -> None:
        """Of what is there, tombstones remove a half, scattered; returns when the log has no more of it."""
        gone = np.flatnonzero(self.alive & (scattered(len(self.alive), 3266489917) < 0.5))
        self.alive[gone] = False
        producer = confluent_kafka.Producer({"bootstrap.servers": self._broker.bootstrap})
        for number in gone.tolist():
            producer.produce(self.name, None, self.log.fields(number)["key"], int(self.log.partitions[number]))
        assert producer.flush(60) == 0
        end = time.monotonic() + TIMEOUT_S
        while True:
            values = read_committed(self._broker.bootstrap, self.name, len(NAMES)).values()
            if sum(value is not None for of_partition in values for value in of_partition) == self.alive.sum():
                return
            assert time.monotonic() < end, "the log was not compacted"
            for partition in range(len(NAMES)):  # which closes the segment before: only closed ones are compacted
                producer.produce(self.name, None, b"nobody's", partition)
            assert producer.flush(60) == 0
            time.sleep(0.5)

    def search(self, vector: np.ndarray, wanted: dict[str, Any]) -> list[Hit]:
        """The best of all partitions, as far as they are indexed."""
        result = self._client.search(
            self.name, vector=vector.tolist(), filter=wanted, limit=NEIGHBOURS, include=(), timeout_ms=30_000
        )
        for state in result.freshness:
            self._indexed[state.partition] = state.indexed_offset
        return list(result)

    def truth(self, vector: np.ndarray, matching: np.ndarray) -> np.ndarray:
        """Similarities of the nearest matching records, best first, by an exact scan."""
        there = matching & self.alive & (self.log.offsets < self._indexed[self.log.partitions])
        scores = self._stored[self.log.contents[there]].astype(np.float32) @ (vector / np.linalg.norm(vector))
        return -np.sort(-scores)[:NEIGHBOURS]

    def wait(self) -> None:
        """Until everything is indexed."""
        self._client.search(self.name, vector=[1.0] * DIMENSIONS, latest=True, max_wait_ms=60_000, timeout_ms=30_000)


def states(topic: BrokerTopic, *, keyed: bool) -> Iterator[str]:
    topic.alive[:] = True
    arriving = threading.Thread(target=topic.produce, args=(PRODUCE_S,))
    arriving.start()
    topic.wait()
    while arriving.is_alive():
        yield "while indexing"
    arriving.join()
    topic.wait()
    yield "complete"
    topic.expire()
    yield "half expired"
    if keyed:
        topic.compact()
        yield "compacted"  # whether or not the index has looked for what is gone


def graph_searches(broker: BrokerProcess, topic: str) -> int:
    """How often a graph was asked."""
    status = httpx.get(f"http://{broker.http}/v1/topics/{topic}/vector", timeout=30).json()
    return sum(partition["searches"]["graph"] for partition in status["partitions"])


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path, "storage.checkpoint.interval.ms=500")
    paths = [str(marks.FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
    process.environment = {marks.VARIABLE: str(tmp_path), "PYTHONPATH": os.pathsep.join(paths)}
    process.start()
    yield process
    process.end()


@pytest.mark.slow
@pytest.mark.parametrize(("duplicates", "keyed"), [(0.0, False), (0.8, True)])
def test_filters_through_a_broker_find_the_nearest_in_every_state_of_a_log(
    broker: BrokerProcess, duplicates: float, keyed: bool
) -> None:
    """recall@10 >= 0.98, returned = min(limit, matches), and never a record that does not match or is no more."""
    log = (KeyedLog if keyed else Log)(RECORDS, DIMENSIONS, duplicates, 7)
    random = np.random.default_rng(8)
    near = log.rows[random.integers(0, len(log.rows), QUERIES)]
    queries = near + np.float32(0.5 / np.sqrt(DIMENSIONS)) * random.standard_normal(near.shape).astype(np.float32)
    measured = Measured()
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
        topic = BrokerTopic(log, broker, client, "logs", "compact,delete" if keyed else "delete")
        for state in states(topic, keyed=keyed):
            measured.look(state, topic, queries)
        walked = graph_searches(broker, "logs")
    bad = {
        place: cell for place, cell in measured.cells.items() if cell.recall < RECALL_MIN or cell.short or cell.wrong
    }
    assert not bad
    assert {state for state, _, _ in measured.cells} >= {"complete", "half expired", *(["compacted"] if keyed else [])}
    assert walked, "this is not the recall of exact scans alone"
