"""Record batches: against kafka-python's and aiokafka's readers and writers, and Kafka's answers to damaged ones."""

import contextlib
import struct
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatch as AiokafkaBatch
from aiokafka.record.default_records import DefaultRecordBatchBuilder as AiokafkaBuilder
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch as KafkaPythonBatch
from kafka.record.default_records import DefaultRecordBatchBuilder as KafkaPythonBuilder

from protocol.crc import crc32c
from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import (
    BATCH_OVERHEAD,
    BatchHeader,
    Compression,
    Record,
    UnreadableBatch,
    build_batch,
    build_marker,
    crc_matches,
    iterate_records,
    no_starts,
    parse_batches,
    parse_produced,
    patch_batch,
    patch_log_append_time,
    read_marker,
    select_records,
    walk_batches,
)

codecs = pytest.mark.parametrize("codec", list(Compression))
some = settings(max_examples=25, deadline=None)

_PAYLOAD = st.none() | st.binary(max_size=20) | st.binary(min_size=60, max_size=300)
_HEADERS = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=3)
RECORDS = st.lists(
    st.builds(Record, st.just(0), st.integers(0, 2**41), _PAYLOAD, _PAYLOAD, _HEADERS), min_size=1, max_size=20
)
NOW_MS = 1_700_000_000_000


def plain(records: Any) -> list[tuple[Any, ...]]:
    return [(r.offset, r.timestamp_ms, r.key, r.value, list(r.headers)) for r in records]


def expected(records: list[Record], base_offset: int) -> list[tuple[Any, ...]]:
    return plain(record._replace(offset=base_offset + i) for i, record in enumerate(records))


def two() -> list[Record]:
    return [Record(0, NOW_MS, b"key", b"value"), Record(0, NOW_MS + 1, None, b"value", [("name", b"header")])]


@codecs
@some
@given(records=RECORDS, base_offset=st.integers(0, 2**60))
def test_what_is_built_is_read_again(codec: Compression, records: list[Record], base_offset: int) -> None:
    batch = memoryview(build_batch(records, codec=codec, base_offset=base_offset))
    (header,) = parse_batches(batch)
    assert (header.compression, header.record_count, header.size) == (codec, len(records), len(batch))
    assert header.last_offset == base_offset + len(records) - 1
    assert header.max_timestamp == max(record.timestamp_ms for record in records)
    assert plain(iterate_records(batch)) == expected(records, base_offset)


@codecs
@some
@given(records=RECORDS, wanted=st.sets(st.integers(-2, 40)), gap=st.booleans())
def test_selected_records_are_those_of_a_whole_read(
    codec: Compression, records: list[Record], wanted: set[int], gap: bool
) -> None:
    """Picking records by offset gives what filtering a whole read gives, also when compaction has left a gap at the end."""
    batch = build_batch(records, codec=codec, base_offset=3)
    if gap:
        struct.pack_into(">i", batch, 23, len(records) + 4)
    expected = [record for record in iterate_records(memoryview(batch)) if record.offset in wanted]
    assert list(select_records(memoryview(batch), wanted)) == expected


@codecs
@some
@given(sizes=st.lists(st.sampled_from((0, 1, 50, 60, 3_000, 9_000)), min_size=1, max_size=80), picks=st.data())
def test_what_is_remembered_of_a_batch_changes_nothing(
    codec: Compression, sizes: list[int], picks: st.DataObject
) -> None:
    """Records of one batch picked again and again, in any order, whatever the lengths of those before them."""
    records = [Record(0, 7, None, bytes([number % 256]) * size) for number, size in enumerate(sizes)]
    batch = memoryview(build_batch(records, codec=codec, base_offset=3))
    starts = no_starts()
    offsets = st.sets(st.integers(0, len(sizes) + 5), max_size=5)
    for wanted in picks.draw(st.lists(offsets, max_size=5)):
        expected = [record for record in iterate_records(batch) if record.offset in wanted]
        assert list(select_records(batch, wanted, starts)) == expected


@codecs
@pytest.mark.parametrize("reader", [KafkaPythonBatch, AiokafkaBatch])
@some
@given(records=RECORDS)
def test_others_read_what_is_built(codec: Compression, reader: Any, records: list[Record]) -> None:
    batch = bytes(build_batch(records, codec=codec, base_offset=5))
    theirs = reader(batch)
    assert theirs.validate_crc()
    read = [(r.offset, r.timestamp, r.key, r.value, [(n, v) for n, v in r.headers]) for r in theirs]
    assert read == expected(records, 5)


@codecs
@pytest.mark.parametrize("builder", [KafkaPythonBuilder, AiokafkaBuilder])
@some
@given(records=RECORDS)
def test_what_others_build_is_read(codec: Compression, builder: Any, records: list[Record]) -> None:
    theirs = builder(
        magic=2,
        compression_type=int(codec),
        is_transactional=0,
        producer_id=7,
        producer_epoch=1,
        base_sequence=3,
        batch_size=1_000_000,
    )
    for i, record in enumerate(records):
        headers = [(name, value) for name, value in record.headers]
        theirs.append(i, timestamp=record.timestamp_ms, key=record.key, value=record.value, headers=headers)
    batch = memoryview(bytearray(theirs.build()))
    header = parse_produced(batch, version=9, max_message_bytes=10_000_000)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 1, 3)
    assert plain(iterate_records(batch)) == expected(records, 0)


@codecs
def test_patching_keeps_the_batch_valid(codec: Compression) -> None:
    batch = memoryview(build_batch(two(), codec=codec))
    patch_batch(batch, 0, 2**40, len(batch) - 12, 17)
    (header,) = parse_batches(batch)
    assert (header.base_offset, header.leader_epoch) == (2**40, 17)
    patch_log_append_time(batch, 0, NOW_MS + 99)
    (header,) = parse_batches(batch)
    assert header.log_append_time
    assert [record.timestamp_ms for record in iterate_records(batch)] == [NOW_MS + 99] * 2
    assert KafkaPythonBatch(bytes(batch)).validate_crc()


def test_several_batches_are_walked_and_a_cut_one_is_left_out() -> None:
    first, second = build_batch(two()), build_batch(two()[:1], base_offset=2)
    whole = memoryview(bytearray(first + second))
    headers = parse_batches(whole)
    assert [(h.position, h.base_offset, h.size) for h in headers] == [(0, 0, len(first)), (len(first), 2, len(second))]
    for cut in range(1, len(second)):
        assert len(walk_batches(whole[:-cut])) == 1
    patch_batch(whole, headers[1].position, 9, headers[1].batch_length, 1)
    assert parse_batches(whole)[1].base_offset == 9
    assert crc_matches(whole, headers[1])


def test_markers_are_read_by_kafka_python() -> None:
    for commit, kind in ((False, 0), (True, 1)):
        marker = build_marker(commit=commit, producer_id=9, producer_epoch=2, coordinator_epoch=4, timestamp_ms=NOW_MS)
        (header,) = parse_batches(memoryview(marker))
        assert header.control
        assert header.transactional
        assert (header.producer_id, header.producer_epoch, header.base_sequence) == (9, 2, -1)
        assert read_marker(memoryview(marker)) == (commit, 4)
        (record,) = KafkaPythonBatch(bytes(marker))
        assert record.key == struct.pack(">hh", 0, kind)


# ---- Kafka's answers (oracle scenarios produce_batch_fields and produce_codecs) ----


BATCH_FIELDS = (
    "base_offset",
    "length",
    "leader_epoch",
    "magic",
    "crc",
    "attributes",
    "last_offset_delta",
    "base_timestamp",
    "max_timestamp",
    "producer_id",
    "producer_epoch",
    "base_sequence",
    "record_count",
)


def altered(**fields: int) -> bytes:
    """A batch of two records with header fields replaced, and the checksum of the result unless it is given."""
    layout = struct.Struct(">qiibIhiqqqhii")
    batch = build_batch(two())
    values = dict(zip(BATCH_FIELDS, layout.unpack_from(batch), strict=True)) | fields
    layout.pack_into(batch, 0, *values.values())
    if "crc" not in fields and fields.get("length", 49) >= 49:
        struct.pack_into(">I", batch, 17, crc32c(memoryview(batch)[21 : values["length"] + 12]))
    return bytes(batch)


GOOD = bytes(build_batch(two()))
CORRUPT, INVALID = ErrorCode.CORRUPT_MESSAGE, ErrorCode.INVALID_RECORD
REFUSED = {
    "null": (None, INVALID),
    "empty": (b"", INVALID),
    "one byte": (b"\0", INVALID),
    "eleven bytes": (bytes(11), INVALID),
    "sixty zero bytes": (bytes(60), CORRUPT),
    "header only": (GOOD[:61], INVALID),
    "cut in the records": (GOOD[:-1], INVALID),
    "cut in the header": (GOOD[:40], INVALID),
    "many bytes more": (GOOD + bytes(70), CORRUPT),
    "wrong crc": (altered(crc=12345), CORRUPT),
    "magic 0": (altered(magic=0), INVALID),
    "magic 1": (altered(magic=1), INVALID),
    "magic 3": (altered(magic=3), CORRUPT),
    "magic -1": (altered(magic=-1), CORRUPT),
    "length too long by one": (altered(length=len(GOOD) - 11, crc=1), INVALID),
    "length too long by far": (altered(length=1_000_000, crc=1), INVALID),
    "length too short by one": (altered(length=len(GOOD) - 13, crc=1), CORRUPT),
    "length 48": (altered(length=48), CORRUPT),
    "length 13": (altered(length=13), CORRUPT),
    "length -1": (altered(length=-1), CORRUPT),
    "count one more": (altered(record_count=3), INVALID),
    "count one less": (altered(record_count=1), INVALID),
    "count 0, last delta -1": (altered(record_count=0, last_offset_delta=-1), INVALID),
    "count -1": (altered(record_count=-1), INVALID),
    "last delta one more": (altered(last_offset_delta=2), INVALID),
    "base offset 5": (altered(base_offset=5), INVALID),
    "base offset -1": (altered(base_offset=-1), INVALID),
    "control bit": (altered(attributes=0x20), INVALID),
    "producer id without sequence": (altered(producer_id=5, producer_epoch=0), INVALID),
    "two batches": (GOOD + GOOD, INVALID),
    "two batches, second wrong crc": (GOOD + altered(crc=1), INVALID),
}
ACCEPTED = {
    "a few bytes more": GOOD + bytes(5),
    "second cut": GOOD + GOOD[:50],
    "leader epoch 42": altered(leader_epoch=42),
    "delete horizon bit": altered(attributes=0x40),
    "bit 14": altered(attributes=0x4000),
    "sequence without producer id": altered(base_sequence=3),
    "producer id -2": altered(producer_id=-2, producer_epoch=0, base_sequence=0),
}


@pytest.mark.parametrize("label", REFUSED)
def test_kafka_refuses(label: str) -> None:
    data, code = REFUSED[label]
    with pytest.raises(KafkaError) as caught:
        parse_produced(None if data is None else memoryview(data), version=9, max_message_bytes=1_000_000)
    assert caught.value.code == code


@pytest.mark.parametrize("label", ACCEPTED)
def test_kafka_accepts(label: str) -> None:
    assert parse_produced(memoryview(ACCEPTED[label]), version=9, max_message_bytes=1_000_000).record_count == 2


def test_an_unreadable_first_batch_is_told_apart() -> None:
    with pytest.raises(UnreadableBatch):
        parse_produced(memoryview(bytes(60)), version=9, max_message_bytes=1_000_000)


def test_zstd_needs_version_7_and_size_comes_before_the_checksum() -> None:
    zstd = memoryview(build_batch(two(), codec=Compression.ZSTD))
    assert parse_produced(zstd, version=7, max_message_bytes=len(zstd)).compression == Compression.ZSTD
    with pytest.raises(KafkaError) as caught:
        parse_produced(zstd, version=6, max_message_bytes=1_000_000)
    assert caught.value.code == ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
    with pytest.raises(KafkaError) as caught:
        parse_produced(memoryview(altered(crc=1)), version=9, max_message_bytes=len(GOOD) - 1)
    assert caught.value.code == ErrorCode.MESSAGE_TOO_LARGE


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=150) | st.binary(max_size=80).map(lambda tail: GOOD[:20] + tail))
def test_arbitrary_bytes_as_batches(data: bytes) -> None:
    with contextlib.suppress(KafkaError):
        parse_batches(memoryview(data))


@settings(max_examples=300, deadline=None)
@given(payload=st.binary(max_size=60), count=st.integers(-5, 2**31 - 1), codec=st.integers(0, 7))
def test_arbitrary_bytes_as_records(payload: bytes, count: int, codec: int) -> None:
    batch = bytearray(GOOD[:BATCH_OVERHEAD]) + payload
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    struct.pack_into(">h", batch, 21, codec)
    struct.pack_into(">i", batch, 57, count)
    with contextlib.suppress(KafkaError):
        list(iterate_records(memoryview(batch)))


ODD_RECORDS = {
    "record length one more": b"\x0e\x00\x00\x00\x02k\x02v\x00",
    "key length -2": b"\x0c\x00\x00\x00\x03k\x02v\x00",
    "value length far more": b"\x0c\x00\x00\x00\x02k\x7ev\x00",
    "header count -1": b"\x10\x00\x00\x00\x02k\x02v\x01",
    "header name null": b"\x14\x00\x00\x00\x02k\x02v\x02\x01\x00",
    "bytes after the record": b"\x10\x00\x00\x00\x02k\x02v\x00\x00\x00\x00",
    "varint of eleven bytes": b"\xff" * 11,
}


@pytest.mark.parametrize("label", ODD_RECORDS)
def test_odd_records_are_invalid(label: str) -> None:
    batch = bytearray(build_batch([Record(0, NOW_MS, b"k", b"v")])[:BATCH_OVERHEAD]) + ODD_RECORDS[label]
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    with pytest.raises(KafkaError) as caught:
        list(iterate_records(memoryview(batch)))
    assert caught.value.code == INVALID


def test_an_empty_batch_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        build_batch([])


def test_a_header_prints_its_fields() -> None:
    assert "record_count=2" in repr(BatchHeader(memoryview(GOOD)))
