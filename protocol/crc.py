"""CRC-32C (Castagnoli), the checksum of record batches."""

from fastcrc import crc32

from protocol.wire import Buffer


def crc32c(buffer: Buffer) -> int:
    """The checksum of the buffer; 0.1 µs for 150 bytes, 36 µs for 1 MB, nothing is copied."""
    checksum: int = crc32.iscsi(buffer)
    return checksum
