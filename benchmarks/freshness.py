"""Freshness by own offset, second by second, with half of the embedder's capacity in use, over a seal, a merge and a restart.

    python -m benchmarks.freshness [--seconds 60] [--share 0.5]

A log of 79,000 records with vectors of their own is there before: one sealed segment too few for a merge, and a growing one that is
full soon. Then distinct texts arrive at `share` of what the model can embed, a seal comes, with it the merge of all, and later a
restart of the broker (SIGTERM), while probes produce a record and search until exactly that one is found.
"""

import argparse
import itertools
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from senselog_client import SenselogClient

from benchmarks import librdkafka
from benchmarks.brokers import Broker, start_senselog, stop_senselog
from benchmarks.loads import percentile
from benchmarks.search_path import producer, status, wait_indexed
from vector.index.planner import MERGE_MIN

TOPIC = "freshness"
DIMENSIONS = 384
SEALED, GROWING = (MERGE_MIN - 1) * 10_000, 9_000
CAPACITY_TEXTS = 2_000
PROBES = 4
PROBE_PAUSE_S = 0.05
WAIT_MS = 60_000
BAR_MS = 25.0
OVER_RESTARTS = {"reconnect.backoff.max.ms": 100, "log_level": 0}
"""Of producers: back soon, and silent about it."""


@dataclass(slots=True)
class Curve:
    """(second of the ack, ms) of each probe, and what happened when."""

    began_s: float
    seen: list[tuple[float, float]] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)

    def now(self) -> float:
        return time.perf_counter() - self.began_s

    def mark(self, what: str) -> None:
        self.marks.append((self.now(), what))


def text(number: int) -> str:
    """A log line of its own."""
    return (
        f"connection {number} of worker {number * 7919 % 1000} to the database was refused after {number % 60} seconds"
    )


def fill(broker: Broker) -> None:
    """The log that is there before, whose records bring their vectors."""
    random = np.random.default_rng(3)
    centres = random.standard_normal((300, DIMENSIONS))
    send = producer(broker, OVER_RESTARTS)
    for number in range(SEALED + GROWING):
        vector = centres[number % 300] + 0.5 * random.standard_normal(DIMENSIONS)
        header = (vector / np.linalg.norm(vector)).astype("<f4").tobytes()
        send.produce(TOPIC, value=f"old line {number}", headers=[("senselog.vector", header)])
        send.poll(0)
    send.flush()
    wait_indexed(broker, TOPIC, SEALED + GROWING)


def capacity(broker: Broker) -> float:
    """Texts a second that the model embeds, in a topic of its own."""
    topic = f"{TOPIC}-capacity"
    librdkafka.create_topic(broker.bootstrap, topic, 1, **{"vector.enabled": "true"})
    send = producer(broker, OVER_RESTARTS)
    send.produce(topic, value="the first opens the model")
    send.flush()
    wait_indexed(broker, topic, 1)
    began = time.perf_counter()
    for number in range(CAPACITY_TEXTS):
        send.produce(topic, value=text(-1 - number))
        send.poll(0)
    send.flush()
    wait_indexed(broker, topic, 1 + CAPACITY_TEXTS)
    return CAPACITY_TEXTS / (time.perf_counter() - began)


def load(broker: Broker, rate: float, stop: threading.Event) -> None:
    """Distinct texts, evenly."""
    send, began = producer(broker, OVER_RESTARTS), time.perf_counter()
    for number in itertools.count():
        while (ahead := number / rate - (time.perf_counter() - began)) > 0 or stop.is_set():
            if stop.wait(max(0.0, ahead)):
                send.flush(60)
                return
        send.produce(TOPIC, value=text(1_000_000 + number))
        send.poll(0)


def probe(broker: Broker, curve: Curve, place: int, stop: threading.Event) -> None:
    """Records of its own, one after the other, each until it is found."""
    send = producer(broker, OVER_RESTARTS)
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
        for number in itertools.count():
            if stop.wait(PROBE_PAUSE_S):
                return
            acked: list[tuple[int, float]] = []
            line = text(2_000_000 + PROBES * number + place)
            send.produce(TOPIC, value=line, on_delivery=lambda _, m, to=acked: to.append((m.offset(), curve.now())))
            send.flush(60)
            offset, acked_s = acked[0]
            hits: list[int] = []
            while hits != [offset]:
                try:
                    hits = _found(client, line, offset)
                except Exception as error:  # the broker is being started again
                    if curve.now() - acked_s > WAIT_MS / 1e3:
                        raise RuntimeError(f"offset {offset} was not found: {error}") from error
                    time.sleep(0.01)
            curve.seen.append((acked_s, (curve.now() - acked_s) * 1e3))


def _found(client: SenselogClient, line: str, offset: int) -> list[int]:
    options: dict[str, Any] = {"limit": 1, "filter": {"min_offset": offset, "max_offset": offset}, "include": ()}
    result = client.search(TOPIC, line, min_offsets={0: offset + 1}, max_wait_ms=WAIT_MS, timeout_ms=5_000, **options)
    return [hit.offset for hit in result]


def watch(broker: Broker, curve: Curve, stop: threading.Event) -> None:
    """Marks seals and merges."""
    before = -1
    while not stop.wait(0.1):
        try:
            segments = status(broker, TOPIC)["partitions"][0]["segments"]
        except (httpx.HTTPError, KeyError, IndexError):
            continue
        sealed = sum(segment["kind"] == "sealed" for segment in segments)
        if sealed != before and before >= 0 and sealed:
            curve.mark("seal" if sealed > before else "merge")
        before = sealed or before


def run(directory: Path, seconds: int, share: float) -> tuple[Curve, float, float]:
    """The curve, the model's texts a second and the load's."""
    process, broker = start_senselog(directory, ("storage.sync=os",), pin=False)
    stop = threading.Event()
    threads: list[threading.Thread] = []
    try:
        librdkafka.create_topic(broker.bootstrap, TOPIC, 1, **{"vector.enabled": "true"})
        fill(broker)
        most = capacity(broker)
        curve = Curve(time.perf_counter())
        work: list[tuple[Any, ...]] = [(load, broker, share * most, stop), (watch, broker, curve, stop)]
        work += [(probe, broker, curve, place, stop) for place in range(PROBES)]
        threads = [threading.Thread(target=one, args=arguments) for one, *arguments in work]
        for thread in threads:
            thread.start()
        time.sleep(seconds * 2 / 3)
        curve.mark("stop")
        stop_senselog(process)
        process, _ = start_senselog(directory, ("storage.sync=os",), pin=False, places=broker)
        curve.mark("ready again")
        time.sleep(seconds / 3)
        return curve, most, share * most
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        stop_senselog(process)


def lines(curve: Curve) -> list[str]:
    """Second by second: when the record was acked, probes, p50, p99 in ms, and what happened then."""
    by_second: defaultdict[int, list[float]] = defaultdict(list)
    for acked_s, milliseconds in curve.seen:
        by_second[int(acked_s)].append(milliseconds)
    shown = [f"{'second':>6} {'probes':>6} {'p50 ms':>8} {'p99 ms':>8}"]
    for second in range(int(max(max(by_second), curve.marks[-1][0])) + 1):
        seen = by_second.get(second, [])
        figures = f"{statistics.median(seen):8.1f} {percentile(seen, 0.99):8.1f}" if seen else f"{'-':>8} {'-':>8}"
        bar = "█" * min(60, round(max(seen, default=0.0) / BAR_MS))
        marks = ", ".join(f"{what} at {at:.1f}" for at, what in curve.marks if int(at) == second)
        shown.append(f"{second:6} {len(seen):6} {figures} {bar} {marks}".rstrip())
    return shown


def main() -> int:
    """Prints the curve (a bar: 25 ms) and p50, p99 of the whole run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--share", type=float, default=0.5, help="of what the model can embed (default 0.5)")
    chosen = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="senselog-freshness-"))
    try:
        curve, most, rate = run(directory, chosen.seconds, chosen.share)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print("\n".join(lines(curve)))
    all_ms = [milliseconds for _, milliseconds in curve.seen]
    print(
        f"the model embeds {most:.0f} texts/s, the load is {rate:.0f} texts/s and the probes; {len(all_ms)} probes: "
        f"p50 {statistics.median(all_ms):.1f} ms, p99 {percentile(all_ms, 0.99):.1f} ms, max {max(all_ms):.0f} ms"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
