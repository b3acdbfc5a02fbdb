"""Log lines about what clients get wrong: one for each, and a bound on them."""

from collections.abc import Callable

import structlog

# More lines than this per second and kind tell nothing new; the next line says how many were left out.
LOG_LINES_PER_SECOND = 20

logger = structlog.get_logger(__name__)


class BoundedLog:
    """Warnings about clients, bounded in rate: a broken client in a loop must not fill the disk."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._windows: dict[str, tuple[int, int]] = {}

    def warning(self, event: str, **fields: object) -> None:
        """Logs the event, unless the second has had enough of its kind."""
        second = int(self._now())
        since, count = self._windows.get(event, (second, 0))
        if since != second:
            if count > LOG_LINES_PER_SECOND:
                fields["left_out"] = count - LOG_LINES_PER_SECOND
            since, count = second, 0
        self._windows[event] = (since, count + 1)
        if count < LOG_LINES_PER_SECOND:
            logger.warning(event, **fields)
