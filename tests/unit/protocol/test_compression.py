"""Codecs: round trips, both forms of snappy, damage, and the bound on what a batch may expand to."""

import contextlib
import gzip
import tracemalloc

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.compression import MAX_DECOMPRESSED_BYTES, Compression, compress, decompress, opening_fits
from protocol.errors import ErrorCode, KafkaError

codecs = pytest.mark.parametrize("codec", list(Compression))
compressing = pytest.mark.parametrize("codec", [codec for codec in Compression if codec])
MEGABYTE = 1024 * 1024


@codecs
@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=2000), repeat=st.sampled_from([1, 7, 100]))
def test_round_trip(codec: Compression, data: bytes, repeat: int) -> None:
    assert decompress(codec, compress(codec, data * repeat)) == data * repeat


@codecs
def test_large_and_very_compressible_data(codec: Compression) -> None:
    data = bytes(3 * MEGABYTE)
    assert decompress(codec, memoryview(compress(codec, data))) == data


@compressing
def test_what_expands_too_far_is_refused_without_being_expanded(codec: Compression) -> None:
    bomb = compress(codec, bytes(16 * MEGABYTE))
    tracemalloc.start()
    try:
        with pytest.raises(KafkaError, match="expands to more than") as caught:
            decompress(codec, bomb, limit_bytes=MEGABYTE)
        assert tracemalloc.get_traced_memory()[1] < 4 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert caught.value.code == ErrorCode.CORRUPT_MESSAGE
    assert decompress(codec, compress(codec, bytes(MEGABYTE)), limit_bytes=MEGABYTE) == bytes(MEGABYTE)


@compressing
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_data_is_corrupt_or_something_else(codec: Compression, data: st.DataObject) -> None:
    compressed = bytearray(compress(codec, b"some text, some more text" * 20))
    compressed[data.draw(st.integers(0, len(compressed) - 1))] = data.draw(st.integers(0, 255))
    for damaged in (compressed, compressed[:-3], data.draw(st.binary(max_size=40)), b""):
        with contextlib.suppress(KafkaError):
            decompress(codec, bytes(damaged), limit_bytes=MEGABYTE)


def test_snappy_of_clients_that_write_no_xerial_header() -> None:
    assert decompress(Compression.SNAPPY, bytes(cramjam.snappy.compress_raw(b"bare" * 50))) == b"bare" * 50


@pytest.mark.parametrize("data", [b"", b"short", b"several blocks " * 20_000])
def test_lz4_blocks_are_independent(data: bytes) -> None:
    """Java refuses linked blocks; so do we, as Kafka's Produce does (oracle: produce_codecs)."""
    version, independent_blocks, reserved = 0xC0, 0x20, 0x02
    flags = compress(Compression.LZ4, data)[4]
    assert flags & (version | independent_blocks | reserved) == 0x40 | independent_blocks
    linked = bytes(cramjam.lz4.compress(data))
    assert not linked[4] & independent_blocks
    with pytest.raises(KafkaError, match="independent blocks") as refused:
        decompress(Compression.LZ4, linked)
    assert refused.value.code == ErrorCode.CORRUPT_MESSAGE


@compressing
def test_the_opening_tells_what_is_not_compressed(codec: Compression) -> None:
    assert opening_fits(codec, memoryview(compress(codec, b"data" * 100)))
    assert not opening_fits(codec, b"")
    if codec != Compression.SNAPPY:  # one bare block of it begins with any byte
        assert not opening_fits(codec, b"plain text")


def test_several_gzip_members() -> None:
    assert decompress(Compression.GZIP, gzip.compress(b"one") + gzip.compress(b"two")) == b"onetwo"


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_codecs_that_do_not_exist(codec: int) -> None:
    with pytest.raises(KafkaError, match=f"unknown compression codec {codec}"):
        decompress(codec, b"")


def test_the_bound_is_above_the_largest_frame() -> None:
    assert MAX_DECOMPRESSED_BYTES > 100 * MEGABYTE
