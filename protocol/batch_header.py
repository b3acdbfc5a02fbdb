"""The headers of record batches (magic 2): reading, checking and patching them without touching the records.

Layout (https://kafka.apache.org/documentation/#recordbatch): base_offset int64, batch_length int32 (bytes behind it),
partition_leader_epoch int32, magic int8, crc uint32, attributes int16, last_offset_delta int32, base_timestamp int64,
max_timestamp int64, producer_id int64, producer_epoch int16, base_sequence int32, record_count int32, records.
The checksum covers everything from the attributes on, so offset and leader epoch can be patched in place.
"""

import struct
from collections.abc import Callable
from typing import TypeAlias

from protocol.compression import Compression
from protocol.crc import crc32c
from protocol.errors import ErrorCode, KafkaError

BATCH_OVERHEAD = 61
MAGIC = 2

TRANSACTIONAL = 0x10
CONTROL = 0x20
LOG_APPEND_TIME = 0x08
DELETE_HORIZON = 0x40
CODEC_MASK = 0x07

_HEADER = struct.Struct(">qiibIhiqqqhii")
LENGTH_COUNTS_FROM = 12  # base offset and length, which the length does not count
_SIZE_UP_TO_MAGIC = 17
_SMALLEST_LENGTH = 14  # Kafka's LegacyRecord.RECORD_OVERHEAD_V0: less cannot be a batch of any magic
_LENGTH_POSITION = 8
_MAGIC_POSITION = 16
_CRC_POSITION = 17
CHECKED_FROM = 21
_MAX_TIMESTAMP_POSITION = 35
_ZSTD_MIN_PRODUCE_VERSION = 7

patch_batch = struct.Struct(">qii").pack_into
"""patch_batch(records, position, base_offset, batch_length, leader_epoch): writes offset and leader epoch into a batch.

The length between them is written as it is, so that one call does it; the checksum does not cover the three.
"""

BatchFields: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, bytes]
"""What a `BatchHeader` is made of, in the order of the layout above, and the first eight bytes behind it."""
FIELDS_BYTES = BATCH_OVERHEAD + 8
read_fields: Callable[[memoryview], BatchFields] = struct.Struct(f"{_HEADER.format}8s").unpack_from
"""From the first FIELDS_BYTES of a batch. An object of them takes another 0.2 µs."""

_INT64 = struct.Struct(">q")
_INT32 = struct.Struct(">i")
_UINT32 = struct.Struct(">I")
_INT16 = struct.Struct(">h")


class UnreadableBatch(KafkaError):
    """The bytes have no batch's frame: an impossible length or magic. Kafka refuses the whole Produce request for it."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.CORRUPT_MESSAGE, message)


class BatchHeader:
    """A batch's header, and where the batch lies: `position` and `size` in bytes, header included."""

    __slots__ = (
        "attributes",
        "base_offset",
        "base_sequence",
        "base_timestamp",
        "batch_length",
        "crc",
        "last_offset_delta",
        "leader_epoch",
        "magic",
        "max_timestamp",
        "position",
        "producer_epoch",
        "producer_id",
        "record_count",
        "size",
    )

    def __init__(self, records: memoryview, position: int = 0) -> None:
        """Reads the header at `position`, of which `records` must hold all 61 bytes."""
        (
            self.base_offset,
            self.batch_length,
            self.leader_epoch,
            self.magic,
            self.crc,
            self.attributes,
            self.last_offset_delta,
            self.base_timestamp,
            self.max_timestamp,
            self.producer_id,
            self.producer_epoch,
            self.base_sequence,
            self.record_count,
        ) = _HEADER.unpack_from(records, position)
        self.position = position
        self.size: int = self.batch_length + LENGTH_COUNTS_FROM

    @property
    def compression(self) -> int:
        """The codec's number; see `Compression`. 5 to 7 are none."""
        codec: int = self.attributes & CODEC_MASK
        return codec

    @property
    def transactional(self) -> bool:
        """Whether the batch belongs to a transaction."""
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def control(self) -> bool:
        """Whether the batch is a transaction's marker, which consumers do not see."""
        return bool(self.attributes & CONTROL)

    @property
    def whole(self) -> bool:
        """Whether there is a record at every offset from the first to the last: compaction has taken none."""
        whole: bool = self.record_count == self.last_offset_delta + 1
        return whole

    @property
    def log_append_time(self) -> bool:
        """Whether all records bear `max_timestamp`, the time at which the broker appended them."""
        return bool(self.attributes & LOG_APPEND_TIME)

    @property
    def delete_horizon_ms(self) -> int | None:
        """From when on compaction may remove the batch's tombstones or marker (KAFKA-8522); None: nobody has said yet."""
        return self.base_timestamp if self.attributes & DELETE_HORIZON else None

    @property
    def last_offset(self) -> int:
        """The offset of the batch's last record, also when compaction has removed that."""
        last: int = self.base_offset + self.last_offset_delta
        return last

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name, None)!r}" for name in self.__slots__)
        return f"BatchHeader({fields})"


def walk_batches(records: memoryview) -> list[BatchHeader]:
    """Headers of all whole batches, unchecked; a cut batch at the end is left out, as Kafka leaves it out.

    Raises UnreadableBatch for a length or magic that no batch has, KafkaError INVALID_RECORD for magic 0 and 1, and
    KafkaError CORRUPT_MESSAGE for a batch shorter than its header.
    """
    batches = []
    position = 0
    end = len(records)
    while end - position >= _SIZE_UP_TO_MAGIC:
        (length,) = _INT32.unpack_from(records, position + _LENGTH_POSITION)
        if length < _SMALLEST_LENGTH:
            raise UnreadableBatch(f"a record batch of length {length}, below {_SMALLEST_LENGTH}")
        magic = records[position + _MAGIC_POSITION]
        if magic > MAGIC:
            raise UnreadableBatch(f"a record batch of magic {magic}, of 0 to {MAGIC}")
        if length > end - position - LENGTH_COUNTS_FROM:
            break
        if magic < MAGIC:
            raise KafkaError(ErrorCode.INVALID_RECORD, f"a record batch of magic {magic}, which ended with Kafka 4.0")
        if length < BATCH_OVERHEAD - LENGTH_COUNTS_FROM:
            raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"a record batch of length {length}, shorter than its header")
        batches.append(BatchHeader(records, position))
        position += length + LENGTH_COUNTS_FROM
    return batches


def crc_matches(records: memoryview, batch: BatchHeader) -> bool:
    """Whether the batch's checksum is that of its bytes."""
    checksum: int = batch.crc
    return crc32c(records[batch.position + CHECKED_FROM : batch.position + batch.size]) == checksum


def parse_batches(records: memoryview) -> list[BatchHeader]:
    """Headers of all whole batches of a log, with lengths, magic, checksums and counts checked.

    Raises KafkaError as `walk_batches`, CORRUPT_MESSAGE for a wrong checksum, INVALID_RECORD for more records than offsets
    (compaction leaves fewer).
    """
    batches = walk_batches(records)
    for batch in batches:
        if not crc_matches(records, batch):
            raise _wrong_crc(batch)
        if not 0 <= batch.record_count <= batch.last_offset_delta + 1:
            raise _wrong_count(batch)
    return batches


def parse_produced(records: memoryview | None, *, version: int, max_message_bytes: int) -> BatchHeader:
    """The one batch of a partition in a Produce request of `version`, checked as Kafka checks it, in Kafka's order.

    Raises KafkaError (oracle scenario produce_batch_fields). INVALID_RECORD: no batch, several, an old magic, a base
    offset other than 0, wrong counts, a marker, a producer id without a sequence. UNSUPPORTED_COMPRESSION_TYPE: zstd
    before version 7. MESSAGE_TOO_LARGE: above `max_message_bytes`. CORRUPT_MESSAGE: a wrong checksum or length.
    """
    batches = walk_batches(records) if records is not None else []
    if not batches:
        raise KafkaError(ErrorCode.INVALID_RECORD, "a Produce request without a whole record batch")
    batch = batches[0]
    if batch.attributes & CODEC_MASK == Compression.ZSTD and version < _ZSTD_MIN_PRODUCE_VERSION:
        raise KafkaError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"zstd with Produce version {version}, before 7")
    if len(batches) > 1:
        raise KafkaError(ErrorCode.INVALID_RECORD, f"{len(batches)} record batches for one partition instead of 1")
    assert records is not None
    if batch.base_offset:
        raise KafkaError(ErrorCode.INVALID_RECORD, f"a base offset of {batch.base_offset} instead of 0")
    if batch.size > max_message_bytes:
        message = f"a record batch of {batch.size} bytes, above max.message.bytes {max_message_bytes}"
        raise KafkaError(ErrorCode.MESSAGE_TOO_LARGE, message)
    if not crc_matches(records, batch):
        raise _wrong_crc(batch)
    if batch.record_count <= 0 or batch.last_offset_delta + 1 != batch.record_count:
        raise _wrong_count(batch)
    if batch.attributes & CONTROL:
        raise KafkaError(ErrorCode.INVALID_RECORD, "clients must not write control batches")
    if batch.producer_id >= 0 and batch.base_sequence < 0:
        message = f"producer id {batch.producer_id} with sequence number {batch.base_sequence}"
        raise KafkaError(ErrorCode.INVALID_RECORD, message)
    return batch


def _wrong_crc(batch: BatchHeader) -> KafkaError:
    return KafkaError(ErrorCode.CORRUPT_MESSAGE, f"the checksum of the record batch at byte {batch.position} is wrong")


def _wrong_count(batch: BatchHeader) -> KafkaError:
    message = f"a record batch of {batch.record_count} records with last offset delta {batch.last_offset_delta}"
    return KafkaError(ErrorCode.INVALID_RECORD, message)


def pack_header(
    body: bytes,
    *,
    base_offset: int,
    leader_epoch: int,
    attributes: int,
    last_offset_delta: int,
    base_timestamp: int,
    max_timestamp: int,
    producer_id: int,
    producer_epoch: int,
    base_sequence: int,
    record_count: int,
) -> bytearray:
    """A whole batch: this header, with length and checksum, and `body`, its payload as the attributes say."""
    batch = bytearray(BATCH_OVERHEAD)
    batch += body
    length = len(batch) - LENGTH_COUNTS_FROM
    fields = (
        attributes, last_offset_delta, base_timestamp, max_timestamp, producer_id, producer_epoch, base_sequence,
        record_count,
    )  # fmt: skip
    _HEADER.pack_into(batch, 0, base_offset, length, leader_epoch, MAGIC, 0, *fields)
    _UINT32.pack_into(batch, _CRC_POSITION, crc32c(memoryview(batch)[CHECKED_FROM:]))
    return batch


def patch_log_append_time(records: memoryview, position: int, timestamp_ms: int) -> None:
    """Stamps the batch at `position` with the time of its append (KIP-32) and computes its checksum anew."""
    (length,) = _INT32.unpack_from(records, position + _LENGTH_POSITION)
    (attributes,) = _INT16.unpack_from(records, position + CHECKED_FROM)
    _INT16.pack_into(records, position + CHECKED_FROM, attributes | LOG_APPEND_TIME)
    _INT64.pack_into(records, position + _MAX_TIMESTAMP_POSITION, timestamp_ms)
    checksum = crc32c(records[position + CHECKED_FROM : position + LENGTH_COUNTS_FROM + length])
    _UINT32.pack_into(records, position + _CRC_POSITION, checksum)
