"""The planners, and the builder's thread."""

import queue
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vector.index.model import Record, run_of
from vector.index.builder import Builder
from vector.index.partition_index import BUILD_RETRY_S, BuildTask, PartitionIndex
from vector.index.planner import MERGE_MIN, SegmentFacts, next_plan, should_drop, should_freeze
from vector.index.query import IndexQuery
from vector.index.settings import IndexSettings

SETTINGS = IndexSettings(6, growing_rows_max=100, segment_rows_max=1000, seal_rows_min=10, seal_after_s=60.0)


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
    for first in range(len(small) - 3):
        window = small[first : first + 4]
        assert sum(window) > SETTINGS.segment_rows_max or 2 * max(window) > sum(window)


def test_sealing_comes_first_and_dead_rows_are_rebuilt() -> None:
    segments = [facts(1, 100, dead=50), facts(2, 100, "frozen"), facts(3, 5, "growing")]
    assert next_plan(segments, SETTINGS).sources == (2,)
    assert next_plan([segments[0], segments[2]], SETTINGS).reason == "rebuild"
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


def filled(directory: Path, monotonic: Callable[[], float] = lambda: 0.0) -> PartitionIndex:
    settings = IndexSettings(6, growing_rows_max=10, exact_matches_max=5)
    index = PartitionIndex.open(directory, settings, monotonic=monotonic)
    for start in range(0, 40, 10):
        index.append(run_of([Record(o, o, (o * 3,)) for o in range(start, start + 10)], start + 10, settings))
    return index


def test_the_builder_seals_and_merges_while_everything_stays_found(tmp_path: Path) -> None:
    index = filled(tmp_path)
    everything = IndexQuery(np.ones(6, dtype=np.float32), limit=100)
    before = index.search(everything)
    assert len(before) == 40
    owner, swapped = Owner(), []
    builder = Builder(owner.posted.put, swapped.append)
    assert builder.submit(index)
    assert not builder.submit(index)  # one task at a time
    for _ in range(5):  # four seals, one merge
        assert index.search(everything) == before
        owner.run_one()
    assert [segment["kind"] for segment in index.status()["segments"]] == ["sealed", "growing"]
    assert index.search(everything) == before
    assert len(swapped) == 5
    builder.close()
    index.close()


def test_a_failed_build_is_reported_and_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    index = filled(tmp_path, lambda: now[0])

    def disk_full(_: BuildTask) -> None:
        raise OSError(28, "No space left on device")

    owner = Owner()
    builder = Builder(owner.posted.put)
    with monkeypatch.context() as patch:
        patch.setattr(index, "build", disk_full)
        assert builder.submit(index)
        owner.run_one()
    assert "No space left" in index.status()["build_error"]
    assert not builder.submit(index)
    now[0] = BUILD_RETRY_S
    assert builder.submit(index)
    owner.run_one()
    assert index.status()["build_error"] is None
    builder.close()
    index.close()
