"""Walking records: the same records as the reader finds, and a code of Kafka's for everything else."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.compression import Compression
from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import BATCH_OVERHEAD, Record, build_batch, iterate_records
from protocol.record_walk import opening_of_lone_value, walk_compressed, walk_plain

TIME = 1_700_000_000_000
FIELDS = st.one_of(st.none(), st.binary(max_size=200))
HEADERS = st.lists(st.tuples(st.text(max_size=10), FIELDS), max_size=4)
RECORDS = st.lists(
    st.builds(Record, st.just(0), st.integers(TIME - 10**12, TIME + 10**12), FIELDS, FIELDS, HEADERS),
    min_size=1,
    max_size=12,
)
Walk = Callable[[memoryview, int], tuple[int, int]]
WALKS = pytest.mark.parametrize("walk", [walk_plain, walk_compressed])


def outcome(walk: Walk, data: memoryview) -> object:
    try:
        return walk(data, 1)
    except KafkaError as error:
        return error.code


def payload(*records: Record) -> bytes:
    return bytes(build_batch(records)[BATCH_OVERHEAD:])


@given(RECORDS)
def test_times_are_those_of_the_records(records: list[Record]) -> None:
    times = [record.timestamp_ms - records[0].timestamp_ms for record in records]
    data = memoryview(payload(*records))
    assert walk_plain(data, len(records)) == walk_compressed(data, len(records)) == (min(times), max(times))


@given(RECORDS, st.integers(1, 14))
def test_another_count_is_refused(records: list[Record], count: int) -> None:
    for walk in (walk_plain, walk_compressed):
        if count != len(records):
            with pytest.raises(KafkaError) as caught:
                walk(memoryview(payload(*records)), count)
            assert caught.value.code == ErrorCode.INVALID_RECORD


@given(RECORDS, st.data())
def test_damage_is_refused_or_readable(records: list[Record], data: st.DataObject) -> None:
    """What the walk lets pass, the reader reads."""
    batch = bytearray(build_batch(records))
    for _ in range(data.draw(st.integers(1, 3))):
        batch[data.draw(st.integers(BATCH_OVERHEAD, len(batch) - 1))] = data.draw(st.integers(0, 255))
    try:
        walk_plain(memoryview(batch)[BATCH_OVERHEAD:], len(records))
    except KafkaError as error:
        refused = error
    else:
        assert len(list(iterate_records(memoryview(batch)))) == len(records)
        return
    assert refused.code in (ErrorCode.INVALID_RECORD, ErrorCode.UNKNOWN_SERVER_ERROR)


def is_lone_value(data: bytes) -> bool:
    """As Produce asks it."""
    return data[:8].startswith(opening_of_lone_value(len(data))) and not data[-1]


@pytest.mark.parametrize("value_bytes", [*range(200), *range(8180, 8200), *range(2020, 2050)])
def test_lone_values_of_every_size(value_bytes: int) -> None:
    """Their shortcut says what the walk says: one record without key and headers, nothing else."""
    good = payload(Record(0, TIME, None, b"x" * value_bytes))
    assert walk_plain(memoryview(good), 1) == walk_compressed(good, 1) == (0, 0)
    assert is_lone_value(good) == (8 <= len(good) <= 2048)
    for position in (*range(min(9, len(good))), len(good) - 1):
        for byte in (0, 1, 2, 0x7F, 0x80, 0xFF):
            damaged = good[:position] + bytes([byte]) + good[position + 1 :]
            if is_lone_value(damaged):
                assert outcome(walk_plain, memoryview(damaged)) == (0, 0)


@WALKS
@given(data=st.binary(max_size=60), count=st.integers(1, 5))
def test_arbitrary_bytes(walk: Walk, data: bytes, count: int) -> None:
    code = None
    try:
        walk(memoryview(data), count)
    except KafkaError as error:
        code = error.code
    assert code in (None, ErrorCode.INVALID_RECORD, ErrorCode.UNKNOWN_SERVER_ERROR)


def test_what_only_one_kind_of_batch_may_have() -> None:
    """Kafka's own inconsistencies, as the oracle recorded them."""
    one = payload(Record(0, TIME, b"k", b"v"))
    longer = bytes([one[0] + 2]) + one[1:]
    with pytest.raises(KafkaError):
        walk_plain(memoryview(longer), 1)
    assert walk_compressed(longer, 1) == (0, 0)
    shifted = one[:3] + b"\x0a" + one[4:]  # offset delta 5
    assert walk_plain(memoryview(shifted), 1) == (0, 0)
    with pytest.raises(KafkaError) as caught:
        walk_compressed(shifted, 1)
    assert caught.value.code == ErrorCode.UNKNOWN_SERVER_ERROR


@pytest.mark.parametrize("codec", list(Compression))
def test_every_codec_unfolds_to_the_same_records(codec: Compression) -> None:
    from protocol.compression import decompress

    batch = build_batch([Record(0, TIME + i, b"k", b"v" * i) for i in range(5)], codec=codec)
    assert struct.unpack_from(">h", batch, 21)[0] == codec
    assert walk_compressed(decompress(codec, memoryview(batch)[BATCH_OVERHEAD:]), 5) == (0, 4)
