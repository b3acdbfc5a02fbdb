"""Cursors: where a page of hits ended, without anything kept on the server (docs/adr/0010). Pure.

A cursor holds how far the index was when the first page was made, and which records the pages so far returned: the next page is the
same search over the same records, without those. It says of which topic, index generation and search it is.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NoReturn

import msgpack

from protocol.errors import ErrorCode, KafkaError

DEPTH_MAX = 10_000
"""Hits of all pages of one search; the cursor names each of them."""
CURSOR_BYTES_MAX = 256 * 1024
DIGEST_BYTES = 8
_PLAIN, _COMPRESSED = b"\x01", b"\x02"
COMPRESSED_FROM = 1024
"""Bytes; compressing less takes longer than it is worth."""

Place = tuple[int, int, int]
"""Partition, offset, and which row of the record it is: a long text has several."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """`up_to`: per partition, exclusive."""

    topic_id: bytes
    generation: int
    search: bytes
    up_to: Mapping[int, int]
    returned: Sequence[Place] = field(default=())


def search_digest(parts: Any) -> bytes:
    """Names a search by all that decides which records it finds; `parts` as msgpack takes them."""
    return blake2b(msgpack.packb(parts), digest_size=DIGEST_BYTES).digest()


def encode_cursor(cursor: Cursor) -> bytes | None:
    """None when the search is as deep as searches go."""
    if len(cursor.returned) >= DEPTH_MAX:
        return None
    places = [list(column) for column in zip(*sorted(cursor.returned), strict=True)]
    fields = (cursor.topic_id, cursor.generation, cursor.search, dict(cursor.up_to), places)
    packed: bytes = msgpack.packb(fields)
    check = zlib.crc32(packed).to_bytes(4, "big")
    if len(packed) < COMPRESSED_FROM:
        return _PLAIN + check + packed
    return _COMPRESSED + check + zlib.compress(packed)


def decode_cursor(data: bytes, topic_id: bytes, generation: int, search: bytes) -> Cursor:
    """Raises KafkaError INVALID_REQUEST for one that is none, or of another topic, generation or search."""
    cursor = _decoded(data)
    if cursor.topic_id != topic_id:
        _refuse("belongs to another topic")
    if cursor.generation != generation:
        _refuse(f"has expired: the index was made anew since (generation {cursor.generation}, now {generation})")
    if cursor.search != search:
        _refuse("belongs to another search: query, mode, filter, collapse and min_similarity must stay the same")
    return cursor


def _decoded(data: bytes) -> Cursor:
    try:
        packed = data[5:]
        if data[:1] == _COMPRESSED:
            packed = zlib.decompressobj().decompress(packed, CURSOR_BYTES_MAX)  # what is beyond fails the check
        if data[:1] not in (_PLAIN, _COMPRESSED) or zlib.crc32(packed).to_bytes(4, "big") != data[1:5]:
            _refuse("is none that a search has given")
        topic_id, generation, search, up_to, places = msgpack.unpackb(packed, strict_map_key=False)
        returned = tuple(zip(*places, strict=True))
        numbers = [*up_to, *up_to.values(), *(number for place in returned for number in place), generation]
        if len(places) not in (0, 3) or any(type(number) is not int or not 0 <= number < 2**63 for number in numbers):
            _refuse("is none that a search has given")
        return Cursor(topic_id, generation, search, up_to, returned)
    except (IndexError, ValueError, TypeError, AttributeError, zlib.error, msgpack.UnpackException):
        _refuse("is none that a search has given")


def _refuse(reason: str) -> NoReturn:
    raise KafkaError(ErrorCode.INVALID_REQUEST, f"cursor: {reason}")
