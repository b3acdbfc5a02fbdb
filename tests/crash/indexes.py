"""kill -9 in every step of an index's life, lost folders and flipped bits in between: never a wrong hit, none missing, all accounted for.

A worker with small segments seals, merges, rebuilds, uploads to an object store and cuts over to new generations while records
arrive, are compacted and deleted. One of two workers is killed, or all and the broker, or the broker alone, in a step that is waited for.
"""

import argparse
import contextlib
import functools
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import confluent_kafka
import httpx
import numpy as np
import psutil
from confluent_kafka.admin import AdminClient
from rich.progress import track

from tests.broker_process import ROOT
from tests.crash import marks
from tests.crash.__main__ import PARTITIONS, Node, check_directory, console, create, read
from vector.arrays import Float32
from vector.embed.hashing import HashingEmbedder

KEPT, TABLE = "kept", "table"
"""Of one nothing is ever deleted; the other is compacted, and its beginning deleted."""
KEYS = 400
PER_S = 200
"""Records that arrive; with more of them a builder would do nothing but seal."""
STEPS = ("seal", "merge", "manifest", "upload", "cut-over")
WORKERS_MAX = 2
WHOM = ("all", "worker", "broker", "worker")
"""Who is killed, round by round."""
DAMAGES = ("bit flipped", "index lost", None, "bit of an object flipped", "folder lost")
STEP_WAIT_S = 8.0
SETTLE_S = 120
WINDOW = 900
"""Offsets whose records one search must give, of at most 1,000."""
TOLERANCE = 2e-3
"""Vectors are stored in 16 bits."""
WORDS = ("disk", "login", "timeout", "memory", "payment", "cache", "socket", "queue", "certificate", "job")


@dataclass(slots=True)
class Load:
    """A producer that goes on over every restart, and can be made to wait."""

    bootstrap: str
    acked: int = 0
    refused: list[str] = field(default_factory=list)
    running: threading.Event = field(default_factory=threading.Event)
    idle: threading.Event = field(default_factory=threading.Event)
    stopped: bool = False
    number: int = 0

    def run(self) -> None:
        settings = {"enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": 300_000, "log_level": 0}
        settings |= {"reconnect.backoff.max.ms": 200, "retry.backoff.ms": 50}
        producer = confluent_kafka.Producer({"bootstrap.servers": self.bootstrap, **settings})
        chance = random.Random(3)
        while not self.stopped:
            if not self.running.is_set():
                producer.flush(60)
                self.idle.set()
                self.running.wait(0.1)
                continue
            self.number += 1
            text = (
                f"{chance.choice(WORDS)} {chance.choice(WORDS)} {chance.choice(WORDS)} number {self.number * 9 // 10}"
            )
            topic, key = (KEPT, b"") if self.number % 2 else (TABLE, b"%d" % chance.randrange(KEYS))
            partition = chance.randrange(PARTITIONS)
            producer.produce(topic, text, key=key, partition=partition, on_delivery=self._delivered)
            producer.poll(0)
            time.sleep(1 / PER_S)
        producer.flush(60)

    def _delivered(self, error: Any, _: Any) -> None:
        if error is None:
            self.acked += 1
        else:
            self.refused.append(str(error))

    def pause(self) -> None:
        """Returns when everything has been answered."""
        self.idle.clear()
        self.running.clear()
        if not self.idle.wait(120):
            raise TimeoutError("the producer does not come to rest")


class Run:
    """One run: rounds of load, kill, damage and verification."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.node = Node(
            directory,
            f"storage.objects.url=file://{directory}/objects",
            "vector.embedding.model=hashing:32",
            "storage.checkpoint.interval.ms=500",
        )
        self._marks = directory / "marks"
        self._marks.mkdir()
        paths = [str(marks.FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.node.environment = {marks.VARIABLE: str(self._marks), "PYTHONPATH": os.pathsep.join(paths)}
        self.load = Load(self.node.bootstrap)
        self.killed: Counter[str] = Counter()
        self.damaged: Counter[str] = Counter()
        self.generations: set[int] = set()
        self.embedded_most = 0
        self.problems: list[str] = []
        self._sealed = 0
        """Records of the kept topic in sealed segments, when it was verified last."""
        self._model = "hashing:32"
        self._workers = 1

    def start(self) -> None:
        """A broker with both topics, some of which is indexed."""
        self._start(1)
        create(self.node, KEPT, **{"vector.enabled": "true", "retention.ms": "-1", "vector.text.index": "false"})
        compacted = {"cleanup.policy": "compact,delete", "retention.ms": "-1", "min.cleanable.dirty.ratio": "0.01"}
        compacted |= {"vector.embedding.model": "hashing:16", "segment.ms": "2000"}
        create(self.node, TABLE, **{"vector.enabled": "true", **compacted})
        threading.Thread(target=self.load.run, name="load", daemon=True).start()
        self.load.running.set()
        self._until(lambda: self.load.acked > 1500)

    def _start(self, workers: int) -> None:
        """Among so many the partitions are dealt out anew."""
        self._workers = workers
        others = [setting for setting in self.node.settings if not setting.startswith("vector.workers=")]
        self.node.settings = (*others, f"vector.workers={workers}")
        self.node.start()

    def round(self, number: int) -> None:
        """Whatever is wrong afterwards is in `problems`."""
        step = STEPS[number % len(STEPS)]
        if step == "cut-over":  # which waits behind all other work
            self._reembed()
        else:
            self.load.running.set()
        whom = WHOM[number % len(WHOM)]
        died_in = self._kill(step, whom)
        self.killed.update(died_in or ["between steps"])
        damage = self._damage(DAMAGES[number // len(WHOM) % len(DAMAGES)]) if whom == "all" else None
        if whom != "worker":
            self._start(1 + self.chance.randrange(WORKERS_MAX))
        self.load.pause()
        found = self._verify(counted=damage is None and (whom != "worker" or self._workers == 1))
        told = f"round {number}, {whom} killed in {died_in}, {damage or 'no damage'}"
        self.problems += [f"{told}: {text}" for text in found]
        self._delete_some()

    def _kill(self, step: str, whom: str) -> list[str]:
        """When a worker is in the step; the steps that those were in who were killed, or lost their broker."""
        end = time.monotonic() + STEP_WAIT_S
        workers: list[psutil.Process] = self._until(self.node.children)
        while not (there := [one for one in workers if step in self._steps(one)]) and time.monotonic() < end:
            time.sleep(0.0005)
        if step not in ("manifest", "cut-over"):  # which are over at once
            time.sleep(self.chance.uniform(0, 0.005))
        chosen = self.chance.choice(there or workers)
        if whom == "broker":  # its workers end by themselves, while the next one starts already
            died_in = {step for worker in workers for step in self._steps(worker)}
            self.node.kill_alone()
            return sorted(died_in)
        killed = [chosen, *(one for one in workers if one is not chosen)] if whom == "all" else [chosen]
        for worker in killed:
            worker.kill()
        if whom == "all":
            self.node.kill()
        psutil.wait_procs(killed, timeout=10)
        return sorted({step for worker in killed for step in self._steps(worker)})

    def _steps(self, worker: psutil.Process) -> list[str]:
        return marks.steps_of(self._marks, worker.pid)

    def _reembed(self) -> None:
        """A generation of another model, or the same once more; one may be on its way already."""
        model = "hashing:24" if self._model == "hashing:32" else "hashing:32"
        with contextlib.suppress(httpx.HTTPError):
            url = f"http://{self.node.http}/v1/topics/{KEPT}/vector/reembed"
            httpx.post(url, json={"model": model}, timeout=30)

    def _damage(self, what: str | None) -> str | None:
        """What a disk may do while nobody looks; an index that is restored from the store may be damaged itself."""
        index, objects = self.node.data_directory / "vector", self.node.directory / "objects"
        root = objects if what == "bit of an object flipped" else index
        chosen = self.chance.choice([path for path in sorted(root.rglob("*")) if path.is_file()])
        if what in ("bit flipped", "bit of an object flipped"):
            _flip(chosen, self.chance)
        if what in ("index lost", "bit of an object flipped"):
            shutil.rmtree(index)
        elif what == "folder lost":
            shutil.rmtree(chosen.parent)
        if what is None:
            return None
        self.damaged[what] += 1
        return f"{what}: {chosen.relative_to(self.node.directory)}"

    def _delete_some(self) -> None:
        """The beginning of one partition of the table."""
        partition = self.chance.randrange(PARTITIONS)
        quiet = {"bootstrap.servers": self.node.bootstrap, "log_level": 0}
        admin, consumer = AdminClient(quiet), confluent_kafka.Consumer({**quiet, "group.id": "ends"})
        low, high = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(TABLE, partition), timeout=30)
        consumer.close()
        until = confluent_kafka.TopicPartition(TABLE, partition, low + (high - low) // 4)
        for future in admin.delete_records([until]).values():
            future.result(30)

    # What must hold

    def _verify(self, *, counted: bool) -> list[str]:
        """`counted`: all workers are new, and none of them has had to make good what a disk has lost."""
        found = self._wrong_hits(KEPT) + self._wrong_hits(TABLE)
        status = self._identity(found)
        self.generations.add(status["generation"])
        embedded, total = status["embedder"]["texts_embedded"], status["indexed"]
        if counted and status["model"] == self._model and not status["generations"]["building"]:
            self.embedded_most = max(self.embedded_most, embedded)
            if embedded > total - self._sealed:
                found.append(f"{embedded} texts embedded again: {self._sealed} of {total} records had been sealed")
        self._model = status["model"]
        segments = [one for partition in status["partitions"] for one in partition["segments"]]
        self._sealed = sum(one["records"] for one in segments if one["kind"] == "sealed")
        return found

    def _identity(self, found: list[str]) -> dict[str, Any]:
        """Of the kept topic, whose every record is in its log."""
        status = self.node.status(KEPT)
        for one in status["partitions"]:
            done = one["indexed"] + sum(one["skipped"].values()) + one["failed"]
            if done != one["indexed_offset"]:
                found.append(f"partition {one['partition']}: {done} records of {one['indexed_offset']} accounted for")
        return status

    def _wrong_hits(self, topic: str) -> list[str]:
        """All records of the log are found, and no others; the best of all are the best by another reckoning too."""
        before = _places(read(self.node, topic))
        hits = {place: value for window in self._windows(before) for place, value in self._search(topic, window)}
        best = [self._best(topic, query, exact) for query in self.chance.sample(WORDS, 3) for exact in (True, False)]
        after = _places(read(self.node, topic))
        found = [f"{topic}: {place} is no record, or another one" for place in hits if before.get(place) != hits[place]]
        found += [f"{topic}: {place} is not found" for place in after if place not in hits]
        for query, answer in best:
            found += [f"{topic}, {query!r}: {text}" for text in _not_best(query, answer, before, after)]
        return found

    def _windows(self, records: dict[tuple[int, int], str]) -> list[dict[str, Any]]:
        ends = Counter(dict.fromkeys(range(PARTITIONS), 0))
        for partition, offset in records:
            ends[partition] = max(ends[partition], offset + 1)
        return [
            {"partition": partition, "offset": {"gte": start, "lt": start + WINDOW}}
            for partition, end in ends.items()
            for start in range(0, end, WINDOW)
        ]

    def _search(self, topic: str, window: dict[str, Any]) -> list[tuple[tuple[int, int], str]]:
        answer = self._ask(topic, {"query": "disk", "k": 1000, "filter": window})
        return [((hit["partition"], hit["offset"]), hit["value"]) for hit in answer["results"]]

    def _best(self, topic: str, query: str, exact: bool) -> tuple[str, dict[str, Any]]:
        return query, self._ask(topic, {"query": query, "k": 10, "exact": exact})

    def _ask(self, topic: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer, once everything is indexed."""
        body |= {"consistency": {"level": "latest", "wait_ms": 30_000}, "timeout_ms": 60_000}
        end = time.monotonic() + SETTLE_S
        while True:
            answer = httpx.post(f"http://{self.node.http}/v1/topics/{topic}/search", json=body, timeout=100)
            if answer.status_code == 200:
                return dict(answer.json())
            if not answer.json()["error"]["retriable"] or time.monotonic() > end:
                raise RuntimeError(f"search answered {answer.status_code}: {answer.text}")
            time.sleep(0.05)

    def _until(self, look: Callable[[], Any]) -> Any:
        end = time.monotonic() + SETTLE_S
        while not (found := look()):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {SETTLE_S} s")
            time.sleep(0.02)
        return found

    def finish(self) -> None:
        """Stops everything; the directory is in order."""
        self.load.stopped = True
        self.problems += [f"refused: {text}" for text in self.load.refused]
        self.node.stop()
        check_directory(self.node)

    def end(self) -> None:
        """Whatever has happened, nothing goes on."""
        self.load.stopped = True
        if self.node.process is not None and self.node.process.poll() is None:
            self.node.kill()

    def summary(self) -> str:
        """For people."""
        steps = ", ".join(
            f"{step} {self.killed[step]}" for step in (*marks.STEPS, "between steps") if self.killed[step]
        )
        damage = ", ".join(f"{what} {count}" for what, count in self.damaged.items()) or "no damage"
        return (
            f"{self.load.acked} records acked, killed within {steps}; {damage}; generation {max(self.generations)} at the end; "
            f"{len(self.problems)} problems; texts embedded after an undamaged restart: {self.embedded_most} at most"
        )


def _flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)


def _places(log: dict[int, list[tuple[int, bytes]]]) -> dict[tuple[int, int], str]:
    return {(partition, offset): value.decode() for partition, records in log.items() for offset, value in records}


@functools.cache
def _vector(text: str, dimensions: int) -> Float32:
    """float32[dimensions]."""
    vector: Float32 = HashingEmbedder("hashing", dimensions).embed([text], "passage")[0]
    return vector


def _not_best(
    query: str, answer: dict[str, Any], before: dict[tuple[int, int], str], after: dict[tuple[int, int], str]
) -> list[str]:
    """What is wrong with the ten best: each similarity is what its text has, and none that is left out is nearer."""
    vectors = np.array([_vector(text, answer["model"]["dimensions"]) for text in (query, *before.values())])
    similarity = dict(zip(before, (vectors[1:] @ vectors[0]).tolist(), strict=True))
    hits = [((hit["partition"], hit["offset"]), hit["score"]) for hit in answer["results"]]
    found = [f"{place} is no record" for place, _ in hits if place not in before]
    found += [
        f"{place} has {score}, not {similarity[place]}"
        for place, score in hits
        if place in similarity and abs(similarity[place] - score) > TOLERANCE
    ]
    nearest = np.sort([similarity[place] for place in after])[::-1][:10]
    if len(hits) < len(nearest):
        found.append(f"{len(hits)} hits of {len(nearest)}")
    elif len(hits) and hits[-1][1] < nearest[-1] - TOLERANCE:
        found.append(f"the last of ten has {hits[-1][1]}, that of all {nearest[-1]}")
    return found


def main() -> int:
    """Runs the rounds; exit code 1 and the problems when one fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.indexes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args()
    console.print(f"seed {chosen.seed}")
    directory = Path(tempfile.mkdtemp(prefix="senselog-indexes-"))
    run = Run(directory, chosen.seed)
    try:
        run.start()
        for number in track(range(chosen.rounds), description="kill -9 in an index", console=console):
            run.round(number)
            if run.problems:
                break
        run.finish()
    finally:
        run.end()
        if run.problems or sys.exc_info()[0]:
            console.print(f"data kept in {directory}")
        else:
            shutil.rmtree(directory)
    for problem in run.problems[:20]:
        console.print(f"[red]{problem}[/red]")
    print(f"{chosen.rounds} rounds, {run.summary()}")
    return 1 if run.problems else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
