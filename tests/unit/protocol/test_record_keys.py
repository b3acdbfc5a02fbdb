"""Batches with fewer records: what stays is what was there, byte for byte where it can be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.batch_header import LOG_APPEND_TIME, crc_matches
from protocol.compression import Compression, decompress
from protocol.errors import KafkaError
from protocol.record_batch import BATCH_OVERHEAD, BatchHeader, Record, build_batch, iterate_records
from protocol.record_keys import empty_batch, keep_records, read_keys

TIMES = st.integers(0, 2**42)
FIELDS = st.none() | st.binary(max_size=300)
HEADERS = st.lists(st.tuples(st.text(max_size=5), FIELDS), max_size=2)
RECORDS = st.lists(st.builds(Record, st.just(0), TIMES, FIELDS, FIELDS, HEADERS), min_size=1, max_size=20)


def _batch(records: list[Record], codec: Compression = Compression.NONE, attributes: int = 0) -> memoryview:
    return memoryview(
        build_batch(
            records, codec=codec, base_offset=700, leader_epoch=3, producer_id=9, producer_epoch=1, base_sequence=40,
            attributes=attributes,
        )
    )  # fmt: skip


def _same_place(left: BatchHeader, right: BatchHeader) -> bool:
    names = ("base_offset", "last_offset_delta", "leader_epoch", "producer_id", "producer_epoch", "base_sequence")
    return all(getattr(left, name) == getattr(right, name) for name in names)


@given(records=RECORDS, codec=st.sampled_from(Compression))
def test_keys_are_read_as_the_records_hold_them(records: list[Record], codec: Compression) -> None:
    batch = _batch(records, codec)
    read = read_keys(BatchHeader(batch), batch)
    assert read.keys == [record.key for record in records]
    assert read.tombstones == [record.value is None for record in records]
    assert read.offset_deltas == list(range(len(records)))
    assert len(read) == len(records)


@given(
    records=RECORDS,
    codec=st.sampled_from(Compression),
    chance=st.randoms(),
    horizon_ms=st.none() | TIMES,
    attributes=st.sampled_from([0, LOG_APPEND_TIME]),
)
def test_kept_records_keep_offset_time_and_content(
    records: list[Record], codec: Compression, chance: object, horizon_ms: int | None, attributes: int
) -> None:
    """Whatever is kept, in whatever codec, with or without a delete horizon; and again from the result."""
    batch = _batch(records, codec, attributes)
    kept = sorted(chance.sample(range(len(records)), chance.randint(1, len(records))))  # type: ignore[attr-defined]
    before = BatchHeader(batch)
    smaller = memoryview(keep_records(before, read_keys(before, batch), kept, delete_horizon_ms=horizon_ms))
    after = BatchHeader(smaller)
    everything = list(iterate_records(batch))
    expected = [everything[index] for index in kept]
    assert list(iterate_records(smaller)) == expected
    assert _same_place(before, after)
    assert after.compression == codec
    assert crc_matches(smaller, after)
    assert after.max_timestamp == max(record.timestamp_ms for record in expected)
    assert after.delete_horizon_ms == horizon_ms
    again = memoryview(keep_records(after, read_keys(after, smaller), [len(kept) - 1]))
    assert list(iterate_records(again)) == expected[-1:]
    assert BatchHeader(again).delete_horizon_ms == horizon_ms


def test_without_a_horizon_the_bytes_of_a_record_are_not_touched() -> None:
    batch = _batch([Record(0, 5000 + index, b"k%d" % index, b"v" * index) for index in range(9)])
    payload = batch[BATCH_OVERHEAD:].tobytes()
    read = read_keys(BatchHeader(batch), batch)
    smaller = keep_records(BatchHeader(batch), read, [0, 4, 8])
    pieces = [payload[read.starts[index] : read.ends[index]] for index in (0, 4, 8)]
    assert bytes(smaller[BATCH_OVERHEAD:]) == b"".join(pieces)


@pytest.mark.parametrize("codec", Compression)
def test_an_empty_batch_says_which_offsets_and_sequences_there_were(codec: Compression) -> None:
    batch = _batch([Record(0, 5000, b"a", b"b"), Record(0, 6000, b"c", None)], codec)
    empty = memoryview(empty_batch(BatchHeader(batch)))
    header = BatchHeader(empty)
    assert list(iterate_records(empty)) == []
    assert len(read_keys(header, empty)) == 0
    assert _same_place(BatchHeader(batch), header)
    assert (header.size, header.record_count, header.max_timestamp) == (BATCH_OVERHEAD, 0, 6000)
    assert crc_matches(empty, header)
    assert header.compression == Compression.NONE


@given(records=RECORDS, damage=st.data())
def test_damaged_records_are_refused_or_read(records: list[Record], damage: st.DataObject) -> None:
    """Arbitrary bytes in the payload: a protocol error or values, never another exception."""
    batch = bytearray(_batch(records))
    position = damage.draw(st.integers(BATCH_OVERHEAD, len(batch) - 1))
    batch[position] = damage.draw(st.integers(0, 255))
    try:
        read = read_keys(BatchHeader(memoryview(batch)), memoryview(batch))
    except KafkaError:
        return
    assert read.ends[-1] == len(decompress(0, batch[BATCH_OVERHEAD:]))
