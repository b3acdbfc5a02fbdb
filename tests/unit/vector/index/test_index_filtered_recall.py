"""Recall@10 of every kind of filter at every selectivity, while indexing, after it, after retention and after compaction."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.filtered_recall import NAMES, RECALL_MIN, Log, Measured, Topic, kinds, measure
from vector.index.partition_index import PartitionIndex
from vector.index.settings import IndexSettings

SETTINGS = {"growing_rows_max": 400, "exact_matches_max": 50}


@pytest.mark.slow
def test_every_filter_finds_the_nearest_in_every_state_of_a_log() -> None:
    """recall@10 >= 0.98, returned = min(limit, matches), and never a record that does not match; also with 80 % duplicate texts."""
    measured = measure(8000, 32, 4, seed=5, settings=SETTINGS)
    assert len({state for state, _, _ in measured.cells}) == 8
    assert len({(kind, share) for _, kind, share in measured.cells}) == 1 + 18 * 4
    bad = {
        place: cell for place, cell in measured.cells.items() if cell.recall < RECALL_MIN or cell.short or cell.wrong
    }
    assert not bad
    assert measured.searches["graph"] > 500, "this is not the recall of exact scans alone"


def test_each_filter_lets_its_share_through(tmp_path: Path) -> None:
    """What is called 0.1 % is that."""
    log = Log(20_000, 8, 0.8, 1)
    topic = Topic(log, tmp_path, IndexSettings(8))
    topic.alive[:] = True
    for name, share in zip(NAMES[:-1], (0.5, 0.1, 0.01, 0.001), strict=True):
        for kind in kinds(log, topic.alive, name).values():
            assert kind.matching.mean() == pytest.approx(share, rel=0.4)
    topic.close()


def forgets_the_filter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("benchmarks.filtered_recall.parse_filter", lambda _: None)


def forgets_what_is_gone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PartitionIndex, "bury", lambda self, offsets: None)


def answers_half(patch: pytest.MonkeyPatch) -> None:
    original = Topic.search
    patch.setattr(Topic, "search", lambda self, *given: original(self, *given)[:5])


@pytest.mark.slow
@pytest.mark.parametrize(
    "plant", [forgets_the_filter, forgets_what_is_gone, answers_half], ids=lambda plant: plant.__name__
)
def test_a_planted_bug_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    measured: Measured = measure(3000, 16, 1, seed=5, settings=SETTINGS)
    assert any(cell.recall < RECALL_MIN or cell.short or cell.wrong for cell in measured.cells.values())
