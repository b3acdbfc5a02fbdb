"""What clients get wrong is logged once each, but nobody fills the disk with it."""

from typing import Any

import pytest

from broker import refusals
from broker.refusals import LINES_PER_SECOND_MAX, Refusals
from tests.simulated_storage import ManualClock


class Lines:
    """In place of the logger."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append({"event": event, **fields})


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found = Lines()
    monkeypatch.setattr(refusals, "logger", found)
    return found.lines


def test_each_refusal_has_a_line(lines: list[dict[str, Any]]) -> None:
    log = Refusals(ManualClock())
    for number in range(LINES_PER_SECOND_MAX):
        log.log("refused", number=number)
    assert [line["number"] for line in lines] == list(range(LINES_PER_SECOND_MAX))


def test_a_flood_shares_lines_and_is_counted(lines: list[dict[str, Any]]) -> None:
    clock = ManualClock()
    log = Refusals(clock)
    for _ in range(LINES_PER_SECOND_MAX + 1000):
        log.log("refused")
    assert len(lines) == LINES_PER_SECOND_MAX
    clock.now_ms += 1000
    log.log("refused")
    log.log("refused")
    assert [line.get("left_out") for line in lines[-2:]] == [1000, None]
