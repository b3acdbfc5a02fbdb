"""`make bench-recall`: recall@10 of every kind of filter at every selectivity, in every state a log's index can be in, against exact search.

Five partitions of 50, 10, 1, 0.1 and 38.9 % of the records; synthetic clusters stored in cluster order, so that a range of offsets or of
time is a region of meaning. Bounds of the index are small, so that graphs answer where a log of millions would have them answer. Truth is
an exact scan with numpy over the same stored vectors of the records that match by what they were made of, not by what a filter says.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.index_recall import clustered
from vector.filter.parse import parse_filter
from vector.filter.record_fields import record_fields
from vector.index.fields import fields_of
from vector.index.partition_index import PartitionIndex
from vector.index.query import Candidate, IndexQuery
from vector.index.scoring import stored_form
from vector.index.settings import IndexSettings, Run

NEIGHBOURS = 10
SHARES = {"half": 0.5, "tenth": 0.1, "hundredth": 0.01, "thousandth": 0.001, "rest": 0.389}
"""Of the records, by the class they are in; also of the partitions."""
NAMES = list(SHARES)
UPPER = np.cumsum(list(SHARES.values()))
START_MS = 1_000_000
RUN_RECORDS = 500
RECALL_MIN = 0.98
ROUNDING = 1e-5
"""Two ways of summing one product in float32."""


def scattered(count: int, factor: int) -> np.ndarray:
    """float64[n] in [0, 1), without order."""
    return np.arange(count, dtype=np.uint64) * np.uint64(factor) % np.uint64(2**32) / 2**32


class Log:
    """`count` records in the order in which they were produced: contents int64[n], rows float32[contents, d]."""

    keys_repeat = True
    """The key of a record is the name of its class, or begins with it."""

    def __init__(self, count: int, dimensions: int, duplicates: float, seed: int) -> None:
        random = np.random.default_rng(seed)
        distinct = round(count * (1 - duplicates))
        self.rows = clustered(distinct, dimensions, 0.5, random)
        repeats = random.integers(0, distinct, count - distinct)
        self.contents = np.sort(np.concatenate([np.arange(distinct), repeats]))
        self.share = scattered(count, 2654435761)
        self.classes = np.searchsorted(UPPER[:-1], self.share, side="right")
        self.partitions = np.searchsorted(UPPER[:-1], scattered(count, 2246822519), side="right")
        self.offsets = np.zeros(count, dtype=np.int64)
        for partition in range(len(NAMES)):
            mine = self.partitions == partition
            self.offsets[mine] = np.arange(mine.sum())

    def fields(self, number: int) -> dict[str, Any]:
        """Key, headers and value of a record: each tells its class."""
        name = NAMES[self.classes[number]]
        value = json.dumps({"class": name, "share": self.share[number], "in": {name: True}, "tags": ["all", name]})
        return {"key": name.encode(), "headers": [("class", name.encode()), (name, b"")], "value": value.encode()}


@dataclass(frozen=True, slots=True)
class Kind:
    """The JSON of a filter, and which records match it: bool[n]."""

    filter: dict[str, Any]
    matching: np.ndarray


def kinds(log: Log, alive: np.ndarray, name: str) -> dict[str, Kind]:
    """One filter of each kind that lets about SHARES[name] of the records through; ranges are of those that are there."""
    number, share = NAMES.index(name), SHARES[name]
    low, high = float(UPPER[number] - share), float(UPPER[number])
    of_class, some = log.classes == number, name[:3]
    there = np.flatnonzero(alive)
    first = there[len(there) // 3]
    last = there[min(len(there) - 1, len(there) // 3 + int(len(there) * share))]
    times = np.zeros(len(alive), dtype=bool)
    times[first:last] = True
    largest = np.flatnonzero(alive & (log.partitions == 0))
    inside = largest[-max(1, min(len(largest), int(len(there) * share))) :]
    offsets = np.zeros(len(alive), dtype=bool)
    offsets[inside] = True
    within = {"path": "$.share", "range": {"gte": low, "lt": high}}
    lower, higher = {"path": "$.share", "range": {"lt": low}}, {"path": "$.share", "range": {"gte": high}}
    filters: dict[str, dict[str, Any]] = {
        "key prefix": {"key": {"prefix": some}},
        "header eq": {"must": [{"header": "class", "eq": name}]},
        "header any": {"must": [{"header": "class", "any": [name, "nothing"]}]},
        "header prefix": {"must": [{"header": "class", "prefix": some}]},
        "header exists": {"must": [{"header": name, "exists": True}]},
        "path eq": {"must": [{"path": "$.class", "eq": name}]},
        "path any": {"must": [{"path": "$.tags", "any": [name, "nothing"]}]},
        "path prefix": {"must": [{"path": "$.class", "prefix": some}]},
        "path range": {"must": [within]},
        "path exists": {"must": [{"path": f"$.in.{name}", "exists": True}]},
        "must": {"must": [within, {"header": name, "exists": True}, {"path": "$.tags", "eq": "all"}]},
        "should": {"should": [{"key": {"prefix": name}}, {"path": "$.share", "range": {"gte": low, "lt": (low + high) / 2}}]},
        "must_not": {"must_not": [lower, higher]},
    }  # fmt: skip
    if log.keys_repeat:
        filters |= {"key eq": {"key": {"eq": name}}, "key any": {"key": {"any": [name, "nothing"]}}}
    found = {kind: Kind(wanted, of_class) for kind, wanted in filters.items()}
    found["partitions"] = Kind({"partitions": [number]}, log.partitions == number)
    between = {"gte": int(log.offsets[inside[0]]), "lt": int(log.offsets[inside[-1]]) + 1}
    found["offsets"] = Kind({"partition": 0, "offset": between}, offsets)
    found["time"] = Kind({"timestamp": {"gte": START_MS + int(first), "lt": START_MS + int(last)}}, times)
    return found


class Found(Protocol):
    """A hit."""

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def similarity(self) -> Any: ...


class SearchedTopic(Protocol):
    """A log that can be searched. `alive`: which of its records there are, bool[n]."""

    log: Log
    alive: np.ndarray

    def search(self, vector: np.ndarray, wanted: dict[str, Any]) -> Sequence[Found]:
        """The nearest records that match a filter, best first."""

    def truth(self, vector: np.ndarray, matching: np.ndarray) -> np.ndarray:
        """Similarities of the nearest matching records, best first, by an exact scan of what the last search could find."""


class Topic:
    """The indexes of the log's partitions, and which records they have: bool[n]."""

    def __init__(self, log: Log, directory: Path, settings: IndexSettings) -> None:
        self.log = log
        self.settings = settings
        self.alive = np.zeros(len(log.contents), dtype=bool)
        self.indexes = [PartitionIndex.open(directory / str(number), settings) for number in range(len(NAMES))]
        self._stored = stored_form(log.rows, settings)
        self._produced = 0

    def append(self, until: int) -> None:
        """Indexes the next records, and builds nothing."""
        numbers = np.arange(self._produced, until)
        self._produced = until
        for partition, index in enumerate(self.indexes):
            mine = numbers[self.log.partitions[numbers] == partition]
            if len(mine):
                index.append(self._run(mine))
        self.alive[numbers] = True

    def _run(self, numbers: np.ndarray) -> Run:
        contents, offsets = self.log.contents[numbers], self.log.offsets[numbers]
        return Run(
            offsets=offsets,
            timestamps_ms=START_MS + numbers,
            hashes=[int(content + 1).to_bytes(16, "big") for content in contents],
            vectors=self.log.rows[contents],
            flags=np.zeros(len(numbers), dtype=np.uint8),
            skipped=Counter(),
            failed=0,
            next_offset=int(offsets[-1]) + 1,
            fields=fields_of([record_fields(**self.log.fields(int(number))) for number in numbers]),
        )

    def build(self) -> None:
        """Seals, merges and rebuilds until nothing is left to do."""
        for index in self.indexes:
            while (task := index.plan()) is not None:
                index.swap(task, index.build(task))

    def expire(self) -> None:
        """Retention removes the older half of every partition."""
        for partition, index in enumerate(self.indexes):
            mine = np.flatnonzero(self.alive & (self.log.partitions == partition))
            start = len(mine) // 2
            self.alive[mine[:start]] = False
            index.drop_below(int(self.log.offsets[mine[start]]))

    def compact(self) -> None:
        """Of what is there, compaction removes a half, scattered."""
        gone = self.alive & (scattered(len(self.alive), 3266489917) < 0.5)
        self.alive &= ~gone
        for partition, index in enumerate(self.indexes):
            index.bury(sorted(self.log.offsets[gone & (self.log.partitions == partition)].tolist()))

    def search(self, vector: np.ndarray, wanted: dict[str, Any]) -> list[Candidate]:
        """The best of all partitions that match a filter."""
        found, condition = list[Candidate](), parse_filter(wanted)
        for partition, index in enumerate(self.indexes):
            found += index.search(IndexQuery(vector, NEIGHBOURS, condition=condition, partition=partition))
        return sorted(found, key=lambda hit: -hit.similarity)[:NEIGHBOURS]

    def truth(self, vector: np.ndarray, matching: np.ndarray) -> np.ndarray:
        """Similarities of the nearest matching records, best first, by an exact scan."""
        contents = self.log.contents[np.flatnonzero(matching & self.alive)]
        scores = self._stored[contents].astype(np.float32) @ (vector / np.linalg.norm(vector))
        return -np.sort(-scores)[:NEIGHBOURS]

    def close(self) -> None:
        for index in self.indexes:
            index.close()


@dataclass(slots=True)
class Cell:
    """What searches of one kind found at one selectivity."""

    found: int = 0
    expected: int = 0
    short: int = 0
    wrong: int = 0

    @property
    def recall(self) -> float:
        return self.found / self.expected if self.expected else 1.0


@dataclass(slots=True)
class Measured:
    """Cells by state of the log, kind of filter and share."""

    cells: dict[tuple[str, str, float], Cell] = field(default_factory=dict)
    searches: Counter[str] = field(default_factory=Counter)

    def look(self, state: str, topic: "SearchedTopic", queries: np.ndarray) -> None:
        """Every kind of filter, as the indexes are now."""
        everything = {"unfiltered": Kind({}, np.ones(len(topic.alive), dtype=bool))}
        for share, wanted in [(1.0, everything), *((SHARES[n], kinds(topic.log, topic.alive, n)) for n in NAMES[:-1])]:
            for name, kind in wanted.items():
                cell = self.cells.setdefault((state, name, share), Cell())
                for query in queries:
                    hits = topic.search(query, kind.filter)
                    _judge(cell, topic, kind.matching, hits, topic.truth(query, kind.matching))

    def count(self, topic: Topic) -> None:
        """How segments were searched."""
        for index in topic.indexes:
            self.searches.update(index.status()["searches"])


def _judge(cell: Cell, topic: "SearchedTopic", matching: np.ndarray, hits: Sequence[Found], truth: np.ndarray) -> None:
    places = {(hit.partition, hit.offset) for hit in hits}
    log = topic.log
    there = [np.any(matching & topic.alive & (log.partitions == p) & (log.offsets == offset)) for p, offset in places]
    cell.wrong += len(hits) - sum(map(bool, there))
    cell.short += len(hits) != len(truth)
    cell.found += sum(bool(hit.similarity >= truth[-1] - ROUNDING) for hit in hits) if len(truth) else 0
    cell.expected += len(truth)


def states(topic: Topic, records: int) -> Iterator[str]:
    """Takes the indexes through the states of a log, one after the other; each is to be looked at when its name comes."""
    for until in range(RUN_RECORDS, records + 1, RUN_RECORDS):
        topic.append(until)
        if until == records // 2 // RUN_RECORDS * RUN_RECORDS:
            yield "while indexing"  # some segments sealed, some full and waiting, one growing
            tasks = [(index, task) for index in topic.indexes if (task := index.plan()) is not None]
            built = [(index, task, index.build(task)) for index, task in tasks]
            yield "while indexing"  # built, not yet swapped in
            for index, task, segment in built:
                index.swap(task, segment)
        elif until % (4 * RUN_RECORDS) == 0:
            topic.build()
    topic.build()
    yield "complete"
    topic.expire()
    yield "half expired"
    topic.build()
    yield "half expired"
    topic.compact()
    yield "compacted"
    topic.build()
    yield "compacted"


def measure(records: int, dimensions: int, queries: int, *, seed: int, settings: dict[str, Any]) -> Measured:
    """Both logs, of distinct texts and with 80 % duplicates, in all their states."""
    measured = Measured()
    for duplicates in (0.0, 0.8):
        log = Log(records, dimensions, duplicates, seed)
        random = np.random.default_rng(seed + 1)
        near = log.rows[random.integers(0, len(log.rows), queries)]
        asked = near + np.float32(0.5 / np.sqrt(dimensions)) * random.standard_normal(near.shape).astype(np.float32)
        with tempfile.TemporaryDirectory() as folder:
            topic = Topic(log, Path(folder), IndexSettings(dimensions, **settings))
            for state in states(topic, records):
                measured.look(f"{state}, {duplicates:.0%} duplicates", topic, asked)
            measured.count(topic)
            topic.close()
    return measured


def table(measured: Measured) -> Table:
    """Kinds down, states across: the worst recall of all selectivities."""
    columns = list(dict.fromkeys(state for state, _, _ in measured.cells))
    shown = Table(title="recall@10 against exact search: the worst of 50, 10, 1 and 0.1 %")
    shown.add_column("filter")
    for state in columns:
        shown.add_column(state.replace(", ", "\n"), justify="right")
    for kind in dict.fromkeys(kind for _, kind, _ in measured.cells):
        worst = [
            min(c.recall for (s, k, _), c in measured.cells.items() if (s, k) == (state, kind)) for state in columns
        ]
        shown.add_row(kind, *(f"{value:.4f}" for value in worst))
    for name, of in (("answers too short", lambda c: c.short), ("wrong hits", lambda c: c.wrong)):
        shown.add_row(
            name, *(str(sum(of(c) for (s, _, _), c in measured.cells.items() if s == state)) for state in columns)
        )
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filtered_recall", description=__doc__)
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--queries", type=int, default=20, help="of each kind at each selectivity in each state")
    parser.add_argument("--growing-rows", type=int, default=1_000, help="distinct texts until a segment is sealed")
    parser.add_argument("--exact-matches", type=int, default=50, help="matches up to which a segment is scanned")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="JSON of every cell instead of a table")
    chosen = parser.parse_args()
    settings = {"growing_rows_max": chosen.growing_rows, "exact_matches_max": chosen.exact_matches}
    measured = measure(chosen.records, chosen.dimensions, chosen.queries, seed=chosen.seed, settings=settings)
    cells = measured.cells
    if chosen.json:
        rows = [
            {
                "state": state,
                "filter": kind,
                "share": share,
                "recall_at_10": cell.recall,
                "short": cell.short,
                "wrong": cell.wrong,
            }
            for (state, kind, share), cell in cells.items()
        ]
        print(json.dumps({"cells": rows, "searches": measured.searches}, indent=1))
    else:
        console = Console(width=max(160, Console().width))
        console.print(table(measured))
        console.print(f"segments searched: {dict(measured.searches)}")
    return int(any(c.recall < RECALL_MIN or c.short or c.wrong for c in cells.values()))


if __name__ == "__main__":
    sys.exit(main())
