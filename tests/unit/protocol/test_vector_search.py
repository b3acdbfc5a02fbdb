"""Key 100, version 0: its bytes are a promise to clients."""

import struct
import uuid

from protocol import codec, headers
from protocol.api_keys import ApiKey
from protocol.messages import VectorSearchRequest, VectorSearchResponse

TOPIC_ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff").bytes
NAN = struct.pack(">d", float("nan"))

REQUEST = VectorSearchRequest(
    topic_name="logs",
    topic_id=TOPIC_ID,
    queries=[
        VectorSearchRequest.Query(text="database down"),
        VectorSearchRequest.Query(
            vector=struct.pack("<2f", 1.0, -0.5),
            positive=[VectorSearchRequest.Example(partition=3, offset=9)],
            negative=[VectorSearchRequest.Example(text="ok")],
        ),
    ],
    mode=2,
    limit=5,
    min_similarity=0.25,
    partitions=[0, 1],
    from_timestamp=1000,
    offset_ranges=[VectorSearchRequest.OffsetRange(partition=1, from_offset=2, until_offset=3)],
    filter="{}",
    min_offsets=[VectorSearchRequest.MinOffset(partition=0, offset=77)],
    latest=True,
    max_wait_ms=500,
    include=31,
    max_value_bytes=4096,
    exact=True,
    ef=64,
    cursor=b"\x01",
    timeout_ms=1500,
)
REQUEST_BYTES = bytes.fromhex(
    """
    056c6f6773 00112233445566778899aabbccddeeff
    03 0e646174616261736520646f776e 00 ffffffff ffffffffffffffff 01 01 00
    00 090000803f000000bf ffffffff ffffffffffffffff
    02 00 00 00000003 0000000000000009 00 02 036f6b 00 ffffffff ffffffffffffffff 00 00
    02 00000005 3fd0000000000000 030000000000000001 00000000000003e8 ffffffffffffffff
    02 00000001 0000000000000002 0000000000000003 00
    037b7d 00 02 00000000 000000000000004d 00 01 000001f4 00 01 001f 00001000 01 00000040
    0201 000005dc 00
    """
)

RESPONSE = VectorSearchResponse(
    topic_id=TOPIC_ID,
    model="m",
    dimensions=384,
    generation=2,
    complete=True,
    embed_micros=1,
    wait_micros=2,
    search_micros=3,
    read_micros=4,
    results=[
        VectorSearchResponse.Result(
            hits=[
                VectorSearchResponse.Hit(
                    partition=1,
                    offset=2,
                    leader_epoch=0,
                    timestamp=1000,
                    score=0.5,
                    similarity=0.5,
                    vector_rank=1,
                    duplicates=3,
                    flags=4,
                    value=b"v",
                    headers=[VectorSearchResponse.Header(name="h", value=None)],
                )
            ],
            next_cursor=b"\x07",
        )
    ],
    partition_states=[
        VectorSearchResponse.PartitionState(
            partition=1, high_watermark=10, last_stable_offset=9, indexed_offset=8, lag_ms=20, failed=1, searched=True
        )
    ],
)
RESPONSE_BYTES = bytes.fromhex(
    """
    00000000 0000 00 00112233445566778899aabbccddeeff 026d 00000180 00 00000002 01
    0000000000000001 0000000000000002 0000000000000003 0000000000000004
    02 0000 02 00000001 0000000000000002 00000000 00000000000003e8 3fe0000000000000 3fe0000000000000
    7ff8000000000000 00000001 ffffffff 0000000000000003 04 00 0276 02 0268 00 00 00 00
    0207 00
    02 00000001 0000 0000000000000000 000000000000000a 0000000000000009 0000000000000008
    0000000000000014 0000000000000001 01 00
    00
    """
)


def test_the_requests_bytes() -> None:
    encoded = b"".join(codec.encode_request(ApiKey.VECTOR_SEARCH, 0, REQUEST))
    assert encoded == REQUEST_BYTES
    assert codec.decode_request(ApiKey.VECTOR_SEARCH, 0, encoded) == REQUEST


def test_the_responses_bytes() -> None:
    encoded = b"".join(codec.encode_response(ApiKey.VECTOR_SEARCH, 0, RESPONSE))
    assert encoded == RESPONSE_BYTES
    again = codec.decode_response(ApiKey.VECTOR_SEARCH, 0, encoded)
    assert b"".join(codec.encode_response(ApiKey.VECTOR_SEARCH, 0, again)) == encoded


def test_defaults_are_those_of_the_documentation() -> None:
    request = VectorSearchRequest()
    assert (request.limit, request.mode, request.include, request.timeout_ms) == (10, 0, 7, 2000)
    assert (request.partitions, request.isolation_level, request.ef, request.latest) == (None, 1, -1, False)
    assert NAN in b"".join(codec.encode_request(ApiKey.VECTOR_SEARCH, 0, request))


def test_it_is_key_100_and_flexible_from_the_start() -> None:
    assert ApiKey.VECTOR_SEARCH == 100
    assert codec.valid_versions(100) == (0, 0)
    assert headers.encode_response_header(100, 0, 1) == b"\0\0\0\1\0"
    assert headers.encode_request_header(100, 0, 1, "c") == b"\0\x64\0\0\0\0\0\1\0\1c\0"
