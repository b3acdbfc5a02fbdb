"""The planners, and the builder's threads."""

import itertools
import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.unit.vector.index.model import Record, run_of
from vector.index.build import Built
from vector.index.builder import Builder
from vector.index.partition_index import BUILD_RETRY_S, PASSED_MAX, BuildTask, PartitionIndex
from vector.index.planner import MERGE_MIN, SegmentFacts, next_plan, should_drop, should_freeze
from vector.index.query import IndexQuery
from vector.index.settings import IndexSettings

SETTINGS = IndexSettings(6, growing_rows_max=100, segment_rows_max=1000, seal_rows_min=10, seal_after_s=60.0)


RECORDS = 10 * MERGE_MIN


def facts(identity: int, nodes: int, kind: str = "sealed", dead: int = 0) -> SegmentFacts:
    return SegmentFacts(identity, kind, identity * 10, identity * 10 + 10, nodes, nodes, dead)  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 1000), max_size=30))
def test_merging_ends_with_few_segments_and_rebuilds_little(sizes: list[int]) -> None:
    """Until no plan is left: neighbours only, never above the bound, and each vector is rebuilt a logarithmic number of times."""
    segments = [facts(number, size) for number, size in enumerate(sizes)]
    rebuilt = 0
    while (plan := next_plan(segments, SETTINGS)) is not None:
        places = [place for place, segment in enumerate(segments) if segment.identity in plan.sources]
        assert places == list(range(places[0], places[0] + len(plan.sources)))
        assert len(places) >= MERGE_MIN
        total = sum(segments[place].nodes for place in places)
        assert total <= SETTINGS.segment_rows_max
        rebuilt += total
        segments[places[0] : places[-1] + 1] = [facts(places[0] + 1000 * rebuilt, total)]
    assert rebuilt <= sum(sizes) * 10
    small = [segment.nodes for segment in segments]
    for first in range(len(small) - MERGE_MIN + 1):
        window = small[first : first + MERGE_MIN]
        assert sum(window) > SETTINGS.segment_rows_max or 2 * max(window) > sum(window)


@hypothesis_settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 30))
def test_each_vector_goes_into_a_graph_once(segments_sealed: int, rows: int) -> None:
    """Of a log that only grows: segments without a graph are added to the one before them, until that is as large as may be."""
    segments: list[SegmentFacts] = []
    inserted = written = 0
    for number in range(segments_sealed):
        segments.append(facts(number, rows))
        while (plan := next_plan(segments, SETTINGS)) is not None:
            merged = [segment for segment in segments if segment.identity in plan.sources]
            first, total = segments.index(merged[0]), sum(segment.nodes for segment in merged)
            inserted += total - (merged[0].nodes if merged[0].graph else 0)
            written += total
            segments[first : first + len(merged)] = [replace(merged[0], nodes=total, postings=total, graph=True)]
            assert total <= SETTINGS.segment_rows_max
    assert inserted <= segments_sealed * rows
    assert written <= segments_sealed * rows * (SETTINGS.segment_rows_max / (MERGE_MIN * rows) + 1)
    assert sum(not segment.graph for segment in segments) < 2 * MERGE_MIN


@pytest.mark.parametrize("seed", range(20))
def test_segments_that_were_sealed_during_a_merge_are_not_left_between_large_ones(seed: int) -> None:
    """Merges took the smallest window wherever it lay: what was left before it was scanned for ever, 90,000 of a million vectors."""
    random = np.random.default_rng(seed)
    unsealed, passing = random.integers(30, 34, 98).tolist(), int(random.integers(2 * MERGE_MIN))
    segments: list[SegmentFacts] = []
    identities = itertools.count()

    def seal(count: int) -> None:
        for _ in range(min(count, len(unsealed))):
            segments.append(facts(next(identities), unsealed.pop()))

    while unsealed:
        seal(1)
        while (plan := next_plan(segments, SETTINGS)) is not None:
            seal(passing)  # while it is being merged
            merged = [segment for segment in segments if segment.identity in plan.sources]
            first = segments.index(merged[0])
            graph = replace(facts(next(identities), sum(one.nodes for one in merged)), graph=True)
            segments[first : first + len(merged)] = [graph]
    assert sum(not segment.graph for segment in segments) < MERGE_MIN


def test_a_graph_with_dead_rows_is_not_added_to() -> None:
    behind = [facts(number, 10) for number in range(2, 2 + MERGE_MIN)]
    graph = replace(facts(1, 500), graph=True)
    assert next_plan([graph, *behind], SETTINGS).sources[0] == 1
    assert next_plan([replace(graph, dead=1), *behind], SETTINGS).sources[0] == 2
    assert next_plan([replace(graph, nodes=990), *behind], SETTINGS).sources[0] == 2


def test_sealing_comes_first_and_dead_rows_are_rebuilt() -> None:
    segments = [facts(1, 100, dead=50), facts(2, 100, "frozen"), facts(3, 5, "growing")]
    assert next_plan(segments, SETTINGS).sources == (2,)
    assert next_plan([segments[0], segments[2]], SETTINGS).reason == "rebuild"
    assert next_plan(segments, SETTINGS, ["merge"]).sources == (1,)
    assert next_plan([segments[0], segments[2]], SETTINGS, ["seal"]) is None
    assert next_plan([facts(1, 100, dead=20)], SETTINGS) is None


def test_freezing_and_dropping() -> None:
    full = SegmentFacts(1, "growing", 0, 10, 100, 100)
    old = SegmentFacts(1, "growing", 0, 10, 10, 10, 0, 60.0)
    repeated = SegmentFacts(1, "growing", 0, 10, 1, 2000)
    assert all(should_freeze(segment, SETTINGS) for segment in (full, old, repeated))
    assert not should_freeze(SegmentFacts(1, "growing", 0, 10, 9, 9, 0, 1e9), SETTINGS)
    assert should_drop(facts(1, 5), 20)
    assert not should_drop(facts(1, 5), 19)
    assert not should_drop(facts(1, 5, "growing"), 100)


class Owner:
    """The owner's thread: runs what the builder posts."""

    def __init__(self) -> None:
        self.posted: queue.Queue[Callable[[], None]] = queue.Queue()

    def run_one(self) -> None:
        self.posted.get(timeout=30)()


FEW_ROWS = IndexSettings(6, growing_rows_max=10, exact_matches_max=5)


def filled(directory: Path, monotonic: Callable[[], float] = lambda: 0.0) -> PartitionIndex:
    index = PartitionIndex.open(directory, FEW_ROWS, monotonic=monotonic)
    for start in range(0, RECORDS, 10):
        append_full(index, start)
    return index


def append_full(index: PartitionIndex, start: int) -> None:
    """What makes a growing segment full."""
    index.append(run_of([Record(o, o, (o * 3,)) for o in range(start, start + 10)], start + 10, FEW_ROWS))


def test_the_builder_seals_and_merges_while_everything_stays_found(tmp_path: Path) -> None:
    index = filled(tmp_path)
    everything = IndexQuery(np.ones(6, dtype=np.float32), limit=100)
    before = index.search(everything)
    assert len(before) == RECORDS
    owner, swapped = Owner(), []
    builder = Builder(owner.posted.put, swapped.append)
    assert builder.submit(index)
    assert not builder.submit(index)  # one seal at a time
    for _ in range(MERGE_MIN + 1):  # the seals, one merge
        assert index.search(everything) == before
        owner.run_one()
    assert [segment["kind"] for segment in index.status()["segments"]] == ["sealed", "growing"]
    assert index.search(everything) == before
    assert len(swapped) == MERGE_MIN + 1
    builder.close()
    index.close()


def test_no_seal_waits_for_a_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge, which takes as long as others leave it no processor: meanwhile what is full is sealed, of this index and of others, everything
    is found, and once the merge has been passed by as many as a search has time for, indexing is asked to wait for it."""
    merging, may_merge = threading.Event(), threading.Event()
    build = PartitionIndex.build

    def starving(self: PartitionIndex, task: BuildTask) -> Built:
        if task.plan.reason == "merge":
            merging.set()
            assert may_merge.wait(30)
        return build(self, task)

    monkeypatch.setattr(PartitionIndex, "build", starving)
    index, other = filled(tmp_path / "index"), PartitionIndex.open(tmp_path / "other", FEW_ROWS)
    owner = Owner()
    builder = Builder(owner.posted.put)
    builder.submit(index)
    for _ in range(MERGE_MIN):
        owner.run_one()
    assert merging.wait(30)

    end = RECORDS
    for _ in range(PASSED_MAX):
        assert not index.backlogged
        append_full(index, end)
        end += 10
        builder.submit(index)
        owner.run_one()
        kinds = [segment["kind"] for segment in index.status()["segments"]]
        assert set(kinds[:-1]) == {"sealed"}
        assert index.status()["building"] == "merge"
    assert index.backlogged
    append_full(other, 0)
    builder.submit(other)
    owner.run_one()
    assert other.status()["segments"][0]["kind"] == "sealed"

    everything = IndexQuery(np.ones(6, dtype=np.float32), limit=1000)
    before = index.search(everything)
    assert len(before) == end
    may_merge.set()
    owner.run_one()
    assert not index.backlogged
    assert index.status()["segments"][0]["next_offset"] == RECORDS
    assert index.search(everything) == before
    builder.close()
    other.close()
    index.close()
    again = PartitionIndex.open(tmp_path / "index", FEW_ROWS)
    assert (again.indexed_offset, again.damages, again.search(everything)) == (end, [], before)
    again.close()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("Data corrupted")])
def test_a_failed_build_is_reported_and_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Whatever it fails with: tantivy's ValueError ended the builder's thread, and nothing was sealed until a restart."""
    now = [0.0]
    index = filled(tmp_path, lambda: now[0])

    def fail(_: BuildTask) -> None:
        raise error

    owner = Owner()
    builder = Builder(owner.posted.put)
    with monkeypatch.context() as patch:
        patch.setattr(index, "build", fail)
        assert builder.submit(index)
        owner.run_one()
    assert str(error) in index.status()["build_error"]
    assert not builder.submit(index)
    now[0] = BUILD_RETRY_S
    assert builder.submit(index)
    owner.run_one()
    assert index.status()["build_error"] is None
    builder.close()
    index.close()
