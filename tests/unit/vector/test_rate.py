"""Rates are those of the last seconds, whatever came before."""

import pytest

from vector.rate import WINDOW_S, RateMeter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_steady_rate_is_found_and_a_stop_is_noticed() -> None:
    clock = Clock()
    meter = RateMeter(clock)
    assert meter.per_s(0) == 0.0
    position = 0
    for _ in range(200):
        meter.saw(position)
        clock.now += 0.25
        position += 25
    assert meter.per_s(position) == pytest.approx(100, rel=0.05)
    for _ in range(int(WINDOW_S / 0.25) + 4):
        meter.saw(position)
        clock.now += 0.25
    assert meter.per_s(position) == 0.0


def test_a_position_that_falls_back_gives_no_negative_rate() -> None:
    clock = Clock()
    meter = RateMeter(clock)
    meter.saw(1000)
    clock.now += 1
    meter.saw(10)
    assert meter.per_s(10) == 0.0
    clock.now += 1
    assert meter.per_s(30) == pytest.approx(20)
