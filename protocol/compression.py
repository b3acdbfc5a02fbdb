"""The five codecs of record batches, with a bound on what a batch may expand to."""

import struct
import zlib
from collections.abc import Callable
from enum import IntEnum

import cramjam

from protocol.errors import ErrorCode, KafkaError
from protocol.wire import Buffer

MAX_DECOMPRESSED_BYTES = 128 * 1024 * 1024
"""A batch arrives in a frame of at most 100 MiB (socket.request.max.bytes); what expands beyond this is an attack."""

_FIRST_GUESS = 4  # times the compressed size: zstd and lz4 of JSON logs expand 3 to 8 times
_GUESS_GROWTH = 4
_SMALLEST_GUESS_BYTES = 64 * 1024
_OUTPUT_FULL = "failed to write whole buffer"
_GZIP = 31  # zlib's wbits for a gzip header
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = _XERIAL_MAGIC + struct.pack(">ii", 1, 1)
_XERIAL_BLOCK_BYTES = 32 * 1024
_LENGTH = struct.Struct(">i")
_GZIP_MAGIC = b"\x1f\x8b"
_LZ4_MAGIC = b"\x04\x22\x4d\x18"
_LZ4_INDEPENDENT_BLOCKS = 0x20
"""In the frame's FLG byte, which follows the magic. Java's reader knows no other frames (KafkaLZ4BlockInputStream)."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"


class ExpandsTooFar(KafkaError):
    """A payload that is more than the limit when decompressed."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(ErrorCode.CORRUPT_MESSAGE, f"a compressed batch expands to more than {limit_bytes} bytes")


class Compression(IntEnum):
    """Codec numbers as in the lowest three bits of a batch's attributes."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


def compress(codec: Compression, data: Buffer) -> bytes:
    """`data` compressed as Kafka's clients do: snappy in xerial blocks, lz4 and zstd as frames."""
    if codec == Compression.GZIP:
        compressor = zlib.compressobj(wbits=_GZIP)
        return compressor.compress(data) + compressor.flush()
    if codec == Compression.SNAPPY:
        return _compress_snappy(data)
    if codec == Compression.LZ4:
        frame = cramjam.lz4.Compressor(content_checksum=False, block_linked=False)
        frame.compress(bytes(data))  # it takes nothing else
        return bytes(frame.finish())
    if codec == Compression.ZSTD:
        return bytes(cramjam.zstd.compress(data))
    return bytes(data)


def decompress(codec: int, data: Buffer, limit_bytes: int = MAX_DECOMPRESSED_BYTES) -> bytes:
    """The original of `data`; raises KafkaError CORRUPT_MESSAGE for what does not fit the codec, ExpandsTooFar."""
    if codec == Compression.LZ4 and not opening_fits(codec, data):
        raise _corrupt("not an LZ4 frame of independent blocks")
    try:
        if codec == Compression.GZIP:
            return _decompress_gzip(data, limit_bytes)
        if codec == Compression.SNAPPY:
            return _decompress_snappy(data, limit_bytes)
        if codec == Compression.LZ4:
            return _decompress_frame(cramjam.lz4.decompress_into, data, limit_bytes)
        if codec == Compression.ZSTD:
            return _decompress_frame(cramjam.zstd.decompress_into, data, limit_bytes)
    except (cramjam.DecompressionError, zlib.error, struct.error, ValueError) as error:
        raise _corrupt(f"{Compression(codec).name.lower()} data is damaged: {error}") from error
    if codec != Compression.NONE:
        raise _corrupt(f"unknown compression codec {codec}")
    return bytes(data)


def opening_fits(codec: int, data: Buffer) -> bool:
    """Whether Kafka would begin to read `data`: the right magic and, in LZ4, independent blocks. Costs no decompression."""
    opening = bytes(data[: len(_LZ4_MAGIC) + 1])
    if codec == Compression.GZIP:
        return opening.startswith(_GZIP_MAGIC)
    if codec == Compression.LZ4:
        flags = opening[len(_LZ4_MAGIC) :]
        return opening.startswith(_LZ4_MAGIC) and bool(flags) and bool(flags[0] & _LZ4_INDEPENDENT_BLOCKS)
    if codec == Compression.ZSTD:
        return opening.startswith(_ZSTD_MAGIC) or opening[1:4] == _ZSTD_SKIPPABLE
    return bool(opening)


def _corrupt(message: str) -> KafkaError:
    return KafkaError(ErrorCode.CORRUPT_MESSAGE, message)


def _compress_snappy(data: Buffer) -> bytes:
    blocks = [_XERIAL_HEADER]
    view = memoryview(data)
    for start in range(0, len(view), _XERIAL_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(view[start : start + _XERIAL_BLOCK_BYTES]))
        blocks += (_LENGTH.pack(len(block)), block)
    return b"".join(blocks)


def _decompress_snappy(data: Buffer, limit_bytes: int) -> bytes:
    """Xerial's blocks as Java writes them, or one bare block as some other clients do."""
    view = memoryview(data)
    if view[: len(_XERIAL_MAGIC)] != _XERIAL_MAGIC:
        return _decompress_snappy_block(view, limit_bytes)
    position = len(_XERIAL_HEADER)
    blocks: list[bytes] = []
    remaining = limit_bytes
    while position < len(view):
        (size,) = _LENGTH.unpack_from(view, position)
        position += _LENGTH.size
        if not 0 <= size <= len(view) - position:
            raise _corrupt(f"a snappy block of {size} bytes in the last {len(view) - position} bytes")
        blocks.append(_decompress_snappy_block(view[position : position + size], remaining))
        remaining -= len(blocks[-1])
        position += size
    return b"".join(blocks)


def _decompress_snappy_block(block: memoryview, limit_bytes: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(block) > limit_bytes:
        raise ExpandsTooFar(limit_bytes)
    return bytes(cramjam.snappy.decompress_raw(block))


def _decompress_gzip(data: Buffer, limit_bytes: int) -> bytes:
    """All members of a gzip stream."""
    members: list[bytes] = []
    remaining = limit_bytes
    pending: Buffer = data
    while len(pending) or not members:
        decompressor = zlib.decompressobj(wbits=_GZIP)
        members.append(decompressor.decompress(pending, remaining + 1))
        remaining -= len(members[-1])
        if remaining < 0:
            raise ExpandsTooFar(limit_bytes)
        if not decompressor.eof:
            raise _corrupt("gzip data ends early")
        pending = decompressor.unused_data
    return b"".join(members)


def _decompress_frame(decompress_into: Callable[[Buffer, bytearray], int], data: Buffer, limit_bytes: int) -> bytes:
    """Decompresses into a buffer of guessed size, and into a larger one when it is full, never beyond the limit."""
    guess = max(_SMALLEST_GUESS_BYTES, _FIRST_GUESS * len(data))
    while True:
        size = min(guess, limit_bytes)
        output = bytearray(size)
        try:
            written = decompress_into(data, output)
        except cramjam.DecompressionError as error:
            if _OUTPUT_FULL not in str(error):
                raise
        else:
            return bytes(memoryview(output)[:written])
        if size == limit_bytes:
            raise ExpandsTooFar(limit_bytes)
        guess *= _GUESS_GROWTH
