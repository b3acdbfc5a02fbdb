"""What a coordinator reads of a consumer's subscription."""

from hypothesis import given
from hypothesis import strategies as st

from broker.coordinator.subscription import subscribed_topics


def encoded(topics: list[str], version: int = 1, rest: bytes = b"\xff\xff\xff\xff") -> bytes:
    body = b"".join(len(t.encode()).to_bytes(2) + t.encode() for t in topics)
    return version.to_bytes(2) + len(topics).to_bytes(4) + body + rest


@given(st.lists(st.text(max_size=20), max_size=8), st.integers(0, 3), st.binary(max_size=30))
def test_topics_of_any_version_are_read(topics, version, rest) -> None:
    """The topics come first in every version; what follows does not matter."""
    assert subscribed_topics(encoded(topics, version, rest)) == frozenset(topics)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_give_topics_or_nothing(data) -> None:
    """Bytes that are no subscription never raise."""
    result = subscribed_topics(data)
    assert result is None or isinstance(result, frozenset)


def test_a_false_count_builds_nothing() -> None:
    """A count larger than the bytes could hold is refused before anything is built from it."""
    assert subscribed_topics(b"\0\0\x7f\xff\xff\xff") is None
