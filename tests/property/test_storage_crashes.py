"""Crashes at any file-system call, power failures that lose unsynced writes: what was acknowledged stays, once, in order."""

import pytest

from storage.config import SyncPolicy
from tests.storage_scenario import violations


@pytest.mark.parametrize("first", range(0, 150, 50))
def test_no_acknowledged_record_is_lost_doubled_or_moved(first: int) -> None:
    """storage.sync=always over power failures, kills and clean stops; then fsck finds nothing."""
    assert violations(range(first, first + 50)) == {}


@pytest.mark.parametrize("sync", ["interval", "os"])
def test_weaker_policies_survive_a_kill_and_never_damage_the_log(sync: SyncPolicy) -> None:
    """A killed process loses nothing under any policy; a power failure costs at most the end of a log."""
    assert violations(range(50), sync) == {}


@pytest.mark.slow
@pytest.mark.parametrize("sync", ["always", "os"])
def test_many_more_lives(sync: SyncPolicy) -> None:
    """The same over more seeds and more crashes each."""
    assert violations(range(1000, 1500), sync, lives=5) == {}
