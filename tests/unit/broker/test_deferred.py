"""broker.deferred: one value, one callback, in either order."""

import pytest

from broker.deferred import Deferred


def test_the_callback_runs_inside_resolve() -> None:
    seen: list[int] = []
    deferred: Deferred[int] = Deferred()
    deferred.then(seen.append)
    assert not deferred.resolved
    deferred.resolve(1)
    assert seen == [1]
    assert deferred.resolved


def test_a_value_that_is_there_is_given_at_once() -> None:
    seen: list[None] = []
    deferred: Deferred[None] = Deferred()
    deferred.resolve(None)
    deferred.then(seen.append)
    assert seen == [None]


def test_a_second_value_or_callback_is_a_mistake() -> None:
    deferred: Deferred[int] = Deferred()
    deferred.then(lambda _: None)
    with pytest.raises(RuntimeError):
        deferred.then(lambda _: None)
    deferred.resolve(1)
    with pytest.raises(RuntimeError):
        deferred.resolve(2)
