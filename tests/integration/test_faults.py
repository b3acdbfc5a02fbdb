"""`make faults` and the index's part of `make crash`, in small."""

from pathlib import Path

import pytest

from tests.crash.indexes import STEPS, Run
from tests.faults.day import Day


@pytest.mark.slow
def test_nothing_is_lost_on_a_day_of_faults(tmp_path: Path) -> None:
    outcome = Day(tmp_path, records=1500, seed=7).run()
    assert outcome.pauses
    assert outcome.failed


@pytest.mark.slow
def test_kill_in_every_step_of_an_index(tmp_path: Path) -> None:
    """Seal, merge, manifest, upload, cut-over: no wrong hit afterwards, none missing, every record accounted for."""
    run = Run(tmp_path, seed=2)
    try:
        run.start()
        for number in range(len(STEPS)):
            run.round(number)
            assert not run.problems
        run.finish()
    finally:
        run.end()
    assert not run.problems
    assert run.killed.total() >= len(STEPS)
