"""Follows the records of a batch without reading them: what Kafka's LogValidator asks of every record, with its codes.

Kafka reads records in two ways (DefaultRecord of 4.3; oracle scenarios produce_records and produce_codecs). Plain ones:
every record must take as many bytes as its length says, offset deltas are overwritten. Compressed ones, as a stream:
lengths are skipped unread, but offset deltas must count up from 0.
"""

from functools import lru_cache

from protocol.errors import ErrorCode, KafkaError
from protocol.wire import Buffer, unsigned_varint

_INT32_BITS = 32
_INT64_BITS = 64
_LONE_BYTES_MIN, _LONE_BYTES_MAX = 8, 2048
_NO_OPENING = bytes(9)


class _LongVarint(ValueError):
    """A varint of more bytes than its type has room for."""


def walk_plain(data: memoryview, count: int) -> tuple[int, int]:
    """(smallest, largest) timestamp delta of the `count` records that fill `data`, the payload of a plain batch.

    Raises KafkaError INVALID_RECORD for anything but `count` whole records, UNKNOWN_SERVER_ERROR, as Kafka does, for a
    length that is no int32. Varints of one byte are read in line; most are.
    """
    position = smallest = largest = 0
    try:
        for index in range(count):
            size = data[position]
            start = position + 1
            if size > 0x7F:
                size, start = _length(data, position)
            else:
                size = (size >> 1) ^ -(size & 1)
            delta = data[start + 1]  # behind the attributes, of which none is defined
            if delta | data[start + 2] > 0x7F:
                delta, position = _varint(data, start + 1, _INT64_BITS)
                _, position = _varint(data, position, _INT32_BITS)
            else:
                delta = (delta >> 1) ^ -(delta & 1)
                position = start + 3
            if not index:
                smallest = largest = delta
            elif not smallest <= delta <= largest:
                smallest, largest = min(smallest, delta), max(largest, delta)
            position = _skip_fields(data, position)
            if position - start != size:
                raise _invalid(f"record {index} of {size} bytes takes {position - start}")
    except (IndexError, _LongVarint) as error:
        raise _invalid("the records are cut or malformed") from error
    _check_end(data, position, count)
    return smallest, largest


def walk_compressed(data: Buffer, count: int) -> tuple[int, int]:
    """As `walk_plain`, for the decompressed payload of a compressed batch.

    Raises KafkaError INVALID_RECORD, and UNKNOWN_SERVER_ERROR, as Kafka does, for offset deltas out of order.
    """
    position = 0
    deltas = []
    try:
        for index in range(count):
            _, position = _varint(data, position, _INT32_BITS)
            delta, position = _varint(data, position + 1, _INT64_BITS)
            offset_delta, position = _varint(data, position, _INT32_BITS)
            position = _skip_fields(data, position)
            if offset_delta != index:
                raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"record {index} has offset delta {offset_delta}")
            deltas.append(delta)
    except (IndexError, _LongVarint) as error:
        raise _invalid("the records are cut or malformed") from error
    _check_end(data, position, count)
    return min(deltas), max(deltas)


@lru_cache(maxsize=2 * _LONE_BYTES_MAX)
def opening_of_lone_value(size: int) -> bytes:
    """How `size` bytes begin that are one record without key and headers, at its batch's own time; they end with a zero byte.

    Their number says it all. Many small producers send such records: comparing the first eight bytes takes a tenth of the
    time of walking. No eight bytes begin with what is returned for sizes that no such record has, or only a large one.
    """
    if not _LONE_BYTES_MIN <= size <= _LONE_BYTES_MAX:
        return _NO_OPENING
    body = size - 1
    while body + len(unsigned_varint(body << 1)) > size:
        body -= 1
    value = body - 6
    while value + len(unsigned_varint(value << 1)) > body - 5:
        value -= 1
    opening = unsigned_varint(body << 1) + b"\0\0\0\1" + unsigned_varint(value << 1)
    fits = len(opening) + value + 1 == size
    return opening if fits else _NO_OPENING


def _check_end(data: Buffer, position: int, count: int) -> None:
    if position != len(data):
        raise _invalid(f"{count} records end {len(data) - position} bytes before their batch")


def _length(data: Buffer, position: int) -> tuple[int, int]:
    try:
        return _varint(data, position, _INT32_BITS)
    except _LongVarint:
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "a record's length is no int32") from None


def _skip_fields(data: Buffer, position: int) -> int:
    """From a record's key to behind its headers."""
    size = data[position]
    position += 1
    if size > 0x7F:
        size, position = _varint(data, position - 1, _INT32_BITS)
        position += max(size, 0)
    elif not size & 1:  # odd is negative: null
        position += size >> 1
    size, position = _varint(data, position, _INT32_BITS)
    if size > 0:
        position += size
    if not data[position]:
        return position + 1
    return _skip_headers(data, position)


def _skip_headers(data: Buffer, position: int) -> int:
    headers, position = _varint(data, position, _INT32_BITS)
    if not 0 <= headers <= len(data) - position:
        raise _invalid(f"{headers} headers in the last {len(data) - position} bytes")
    for _ in range(headers):
        size, position = _varint(data, position, _INT32_BITS)
        if size < 0:
            raise _invalid("a header without a name")
        size, position = _varint(data, position + size, _INT32_BITS)
        position += max(size, 0)
    if position > len(data):
        raise _invalid("the batch ends within a header")
    return position


def _varint(data: Buffer, position: int, bits: int) -> tuple[int, int]:
    """(value, next position) of a zigzag varint; raises IndexError at the end of the data, _LongVarint."""
    value = data[position]
    position += 1
    if value > 0x7F:
        value &= 0x7F
        shift = 7
        while (byte := data[position]) > 0x7F:
            value |= (byte & 0x7F) << shift
            shift += 7
            position += 1
            if shift >= bits:
                raise _LongVarint
        value |= byte << shift
        position += 1
    return (value >> 1) ^ -(value & 1), position


def _invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_RECORD, message)
