"""Batches in the codec that their topic asks for (`compression.type` other than `producer`)."""

import struct

from protocol.compression import Compression, compress, decompress
from protocol.crc import crc32c
from protocol.record_batch import BATCH_OVERHEAD, BatchHeader
from protocol.records import iterate_records

CODECS = {
    "producer": None,
    "uncompressed": Compression.NONE,
    "gzip": Compression.GZIP,
    "snappy": Compression.SNAPPY,
    "lz4": Compression.LZ4,
    "zstd": Compression.ZSTD,
}
_CODEC_MASK = 0x07
_LENGTH_POSITION, _CRC_POSITION, _ATTRIBUTES_POSITION = 8, 17, 21
_LENGTH_FROM = 12
"""A batch's length counts from here."""


def recompressed(records: memoryview, batch: BatchHeader, codec: Compression) -> memoryview:
    """The batch in another codec, its records byte for byte as they were.

    Decompresses and compresses on the caller's thread: a price that only topics pay that ask for it. Raises KafkaError
    CORRUPT_MESSAGE or INVALID_RECORD for records that are not what the header says.
    """
    for _ in iterate_records(records):
        pass
    payload = compress(codec, decompress(batch.compression, records[BATCH_OVERHEAD : batch.size]))
    result = bytearray(records[:BATCH_OVERHEAD])
    result += payload
    attributes = batch.attributes & ~_CODEC_MASK | codec
    struct.pack_into(">i", result, _LENGTH_POSITION, len(result) - _LENGTH_FROM)
    struct.pack_into(">h", result, _ATTRIBUTES_POSITION, attributes)
    struct.pack_into(">I", result, _CRC_POSITION, crc32c(memoryview(result)[_ATTRIBUTES_POSITION:]))
    return memoryview(result)
