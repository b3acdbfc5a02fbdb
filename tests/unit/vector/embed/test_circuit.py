"""One cooldown for everybody who calls a provider."""

from hypothesis import given
from hypothesis import strategies as st

from vector.embed.circuit import BACKOFF_MAX_S, PAUSE_RETRY_S, Circuit
from vector.embed.port import PausedError, TransientError


def test_one_call_tries_again_while_the_others_wait() -> None:
    """A provider that was overloaded is not met by all of its callers at once."""
    circuit = Circuit()
    first, second = circuit.enter(0.0), circuit.enter(0.0)
    assert first is not None
    assert second is not None
    circuit.failed(first, TransientError("overloaded", 5.0), 0.0, 0.5)
    circuit.failed(second, TransientError("overloaded", 3.0), 1.0, 0.5)
    assert (circuit.state, circuit.opened, circuit.cooldown_s(1.0)) == ("open", 1, 4.0)
    assert circuit.enter(4.9) is None
    probe = circuit.enter(5.0)
    assert probe is not None
    assert circuit.enter(5.0) is None
    circuit.succeeded(probe)
    assert circuit.state == "closed"
    assert circuit.enter(5.0) is not None


def test_an_answer_from_before_a_cooldown_does_not_end_it() -> None:
    """Retry-After of one call holds for all of them, also when another, begun before, succeeds after it."""
    circuit = Circuit()
    slow, refused = circuit.enter(0.0), circuit.enter(0.0)
    assert slow is not None
    assert refused is not None
    circuit.failed(refused, TransientError("429", 60.0), 0.0, 0.5)
    circuit.succeeded(slow)
    assert circuit.enter(59.0) is None
    assert circuit.enter(60.0) is not None


def test_a_cancelled_probe_lets_the_next_one_try() -> None:
    circuit = Circuit()
    token = circuit.enter(0.0)
    assert token is not None
    circuit.failed(token, TransientError("down"), 0.0, 0.0)
    probe = circuit.enter(100.0)
    assert probe is not None
    circuit.left(probe)
    assert circuit.enter(100.0) is not None


def test_a_pause_is_tried_now_and_then_and_at_once_when_a_person_says_so() -> None:
    circuit = Circuit()
    token = circuit.enter(0.0)
    assert token is not None
    circuit.failed(token, PausedError("no quota"), 0.0, 0.0)
    assert (circuit.state, circuit.cooldown_s(0.0), circuit.trouble) == ("paused", PAUSE_RETRY_S, "no quota")
    circuit.retry_now()
    assert circuit.enter(0.0) is not None


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40))
def test_back_off_grows_and_is_bounded(chances: list[float]) -> None:
    circuit, now = Circuit(), 0.0
    for chance in chances:
        token = circuit.enter(now)
        assert token is not None
        circuit.failed(token, TransientError("down"), now, chance)
        wait_s = circuit.cooldown_s(now)
        assert 0 < wait_s <= BACKOFF_MAX_S
        now += wait_s
