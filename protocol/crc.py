"""CRC-32C (Castagnoli), the checksum of record batches."""

from collections.abc import Callable

from fastcrc import crc32

from protocol.wire import Buffer

crc32c: Callable[[Buffer], int] = crc32.iscsi
"""The checksum of the buffer; 0.1 µs for 150 bytes, 36 µs for 1 MB, nothing is copied."""
