"""The index of a partition against a list, through appends, seals, merges, drops, truncations, crashes and rotten bytes."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.vector.index.model import Expected, Record, brute_force, build_all, content_hash, run_of
from vector.check import check_index
from vector.index.build import Built
from vector.index.partition_index import BuildTask, PartitionIndex
from vector.index.query import IndexQuery
from vector.index.settings import IndexSettings

DIMENSIONS = 6
CONTENTS = 30
RECORDS_MAX = 400

contents = st.integers(0, CONTENTS - 1)
record_kinds = st.one_of(
    st.lists(contents, min_size=1, max_size=1).map(tuple),
    st.lists(contents, min_size=1, max_size=1).map(tuple),
    st.lists(contents, min_size=2, max_size=4).map(tuple),
    st.just(()),
    st.none(),
)
maybe_bound = st.one_of(st.just(-1), st.integers(0, RECORDS_MAX))


class IndexMachine(RuleBasedStateMachine):
    """`log` is the truth: every record with its fate. The index is caught up after each step that takes something back."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="senselog-index-"))
        self.directory = self.root / "index"
        self.log: list[Record] = []
        self.log_end = 0
        self.log_start = 0
        self.compacted: set[int] = set()
        """Offsets of records that compaction has removed."""
        self.now = 0.0

    @initialize(
        metric=st.sampled_from(["cosine", "dot", "l2"]),
        storage=st.sampled_from(["sq8", "fp16", "fp32"]),
        growing_rows_max=st.integers(2, 8),
        texts=st.booleans(),
    )
    def open(self, metric: str, storage: str, growing_rows_max: int, texts: bool) -> None:
        self.settings = IndexSettings(
            dimensions=DIMENSIONS,
            metric=metric,
            storage=storage,
            growing_rows_max=growing_rows_max,
            seal_after_s=10.0,
            seal_rows_min=1,
            segment_rows_max=60,
            exact_matches_max=5,
            texts=texts,
        )
        self.index = self.reopen()

    def reopen(self) -> PartitionIndex:
        index = PartitionIndex.open(self.directory, self.settings, monotonic=lambda: self.now)
        index.bury(sorted(self.compacted))
        return index

    @precondition(lambda self: len(self.log) < RECORDS_MAX)
    @rule(
        kinds=st.lists(record_kinds, max_size=25),
        times=st.randoms(use_true_random=False),
        gap=st.integers(0, 3),
    )
    def append(self, kinds: list[tuple[int, ...] | None], times: Random, gap: int) -> None:
        for kind in kinds:
            # Offsets have holes where control batches and compacted records were; clocks go backwards.
            offset = self.log_end + (gap if self.log_end % 5 == 0 else 0)
            self.log.append(Record(offset, max(0, offset + times.randint(-3, 3)), kind, offset % 3))
            self.log_end = offset + 1
        self.catch_up()

    def catch_up(self) -> None:
        todo = [record for record in self.log if record.offset >= self.index.indexed_offset]
        if self.index.indexed_offset < self.log_end:
            self.index.append(run_of(todo, self.log_end, self.settings))

    @rule()
    def checkpoint(self) -> None:
        self.index.checkpoint()
        assert self.index.checkpointed_offset == self.index.indexed_offset

    @rule(seconds=st.integers(1, 8))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def build(self) -> None:
        task = self.index.plan()
        if task is not None:
            self.index.swap(task, self.index.build(task))

    @rule()
    def build_everything(self) -> None:
        build_all(self.index)

    @rule(
        kinds=st.lists(record_kinds, max_size=10),
        times=st.randoms(use_true_random=False),
        low=st.integers(0, RECORDS_MAX),
    )
    def append_and_drop_while_building(self, kinds: list[tuple[int, ...] | None], times: Random, low: int) -> None:
        """A merge and a seal beside it, which end in any order."""
        built = self.build_planned()
        self.append(kinds, times, 0)
        built += self.build_planned()
        self.drop_below(low)
        times.shuffle(built)
        everything = IndexQuery(np.ones(DIMENSIONS, dtype=np.float32), limit=1000, log_start_offset=self.log_start)
        self.compare(everything)
        for task, segment in built:
            self.index.swap(task, segment)
            self.compare(everything)

    def build_planned(self) -> list[tuple[BuildTask, Built]]:
        tasks = []
        while (task := self.index.plan()) is not None:
            tasks.append((task, self.index.build(task)))
        return tasks

    @rule(low=st.integers(0, RECORDS_MAX))
    def drop_below(self, low: int) -> None:
        self.log_start = max(self.log_start, min(low, self.log_end))
        self.index.drop_below(self.log_start)

    @rule(
        chance=st.randoms(use_true_random=False),
        share=st.sampled_from([0.1, 0.9, 1.0]),
        end=st.integers(0, RECORDS_MAX),
    )
    def compact(self, chance: Random, share: float, end: int) -> None:
        """Records below `end` disappear, now and then all of them; they were counted, and stay so."""
        gone = {record.offset for record in self.log if record.offset < end and chance.random() < share}
        self.compacted |= gone
        self.index.bury(sorted(gone))

    @rule(end=st.integers(0, RECORDS_MAX))
    def lose_the_logs_tail(self, end: int) -> None:
        self.log_end = max(self.log_start, min(end, self.log_end))
        self.log = [record for record in self.log if record.offset < self.log_end]
        self.compacted = {offset for offset in self.compacted if offset < self.log_end}
        self.index.truncate(self.log_end)
        assert self.index.indexed_offset <= self.log_end
        self.catch_up()

    @rule()
    def restart(self) -> None:
        before = self.index.indexed_offset
        self.index.close()
        self.index = self.reopen()
        assert self.index.indexed_offset == before
        assert not self.index.damages

    @rule(torn=st.binary(max_size=30), building=st.booleans())
    def crash(self, torn: bytes, building: bool) -> None:
        """The process dies: what was not checkpointed is gone, a frame may be half written, a build lies around unnamed."""
        if building:
            self.build_planned()
        durable = self.index.checkpointed_offset
        self.index._journal.close()
        copy = self.root / "copy"
        shutil.copytree(self.directory, copy)
        shutil.rmtree(self.directory)
        copy.rename(self.directory)
        for journal in sorted(self.directory.glob("growing-*"))[-1:]:
            with journal.open("ab") as file:
                file.write(b"\xff\xff\xff\x7f" + torn)
        self.index = self.reopen()
        assert self.index.indexed_offset == durable
        assert not self.index.damages
        known_before = self.index.known_vectors(
            [content_hash(c) for r in self.log if r.offset < durable for c in r.contents or ()]
        )
        self.catch_up()
        assert len(known_before) == len(
            {c for r in self.log if self.log_start <= r.offset < durable for c in r.contents or ()}
        ) or (self.log_start > 0 or self.compacted)

    @rule(which=st.integers(0, 100), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    def rot(self, which: int, place: float, bit: int) -> None:
        """One flipped bit in any file: found at the next open, set aside, rebuilt from the log."""
        self.index.close()
        before = self.index.indexed_offset
        names = sorted(
            path
            for path in self.directory.rglob("*")
            if path.is_file() and path.stat().st_size and "damaged" not in path.parts
        )
        victim = names[which % len(names)]
        data = bytearray(victim.read_bytes())
        data[int(place * len(data))] ^= 1 << bit
        victim.write_bytes(data)
        assert check_index(self.directory) or victim.suffix == ".journal"
        self.index = self.reopen()
        # A length of a journal frame that points beyond the end cannot be told from a torn tail.
        assert self.index.damages or victim.suffix == ".journal"
        assert self.index.indexed_offset <= before
        if self.index.damages:
            assert (self.directory / "damaged").is_dir()
        self.catch_up()
        self.index.checkpoint()
        if victim.suffix != ".json":
            assert_identity(self)

    @rule(
        content=st.integers(0, CONTENTS + 10),
        limit=st.integers(1, 60),
        bounds=st.tuples(maybe_bound, maybe_bound, maybe_bound, maybe_bound),
        up_to=maybe_bound,
        exact=st.booleans(),
        collapse=st.booleans(),
        least=st.one_of(st.none(), st.floats(-1, 1)),
    )
    def search(
        self,
        content: int,
        limit: int,
        bounds: tuple[int, int, int, int],
        up_to: int,
        exact: bool,
        collapse: bool,
        least: float | None,
    ) -> None:
        vector = np.random.default_rng(content).integers(-2, 3, DIMENSIONS).astype(np.float32)
        vector[1] = 1.0
        self.compare(IndexQuery(vector, limit, *bounds, least, exact, -1, self.log_start, up_to, collapse))

    def compare(self, query: IndexQuery) -> None:
        visible = [r for r in self.log if r.offset >= self.log_start and r.offset not in self.compacted]
        expected = brute_force(visible, query, self.settings)
        found = [
            Expected(c.offset, c.timestamp_ms, c.similarity, c.duplicates, c.flags) for c in self.index.search(query)
        ]
        assert found == expected

    @invariant()
    def accounts(self) -> None:
        if hasattr(self, "index"):
            assert self.index.indexed_offset == self.log_end
            assert self.index.checkpointed_offset <= self.index.indexed_offset

    def teardown(self) -> None:
        if hasattr(self, "index"):
            try:  # an example that ends within a rule leaves a log that the index has not seen
                everything = IndexQuery(np.ones(DIMENSIONS, dtype=np.float32), limit=1000)
                self.compare(replace(everything, log_start_offset=self.log_start))
            finally:
                self.index.close()
            assert check_index(self.directory) == []
        shutil.rmtree(self.root)


def assert_identity(machine: IndexMachine) -> None:
    """indexed + skipped + failed = records below indexed_offset."""
    counts = machine.index.counts
    assert counts.records == len(machine.log)
    assert counts.failed == sum(record.contents is None for record in machine.log)
    assert counts.skipped["empty"] == sum(record.contents == () for record in machine.log)


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
