"""Which worker has which partition."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from vector.placement import worker_of

topic_ids = st.binary(min_size=16, max_size=16)


@given(topic_id=topic_ids, partitions=st.integers(1, 100), workers=st.integers(1, 64))
def test_partitions_of_a_topic_are_spread_evenly(topic_id: bytes, partitions: int, workers: int) -> None:
    placed = Counter(worker_of(topic_id, partition, workers) for partition in range(partitions))
    assert set(placed) <= set(range(workers))
    assert max(placed.values()) - min(placed[worker] for worker in range(workers)) <= 1


@given(topic_id=topic_ids, partition=st.integers(0, 10_000), workers=st.integers(1, 64))
def test_more_partitions_move_none_of_those_there_are(topic_id: bytes, partition: int, workers: int) -> None:
    """Nor does anything else but the number of workers: it is a function of the three."""
    assert worker_of(topic_id, partition, workers) == worker_of(bytes(topic_id), partition, workers)


def test_topics_of_one_partition_are_spread_too() -> None:
    placed = Counter(worker_of(number.to_bytes(16, "big"), 0, 4) for number in range(4000))
    assert all(900 < placed[worker] < 1100 for worker in range(4))


def test_the_rule_stays_as_it_is() -> None:
    """A worker on another machine would download all of its partitions anew after an upgrade that changed it."""
    assert [worker_of(b"topic-identifier", partition, 5) for partition in range(6)] == EXPECTED


EXPECTED = [1, 2, 3, 4, 0, 1]
