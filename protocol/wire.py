"""The pieces that compiled codecs are made of: variable-length integers, tags, prepared structs."""

from collections.abc import Sequence
from functools import cache
from struct import Struct
from typing import TypeAlias

from protocol.errors import MalformedMessage

Buffer: TypeAlias = bytes | bytearray | memoryview
_BUFFERS = (bytes, memoryview, bytearray)  # a tuple: building a union in each call takes 0.15 µs
Records: TypeAlias = Buffer | Sequence[Buffer]

MAX_UNSIGNED_VARINT = 0xFFFFFFFF
_VARINT_TABLE_SIZE = 2048

FORMATS = {
    "bool": "?",
    "int8": "b",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "float64": "d",
    "uuid": "16s",
}
"""Fixed-size kinds and their struct formats."""


@cache
def prepared(layout: str) -> Struct:
    """A big-endian struct, made once per layout."""
    return Struct(">" + layout)


def read_unsigned_varint(data: memoryview, position: int) -> tuple[int, int]:
    """(value, next position) of an unsigned varint of at most 5 bytes (KIP-482); raises IndexError at the data's end."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & MAX_UNSIGNED_VARINT, position
        shift += 7
        if shift > 28:
            raise MalformedMessage("an unsigned varint is longer than 5 bytes")


def long_varint(first: int, data: memoryview, position: int) -> tuple[int, int]:
    """(value, next position) of a varint whose first byte, before `position`, is known; value 0 if it takes over 4 bytes."""
    value = first & 0x7F
    for shift in (7, 14, 21):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    return 0, position


def _unsigned_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


VARINTS = tuple(_unsigned_varint(value) for value in range(_VARINT_TABLE_SIZE))
"""Encoded unsigned varints of the smallest values, by value."""


def unsigned_varint(value: int) -> bytes:
    """The unsigned varint of `value` (0 to 2^32 - 1)."""
    return VARINTS[value] if value < _VARINT_TABLE_SIZE else _unsigned_varint(value)


def skip_tags(data: memoryview, position: int, end: int) -> int:
    """The position behind a tag buffer whose fields are all unknown (KIP-482 asks to ignore them)."""
    count, position = read_unsigned_varint(data, position)
    while count:
        _, position = read_unsigned_varint(data, position)
        position = skip_tag_data(data, position, end)
        count -= 1
    return position


def skip_tag_data(data: memoryview, position: int, end: int) -> int:
    """The position behind one tag's size and data."""
    size, position = read_unsigned_varint(data, position)
    if size > end - position:
        raise MalformedMessage(f"a tagged field of {size} bytes in the last {end - position} bytes")
    return position + size


def record_buffers(records: Records) -> tuple[int, Sequence[Buffer]]:
    """(bytes in all, buffers) of a records field, which is one buffer or several; nothing is copied."""
    if isinstance(records, _BUFFERS):
        return len(records), (records,) if len(records) else ()
    return sum(map(len, records)), records
