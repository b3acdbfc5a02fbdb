"""Headers: which form each version has, and what is in it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol.api_header import RequestHeader as KafkaPythonHeader

from protocol import codec, headers
from protocol.api_keys import ApiKey
from protocol.errors import MalformedMessage
from tests.unit.protocol.generated import BODIES, BODY_IDS


@pytest.mark.parametrize(("key", "version", "direction"), BODIES, ids=BODY_IDS)
def test_headers_are_read_as_written(key: ApiKey, version: int, direction: str) -> None:
    if direction == "Request":
        for client_id in (None, "", "client", "ü" * 100):
            encoded = headers.encode_request_header(key, version, -77, client_id)
            header = headers.decode_request_header(memoryview(encoded + b"body"))
            assert header == (key, version, -77, client_id, len(encoded))
    else:
        encoded = headers.encode_response_header(key, version, 2**31 - 1)
        assert headers.decode_response_header(key, version, memoryview(encoded)) == (2**31 - 1, len(encoded))
        assert len(encoded) == (5 if codec.flexible(key, version) and key != ApiKey.API_VERSIONS else 4)


@given(st.sampled_from(BODIES), st.integers(-(2**31), 2**31 - 1), st.none() | st.text(max_size=20))
def test_kafka_python_writes_the_same_request_header(
    body: tuple[ApiKey, int, str], correlation_id: int, client_id: str | None
) -> None:
    key, version, _ = body
    theirs = KafkaPythonHeader(
        request_api_key=key, request_api_version=version, correlation_id=correlation_id, client_id=client_id
    )
    ours = headers.encode_request_header(key, version, correlation_id, client_id)
    assert theirs.encode(flexible=codec.flexible(key, version)) == ours


def test_the_client_id_is_a_legacy_string_in_flexible_headers_too() -> None:
    assert headers.encode_request_header(ApiKey.METADATA, 9, 7, "me") == struct.pack(">hhih2sx", 3, 9, 7, 2, b"me")


def test_the_response_header_of_api_versions_is_never_flexible() -> None:
    assert [headers.encode_response_header(ApiKey.API_VERSIONS, version, 7) for version in range(5)] == [
        b"\0\0\0\7"
    ] * 5


def test_a_negative_client_id_length_is_null() -> None:
    header = headers.decode_request_header(memoryview(struct.pack(">hhih", 18, 0, 7, -2)))
    assert header.client_id is None


def test_unknown_tags_in_the_header_are_ignored() -> None:
    raw = struct.pack(">hhih", 3, 9, 7, -1) + b"\x01\x63\x02ab" + b"body"
    assert headers.decode_request_header(memoryview(raw)).body_position == len(raw) - 4


def test_a_future_version_of_api_versions_has_a_flexible_header() -> None:
    raw = struct.pack(">hhih", 18, 99, 7, -1) + b"\x00"
    assert headers.decode_request_header(memoryview(raw)).body_position == len(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0\3\0",
        struct.pack(">hhi", 18, 0, 7),
        struct.pack(">hhih", 18, 0, 7, 900) + b"abc",
        struct.pack(">hhih", 3, 9, 7, -1),
        struct.pack(">hhih", 99, 0, 7, -1),
        struct.pack(">hhih", -1, 0, 7, -1),
        bytes(range(128, 256)),
    ],
)
def test_what_is_no_header_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedMessage):
        headers.decode_request_header(memoryview(raw))
