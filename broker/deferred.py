"""A value that arrives later, without asyncio: no task, no future, no call_soon on the hot path."""

from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")
_PENDING = object()


class Deferred(Generic[Value]):
    """Resolved once; callbacks run synchronously inside `resolve`, or inside `then` when the value is already there."""

    __slots__ = ("_callback", "_value")

    def __init__(self) -> None:
        self._value: object = _PENDING
        self._callback: Callable[[Value], None] | None = None

    @property
    def resolved(self) -> bool:
        return self._value is not _PENDING

    def resolve(self, value: Value) -> None:
        """Sets the value and runs the callback; raises RuntimeError when resolved before."""
        if self._value is not _PENDING:
            raise RuntimeError("this Deferred is resolved already")
        self._value = value
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(value)

    def then(self, callback: Callable[[Value], None]) -> None:
        """Runs `callback(value)` now or once the value arrives; one callback only: one connection waits for it."""
        if self._value is not _PENDING:
            callback(self._value)  # type: ignore[arg-type]  # not _PENDING, hence a Value
        elif self._callback is not None:
            raise RuntimeError("this Deferred has its callback already")
        else:
            self._callback = callback
