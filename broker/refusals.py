"""One log line for each bad input that gets an error as its answer; many of them share lines, so that nobody fills the disk."""

from typing import Any

import structlog

from storage.clock import Clock

LINES_PER_SECOND_MAX = 50

logger = structlog.get_logger(__name__)


class Refusals:
    """Logs what was refused, at most LINES_PER_SECOND_MAX lines in a second; the next line counts those left out."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = -1
        self._lines = 0
        self._left_out = 0

    def log(self, event: str, **fields: Any) -> None:
        """Logs the event as a warning, unless there were too many."""
        second = int(self._clock.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > LINES_PER_SECOND_MAX:
            self._left_out += 1
            return
        if self._left_out:
            fields["left_out"], self._left_out = self._left_out, 0
        logger.warning(event, **fields)
