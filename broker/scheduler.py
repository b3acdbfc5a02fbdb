"""Time and turns of the event loop, as a port."""

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None: ...


class Scheduler(Protocol):
    """The part of an event loop that handlers and the group coordinator need; a test drives its own."""

    def call_soon(self, callback: Callable[..., object], *args: Any) -> Timer: ...

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer: ...
