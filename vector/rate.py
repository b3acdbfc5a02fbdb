"""How fast a position advances, over the last few seconds."""

from collections import deque
from collections.abc import Callable

WINDOW_S = 10.0
MARK_INTERVAL_S = 0.5
"""Marks are no closer, so a meter holds at most twenty."""


class RateMeter:
    """Fed with a position that only grows; one that falls back (a log that lost its tail) starts the meter anew."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` in seconds."""
        self._now = now
        self._marks: deque[tuple[float, int]] = deque()

    def saw(self, position: int) -> None:
        """The position now."""
        now = self._now()
        marks = self._marks
        if marks and position < marks[-1][1]:
            marks.clear()
        if not marks or now - marks[-1][0] >= MARK_INTERVAL_S:
            marks.append((now, position))
        while marks[0][0] < now - WINDOW_S:
            marks.popleft()

    def per_s(self, position: int) -> float:
        """Per second since the oldest mark of the window; 0.0 before there is one."""
        if not self._marks:
            return 0.0
        since, first = self._marks[0]
        duration_s = self._now() - since
        return max(0.0, (position - first) / duration_s) if duration_s > 0 else 0.0
