"""The keys of a batch's records, and the batch with fewer of them: what compaction does with batches (KIP-58, KAFKA-8522).

A record that stays keeps its bytes: offsets and timestamps of a batch are relative to its header, which stays too.
"""

from collections.abc import Sequence

from protocol.batch_header import (
    BATCH_OVERHEAD,
    CONTROL,
    DELETE_HORIZON,
    LOG_APPEND_TIME,
    TRANSACTIONAL,
    BatchHeader,
    pack_header,
)
from protocol.compression import Compression, compress, decompress
from protocol.errors import ErrorCode, KafkaError
from protocol.records import read_varint, write_varint

NO_TIMESTAMP = -1


class KeyedRecords:
    """A batch's records in parallel lists, in offset order."""

    __slots__ = ("ends", "keys", "offset_deltas", "payload", "starts", "timestamp_deltas", "tombstones")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        """Decompressed."""
        self.starts: list[int] = []
        """Where in the payload each record begins."""
        self.ends: list[int] = []
        self.offset_deltas: list[int] = []
        self.timestamp_deltas: list[int] = []
        self.keys: list[bytes | None] = []
        self.tombstones: list[bool] = []
        """Whether the value is null."""

    def __len__(self) -> int:
        return len(self.keys)


def read_keys(header: BatchHeader, batch: memoryview) -> KeyedRecords:
    """The records of a batch. Values and headers are hopped over.

    Raises KafkaError: CORRUPT_MESSAGE if the payload does not fit its codec, INVALID_RECORD if it does not hold exactly
    the header's number of whole records in ascending order of offset.
    """
    payload = decompress(header.compression, batch[BATCH_OVERHEAD:])
    records = KeyedRecords(payload)
    try:
        end = _walk(records, payload, header.record_count)
    except IndexError as error:
        raise _invalid("the batch ends within a record") from error
    if end != len(payload):
        raise _invalid(f"{len(payload) - end} bytes behind the batch's {header.record_count} records")
    deltas = records.offset_deltas
    inside = not deltas or (deltas[0] >= 0 and deltas[-1] <= header.last_offset_delta)
    if not inside or not all(map(int.__lt__, deltas, deltas[1:])):
        raise _invalid("offsets do not ascend within the batch's")
    return records


def _walk(records: KeyedRecords, payload: bytes, count: int) -> int:
    """Varints of one byte are read in line; most are. Returns the position behind the last record."""
    position, length = 0, len(payload)
    starts, ends, keys, tombstones = records.starts, records.ends, records.keys, records.tombstones
    timestamp_deltas, offset_deltas = records.timestamp_deltas, records.offset_deltas
    for _ in range(count):
        starts.append(position)
        size = payload[position]
        if size > 0x7F:
            size, position = read_varint(payload, position)
        else:
            size, position = (size >> 1) ^ -(size & 1), position + 1
        end = position + size
        delta = payload[position + 1]  # behind the attributes, of which none is defined
        if delta > 0x7F:
            delta, position = read_varint(payload, position + 1)
        else:
            delta, position = (delta >> 1) ^ -(delta & 1), position + 2
        timestamp_deltas.append(delta)
        delta = payload[position]
        if delta > 0x7F:
            delta, position = read_varint(payload, position)
        else:
            delta, position = (delta >> 1) ^ -(delta & 1), position + 1
        offset_deltas.append(delta)
        size = payload[position]
        if size > 0x7F:
            size, position = read_varint(payload, position)
        else:
            size, position = (size >> 1) ^ -(size & 1), position + 1
        if size < 0:
            keys.append(None)
        else:
            keys.append(payload[position : position + size])
            position += size
        size = payload[position]
        if size > 0x7F:
            size, position = read_varint(payload, position)
        else:
            size, position = (size >> 1) ^ -(size & 1), position + 1
        tombstones.append(size < 0)
        # At least one byte follows, the number of headers.
        if end > length or (position if size < 0 else position + size) >= end:
            raise _invalid(f"a record that ends at byte {end}, which its key and value do not fit into")
        ends.append(end)
        position = end
    return position


def keep_records(
    header: BatchHeader, records: KeyedRecords, kept: Sequence[int], *, delete_horizon_ms: int | None = None
) -> bytearray:
    """The batch with only the records of these indexes (ascending, at least one), in its own codec.

    Offsets, sequences and times stay. `delete_horizon_ms`: write it into the header (KAFKA-8522): base timestamp and flag;
    None: leave both as they are.
    """
    payload, base_timestamp, attributes = records.payload, header.base_timestamp, header.attributes
    if delete_horizon_ms is None:
        body = b"".join([payload[records.starts[index] : records.ends[index]] for index in kept])
    else:
        attributes |= DELETE_HORIZON
        shift = base_timestamp - delete_horizon_ms
        base_timestamp = delete_horizon_ms
        body = b"".join([_shifted(records, index, shift) for index in kept])
    max_timestamp = header.max_timestamp
    if not attributes & LOG_APPEND_TIME:
        max_timestamp = header.base_timestamp + max(records.timestamp_deltas[index] for index in kept)
    return pack_header(
        compress(Compression(header.compression), body),
        base_offset=header.base_offset, leader_epoch=header.leader_epoch, attributes=attributes,
        last_offset_delta=header.last_offset_delta, base_timestamp=base_timestamp, max_timestamp=max_timestamp,
        producer_id=header.producer_id, producer_epoch=header.producer_epoch, base_sequence=header.base_sequence,
        record_count=len(kept),
    )  # fmt: skip


def empty_batch(header: BatchHeader) -> bytearray:
    """The batch without its records: what is left to say which offsets and sequences there were.

    As Kafka's DefaultRecordBatch.writeEmptyHeader.
    """
    return pack_header(
        b"",
        base_offset=header.base_offset, leader_epoch=header.leader_epoch,
        attributes=header.attributes & (TRANSACTIONAL | CONTROL | LOG_APPEND_TIME),
        last_offset_delta=header.last_offset_delta, base_timestamp=NO_TIMESTAMP, max_timestamp=header.max_timestamp,
        producer_id=header.producer_id, producer_epoch=header.producer_epoch, base_sequence=header.base_sequence,
        record_count=0,
    )  # fmt: skip


def _shifted(records: KeyedRecords, index: int, shift: int) -> bytes:
    """A record whose timestamp delta is `shift` larger."""
    payload, end = records.payload, records.ends[index]
    _, attributes = read_varint(payload, records.starts[index])
    _, rest = read_varint(payload, attributes + 1)
    body = bytearray(payload[attributes : attributes + 1])
    write_varint(body, records.timestamp_deltas[index] + shift)
    body += payload[rest:end]
    output = bytearray()
    write_varint(output, len(body))
    return bytes(output + body)


def _invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_RECORD, message)
