"""Arbitrary bytes become a message or MalformedMessage, in bounded time and memory."""

import contextlib
import struct
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import codec, headers
from protocol.api_keys import ApiKey
from protocol.errors import MalformedMessage
from tests.unit.protocol.generated import BODIES, BODY_IDS, decode, encode, messages

MEGABYTE = 1024 * 1024


@pytest.mark.parametrize(("key", "version", "direction"), BODIES, ids=BODY_IDS)
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_arbitrary_and_damaged_bytes(data: st.DataObject, key: ApiKey, version: int, direction: str) -> None:
    encoded = encode(key, version, direction, data.draw(messages(key, version, direction)))
    noise = data.draw(st.binary(max_size=60))
    at = data.draw(st.integers(0, len(encoded)))
    damaged = [noise, encoded[:at], encoded[:at] + noise, encoded[:at] + noise[:1] + encoded[at + 1 :]]
    damaged += [encoded[:at] + b"\xff" * 40, encoded[:at] + b"\x7f" * 40, encoded[:at] + bytes(40)]
    for raw in damaged:
        with contextlib.suppress(MalformedMessage):
            decode(key, version, direction, raw)


@pytest.mark.parametrize(
    ("key", "version", "body"),
    [
        (ApiKey.METADATA, 1, struct.pack(">i", 2**31 - 1)),
        (ApiKey.METADATA, 1, struct.pack(">i", 2_000_000_000) + bytes(1000)),
        (ApiKey.METADATA, 9, b"\xff\xff\xff\xff\x0f" + bytes(1000)),
        (ApiKey.DELETE_TOPICS, 1, struct.pack(">i", 2**31 - 1)),
        (ApiKey.OFFSET_FETCH, 1, b"\x00\x01g\x7f\xff\xff\xff"),
        (ApiKey.LIST_TRANSACTIONS, 0, b"\x01\xff\xff\xff\xff\x07" + bytes(100)),
        (ApiKey.PRODUCE, 9, b"\x00\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\x0f" + bytes(100)),
        (ApiKey.FETCH, 12, bytes(25) + b"\xff\xff\xff\xff\x0f" + bytes(100)),
        (ApiKey.HEARTBEAT, 4, b"\x02g\x00\x00\x00\x00\x02m\x00\xff\xff\xff\xff\x0f"),
    ],
)
def test_a_huge_length_allocates_nothing(key: ApiKey, version: int, body: bytes) -> None:
    codec._compiled_decoder(f"{key.message_name}Request", version)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage):
            codec.decode_request(key, version, body)
        assert tracemalloc.get_traced_memory()[1] < MEGABYTE
    finally:
        tracemalloc.stop()


# What Apache Kafka 4.3 does with damaged bodies.


def test_a_negative_array_length_is_null() -> None:
    assert codec.decode_request(ApiKey.METADATA, 1, struct.pack(">i", -2)).topics is None


@pytest.mark.parametrize(
    "body", [struct.pack(">ih", 1, -5), struct.pack(">ih", 1, -1), b"", struct.pack(">ih2s", 1, 4, b"no")]
)
def test_a_name_that_is_null_or_cut_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        codec.decode_request(ApiKey.METADATA, 1, body)


def test_invalid_utf_8_is_replaced() -> None:
    assert (
        codec.decode_request(ApiKey.METADATA, 1, struct.pack(">ih", 1, 2) + b"\xff\xfe").topics[0].name
        == "\ufffd\ufffd"
    )


def test_bytes_behind_the_body_are_ignored() -> None:
    assert codec.decode_request(ApiKey.METADATA, 1, struct.pack(">i", 0) + bytes(100)).topics == []


def test_records_longer_than_the_request_are_malformed() -> None:
    with pytest.raises(MalformedMessage):
        codec.decode_request(ApiKey.PRODUCE, 9, b"\0\xff\xff\0\0\x27\x10\2\2t\2\0\0\0\0\xff\xff\3ab")


def test_an_endless_varint_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        codec.decode_request(ApiKey.METADATA, 9, b"\xff" * 10)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_arbitrary_headers(raw: bytes) -> None:
    try:
        header = headers.decode_request_header(memoryview(raw))
    except MalformedMessage:
        return
    assert header.body_position <= len(raw)
