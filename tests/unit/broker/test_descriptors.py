"""File descriptors: segments and connections together stay within the process's limit."""

import resource

import pytest

from broker.descriptors import OTHERS, PER_OPEN_SEGMENT, Shares, claim, share


@pytest.mark.parametrize("limit", [256, 1024, 4096, 20_000, 1 << 20])
@pytest.mark.parametrize("connections_max", [1, 10_000])
def test_connections_leave_descriptors_for_segments(limit: int, connections_max: int) -> None:
    """Else a client that leaks connections makes a segment unwritable, and that ends the process."""
    shares = share(limit, connections_max)
    assert shares.open_segments * PER_OPEN_SEGMENT + shares.connections + OTHERS <= limit
    assert 1 <= shares.connections <= connections_max


def test_a_large_limit_cuts_nobody_short() -> None:
    assert share(1 << 20, 10_000) == Shares(256, 10_000)


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [(1024, 524_288, 10_896), (1024, 4096, 4096), (20_000, 20_000, None), (1024, resource.RLIM_INFINITY, 10_896)],
)
def test_the_soft_limit_is_raised_as_far_as_needed(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, expected: int | None
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    shares = claim(10_000)
    assert limits == ([] if expected is None else [(expected, hard)])
    assert (shares.connections == 10_000) is (hard != 4096)
