"""The records inside a batch: reading, checking and building them.

A record (https://kafka.apache.org/documentation/#record): length varint, attributes int8, timestamp delta varlong,
offset delta varint, key and value with varint lengths (-1 is null), headers with a varint count. Varints are zigzag.
"""

import struct
from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

from protocol.batch_header import BATCH_OVERHEAD, CONTROL, TRANSACTIONAL, BatchHeader, pack_header
from protocol.compression import Compression, compress, decompress
from protocol.errors import ErrorCode, KafkaError

_MARKER_KEY = struct.Struct(">hh")
_MARKER_VALUE = struct.Struct(">hi")
_MAX_VARINT_SHIFT = 63
ABORT, COMMIT = 0, 1
START_EVERY = 16


class Record(NamedTuple):
    """One record; `headers` are (name, value) pairs in the order in which they were written, names may repeat."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


def iterate_records(batch: memoryview) -> Iterator[Record]:
    """The records of the batch that starts the view, decompressed; keys and values are copies.

    Raises KafkaError: CORRUPT_MESSAGE if the payload does not fit its codec, INVALID_RECORD if it does not hold exactly
    the header's number of whole records. What was read before the damage has been yielded.
    """
    header = BatchHeader(batch)
    payload = decompress(header.compression, batch[BATCH_OVERHEAD : header.size])
    position = yield from _read(header, payload, 0, header.record_count)
    if position != len(payload):
        raise _invalid(f"{len(payload) - position} bytes behind the batch's {header.record_count} records")


def select_records(batch: memoryview, offsets: Iterable[int], starts: "array[int] | None" = None) -> Iterator[Record]:
    """Those records of the batch that starts the view which have one of the offsets, in order of offset.

    Hops over the other records by their lengths: a tenth of the price of reading them, which matters for a hit in a
    batch of thousands. `starts`, `no_starts()` at first, is where this is remembered for the next time that records of
    this very batch are wanted. Raises KafkaError as `iterate_records` does.
    """
    header = BatchHeader(batch)
    wanted = sorted({offset for offset in offsets if header.base_offset <= offset <= header.last_offset})
    if not header.whole:  # the n-th record is not offset n
        among = frozenset(wanted)
        yield from (record for record in iterate_records(batch) if record.offset in among)
        return
    payload: bytes | memoryview = batch[BATCH_OVERHEAD : header.size]
    if header.compression != Compression.NONE:
        payload = decompress(header.compression, payload)
    starts = no_starts() if starts is None else starts
    for offset in wanted:
        position = _start(payload, starts, offset - header.base_offset)
        end = _behind(payload, position, 1)
        yield from _read(header, bytes(payload[position:end]), 0, 1)


def no_starts() -> "array[int]":
    """Where the records of a batch begin in what it holds, decompressed: every `START_EVERY`-th, as far as is known."""
    return array("Q", [0])


def _start(payload: bytes | memoryview, starts: "array[int]", number: int) -> int:
    """Where the record of this number begins."""
    while len(starts) <= number // START_EVERY:
        starts.append(_behind(payload, starts[-1], START_EVERY))
    return _behind(payload, starts[number // START_EVERY], number % START_EVERY)


def _behind(payload: bytes | memoryview, position: int, count: int) -> int:
    """The position behind `count` records. Lengths of one and two bytes are read here: a call for each record costs as much again."""
    try:
        for _ in range(count):
            byte = payload[position]
            if byte < 0x80:
                position += (byte >> 1) + 1
            elif (second := payload[position + 1]) < 0x80:
                position += (second << 6) + ((byte & 0x7F) >> 1) + 2
            else:
                size, start = read_varint(payload, position)
                position = start + size
    except IndexError as error:
        raise _invalid("the batch ends within a record") from error
    return position


def _read(header: BatchHeader, payload: bytes, position: int, count: int) -> Generator[Record, None, int]:
    """Yields `count` records from a position of the payload on; returns the position behind them."""
    base_offset, base_timestamp = header.base_offset, header.base_timestamp
    append_time = header.max_timestamp if header.log_append_time else None
    new_record = tuple.__new__
    try:
        for _ in range(count):
            size, start = read_varint(payload, position)
            timestamp_delta, position = read_varint(payload, start + 1)
            offset_delta, position = read_varint(payload, position)
            key, position = _field(payload, position)
            value, position = _field(payload, position)
            headers: Sequence[tuple[str, bytes | None]] = ()
            if payload[position]:
                headers, position = _headers(payload, position)
            else:
                position += 1
            if position != start + size:
                raise _invalid(f"a record of {size} bytes that takes {position - start}")
            timestamp = base_timestamp + timestamp_delta if append_time is None else append_time
            yield new_record(Record, (base_offset + offset_delta, timestamp, key, value, headers))
    except IndexError as error:
        raise _invalid("the batch ends within a record") from error
    return position


class Marker(NamedTuple):
    """What a control batch says of its producer's transaction (KIP-98)."""

    commit: bool
    coordinator_epoch: int


def read_marker(batch: memoryview) -> Marker | None:
    """The marker in the control batch that starts the view; None for control records of another kind.

    Raises KafkaError if the batch is damaged.
    """
    record = next(iterate_records(batch), None)
    if record is None or len(record.key or b"") < _MARKER_KEY.size:
        raise _invalid("a control batch without a control record")
    kind = _MARKER_KEY.unpack_from(record.key or b"")[1]
    if kind not in (ABORT, COMMIT):
        return None
    if len(record.value or b"") < _MARKER_VALUE.size:
        raise _invalid("a transaction marker without a coordinator epoch")
    return Marker(kind == COMMIT, _MARKER_VALUE.unpack_from(record.value or b"")[1])


def build_batch(
    records: Sequence[Record],
    *,
    codec: Compression = Compression.NONE,
    base_offset: int = 0,
    leader_epoch: int = -1,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    attributes: int = 0,
) -> bytearray:
    """A batch of one record or more at consecutive offsets from `base_offset`; the records' own offsets are ignored."""
    if not records:
        raise ValueError("a record batch holds at least one record")
    base_timestamp = records[0].timestamp_ms
    max_timestamp = max(record.timestamp_ms for record in records)
    payload = bytearray()
    for offset_delta, record in enumerate(records):
        _write_record(payload, record, offset_delta, record.timestamp_ms - base_timestamp)
    return pack_header(
        compress(codec, payload),
        base_offset=base_offset,
        leader_epoch=leader_epoch,
        attributes=attributes | codec,
        last_offset_delta=len(records) - 1,
        base_timestamp=base_timestamp,
        max_timestamp=max_timestamp,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        record_count=len(records),
    )


def build_marker(
    *, commit: bool, producer_id: int, producer_epoch: int, coordinator_epoch: int, timestamp_ms: int
) -> bytearray:
    """The control batch that ends a transaction in a partition (KIP-98)."""
    key = _MARKER_KEY.pack(0, COMMIT if commit else ABORT)
    value = _MARKER_VALUE.pack(0, coordinator_epoch)
    return build_batch(
        [Record(0, timestamp_ms, key, value)],
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        attributes=TRANSACTIONAL | CONTROL,
    )


def _invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_RECORD, message)


def read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """(value, next position) of a zigzag varint of at most 10 bytes; raises IndexError at the end of the data."""
    byte = data[position]
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), position + 1
    value = byte & 0x7F
    shift = 7
    while True:
        position += 1
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), position + 1
        shift += 7
        if shift > _MAX_VARINT_SHIFT:
            raise _invalid("a varint is longer than 10 bytes")


def _field(data: bytes, position: int) -> tuple[bytes | None, int]:
    size, position = read_varint(data, position)
    if size < 0:  # -1; Kafka takes others for it too
        return None, position
    end = position + size
    if end > len(data):
        raise _invalid(f"a key or value of {size} bytes in the last {len(data) - position} bytes")
    return data[position:end], end


def _headers(data: bytes, position: int) -> tuple[list[tuple[str, bytes | None]], int]:
    count, position = read_varint(data, position)
    if not 0 <= count <= len(data) - position:
        raise _invalid(f"{count} headers in the last {len(data) - position} bytes")
    headers = []
    for _ in range(count):
        name, position = _field(data, position)
        if name is None:
            raise _invalid("a header without a name")
        value, position = _field(data, position)
        headers.append((name.decode("utf-8", "replace"), value))
    return headers, position


def write_varint(output: bytearray, value: int) -> None:
    """Appends a zigzag varint."""
    value = (value << 1) ^ (value >> 63)
    while value > 0x7F:
        output.append(value & 0x7F | 0x80)
        value >>= 7
    output.append(value)


def _write_field(output: bytearray, field: bytes | None) -> None:
    if field is None:
        output.append(1)
        return
    write_varint(output, len(field))
    output += field


def _write_record(output: bytearray, record: Record, offset_delta: int, timestamp_delta: int) -> None:
    body = bytearray(1)  # attributes, of which none is defined
    write_varint(body, timestamp_delta)
    write_varint(body, offset_delta)
    _write_field(body, record.key)
    _write_field(body, record.value)
    write_varint(body, len(record.headers))
    for name, value in record.headers:
        _write_field(body, name.encode())
        _write_field(body, value)
    write_varint(output, len(body))
    output += body
