"""The bytes of a WAL file: a header, then frames; pure functions over buffers.

    file    magic 8 | version u32 | generation u64 | salt 8 | crc u32                       64 bytes, zero-padded
    frame   magic 4 | crc u32 | sequence u64 | synced sequence u64 | payload bytes u32 | entries u32
            payload (record batches and control messages, back to back) | table of entries
    entry   topic id 16 | partition i32 | base offset i64 | size u32 | crc u32 | leader epoch i32

The frame's crc covers generation, salt, header and table. The table carries the crc32c of every payload, which for a
record batch is the one inside it, checked when it arrived; so nothing is summed twice (36 us per MB). The base
offset, length and leader epoch of a batch lie outside its own crc and are compared with the table.

`synced sequence` is the newest frame known to be on the disk when this one was written: proof, at recovery, that a
bad frame before it is damage and not the torn end of the log. The salt keeps a producer from forging frames in its records.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from protocol.crc import crc32c
from storage.file_system import Buffer

FILE_MAGIC = b"SENSEWAL"
FILE_VERSION = 1
FILE_HEADER_BYTES = 64
FRAME_MAGIC = b"\xf5WF\x01"
FRAME_HEADER_BYTES = 32
ENTRY_BYTES = 40
CRC_START = 21
"""Where a record batch's own checksum begins to count (Kafka's record batch v2)."""

CREATE, DELETE, LOG_START = -1, -2, -3
"""Base offsets that mark control messages: a log is created (payload: name, leader epoch), deleted, or starts later (payload: offset)."""

_FILE_HEADER = struct.Struct(">8sIQ8s")
_FRAME_REST = struct.Struct(">QQII")
_FRAME = struct.Struct(">4sI24s")
_U32 = struct.Struct(">I")
_BATCH_HEADER = struct.Struct(">qiibI")
_ENTRY = struct.Struct(">16siqIIi")
pack_entry = _ENTRY.pack


@dataclass(frozen=True, slots=True)
class Generation:
    """What makes the frames of one use of a WAL file different from those of any other use."""

    number: int
    salt: bytes

    def seed(self) -> bytes:
        """Goes into the checksum of every frame."""
        return self.number.to_bytes(8, "big") + self.salt


class Entry(NamedTuple):
    """One record batch or control message in a frame."""

    topic_id: bytes
    partition: int
    base_offset: int
    size: int
    crc: int
    leader_epoch: int
    position: int
    """Of its payload in the file."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A valid frame."""

    sequence: int
    synced_sequence: int
    entries: list[Entry]
    end: int
    """Position of the next frame."""


def encode_file_header(generation: Generation) -> bytes:
    """64 bytes."""
    fields = _FILE_HEADER.pack(FILE_MAGIC, FILE_VERSION, generation.number, generation.salt)
    return (fields + _U32.pack(crc32c(fields))).ljust(FILE_HEADER_BYTES, b"\0")


def decode_file_header(data: Buffer) -> Generation | None:
    """None if these are not the first 64 bytes of a WAL file."""
    if len(data) < FILE_HEADER_BYTES:
        return None
    magic, version, number, salt = _FILE_HEADER.unpack_from(data)
    (crc,) = _U32.unpack_from(data, _FILE_HEADER.size)
    if magic != FILE_MAGIC or version != FILE_VERSION or crc != crc32c(bytes(data[: _FILE_HEADER.size])):
        return None
    return Generation(number, salt)


def encode_frame_header(
    seed: bytes, sequence: int, synced_sequence: int, payload_bytes: int, entries: int, table: bytes
) -> bytes:
    """32 bytes."""
    rest = _FRAME_REST.pack(sequence, synced_sequence, payload_bytes, entries)
    return _FRAME.pack(FRAME_MAGIC, crc32c(seed + rest + table), rest)


def read_frame(view: memoryview, position: int, seed: bytes) -> Frame | None:
    """The frame at `position` of a WAL file; None if there is none, or any of its bytes is wrong."""
    frame = _read_table(view, position, seed)
    if frame is None or not all(payload_is_whole(view, entry) for entry in frame.entries):
        return None
    return frame


def _read_table(view: memoryview, position: int, seed: bytes) -> Frame | None:
    start = position + FRAME_HEADER_BYTES
    if start > len(view) or view[position : position + 4] != FRAME_MAGIC:
        return None
    rest = bytes(view[position + 8 : start])
    sequence, synced_sequence, payload_bytes, count = _FRAME_REST.unpack(rest)
    table_position = start + payload_bytes
    end = table_position + count * ENTRY_BYTES
    if end > len(view):
        return None
    table = bytes(view[table_position:end])
    if _U32.unpack_from(view, position + 4)[0] != crc32c(seed + rest + table):
        return None
    entries: list[Entry] = []
    at = start
    for topic_id, partition, base_offset, size, crc, leader_epoch in _ENTRY.iter_unpack(table):
        entries.append(Entry(topic_id, partition, base_offset, size, crc, leader_epoch, at))
        at += size
    return Frame(sequence, synced_sequence, entries, end) if at == table_position else None


def payload_is_whole(view: memoryview, entry: Entry) -> bool:
    """Whether an entry's bytes are the ones that were written."""
    payload = view[entry.position : entry.position + entry.size]
    if entry.base_offset < 0:
        return crc32c(payload) == entry.crc
    if entry.size < CRC_START + 40:
        return False
    expected = (entry.base_offset, entry.size - 12, entry.leader_epoch, 2, entry.crc)
    return _BATCH_HEADER.unpack_from(payload) == expected and crc32c(payload[CRC_START:]) == entry.crc


def find_frames(view: memoryview, position: int, seed: bytes) -> Iterator[Frame]:
    """Frames with an intact header and table anywhere behind `position`, after a bad one whose length cannot be trusted."""
    data = view.obj
    find = data.find if hasattr(data, "find") else bytes(view).find
    while (position := find(FRAME_MAGIC, position)) >= 0:
        frame = _read_table(view, position, seed)
        if frame is not None:
            yield frame
        position += 1
