"""For how long a partition's index has been behind its log."""

from collections import deque
from collections.abc import Callable

MARKS_MAX = 256


class LagClock:
    """Remembers when the committed end of the log was first seen at an offset. Bounded: beyond MARKS_MAX every second mark goes."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` in seconds."""
        self._now = now
        self._end = 0
        self._marks: deque[tuple[int, float]] = deque()

    def saw(self, end_offset: int) -> None:
        """The log is known to reach up to here, however that became known: by a bell, by a read, or at the start."""
        if end_offset <= self._end:
            return
        if len(self._marks) >= MARKS_MAX:
            self._marks = deque(list(self._marks)[::2])
        self._marks.append((end_offset, self._now()))
        self._end = end_offset

    def lag_ms(self, indexed_offset: int) -> int:
        """For how long the oldest record that is not indexed has been known; 0 when all are."""
        while self._marks and self._marks[0][0] <= indexed_offset:
            self._marks.popleft()
        return int((self._now() - self._marks[0][1]) * 1000) if self._marks else 0
