"""The day of faults of `make faults`, in small."""

from pathlib import Path

import pytest

from tests.faults.day import Day


@pytest.mark.slow
def test_nothing_is_lost_on_a_day_of_faults(tmp_path: Path) -> None:
    outcome = Day(tmp_path, records=1500, seed=7).run()
    assert outcome.pauses
    assert outcome.failed
