"""Compaction with crashes at any file-system call: of each key the newest record stays, where it was, and nothing comes back."""

import pytest

from storage.config import SyncPolicy
from tests.compaction_scenario import CompactionScenario
from tests.storage_scenario import violations


@pytest.mark.parametrize("sync", ["always", "interval", "os"])
def test_a_compacted_log_is_the_dict_of_its_latest_values(sync: SyncPolicy) -> None:
    """Under every policy, over power failures, kills and clean stops; then fsck finds nothing."""
    assert violations(range(60), sync, kind=CompactionScenario) == {}


def test_the_simulation_compacts() -> None:
    """It would be worth nothing otherwise."""
    scenarios = [CompactionScenario(seed) for seed in range(10)]
    for scenario in scenarios:
        scenario.live(operations=80)
    assert sum(scenario.compacted for scenario in scenarios) > 20


@pytest.mark.slow
def test_many_more_lives() -> None:
    """The same over more seeds and more crashes each."""
    assert violations(range(1000, 1300), lives=5, kind=CompactionScenario) == {}
