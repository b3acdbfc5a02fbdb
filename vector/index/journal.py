"""The journal of a growing segment: one frame per run, so that a restart has its rows again without embedding them.

Frame: length uint32 LE, CRC32C of the payload uint32 LE, payload (msgpack). Rows of contents the segment did not know yet are
in the payload in the stored precision; the rest refers to them by hash.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from vector.index.files import Buffer, DamagedFile, checksum
from vector.index.growing import GrowingSegment
from vector.index.settings import HASH_BYTES, Float32, IndexSettings, Run

FRAME_HEAD = struct.Struct("<II")
JOURNAL_SUFFIX = ".journal"


def journal_name(identity: int) -> str:
    """File name of a growing segment's journal."""
    return f"growing-{identity:012d}{JOURNAL_SUFFIX}"


def encode_frame(base_offset: int, run: Run, new_rows: Float32, settings: IndexSettings) -> bytes:
    """A run as a frame; `new_rows` are the stored vectors of contents the segment did not know, in order of first occurrence."""
    payload: bytes = msgpack.packb(
        {
            "base_offset": base_offset,
            "next_offset": run.next_offset,
            "dimensions": settings.dimensions,
            "dtype": settings.vector_dtype.str,
            "offsets": run.offsets.astype("<i8").tobytes(),
            "timestamps_ms": run.timestamps_ms.astype("<i8").tobytes(),
            "flags": run.flags.astype("u1").tobytes(),
            "hashes": b"".join(run.hashes),
            "rows": new_rows.astype(settings.vector_dtype).tobytes(),
            "skipped": dict(run.skipped),
            "failed": run.failed,
        }
    )
    return FRAME_HEAD.pack(len(payload), checksum(payload)) + payload


@dataclass(slots=True)
class Replay:
    """A journal read back: its segment, how many bytes were whole frames, and what was wrong with the rest ("" = nothing;
    a torn tail after a crash is nothing wrong)."""

    segment: GrowingSegment
    good_bytes: int
    damage: str


def frames(data: Buffer) -> Iterator[tuple[int, bytes | None]]:
    """Whole frames with the position after each; None as payload where a frame's checksum does not match. Stops at a torn tail."""
    position = 0
    while position + FRAME_HEAD.size <= len(data):
        length, expected = FRAME_HEAD.unpack_from(data, position)
        end = position + FRAME_HEAD.size + length
        if length == 0 or end > len(data):
            return  # the append was cut, or the file system had grown the file but not written it
        payload = bytes(data[position + FRAME_HEAD.size : end])
        if checksum(payload) != expected:
            yield position, None
            return
        yield end, payload
        position = end


def replay(path: Path, data: Buffer, identity: int, base_offset: int, settings: IndexSettings) -> Replay:
    """Rebuilds a growing segment. Raises DamagedFile when the journal belongs to an index of other dimensions."""
    segment = GrowingSegment(identity, base_offset, settings)
    good = 0
    for position, payload in frames(data):
        if payload is None:
            return Replay(segment, good, f"checksum of the frame at byte {good} does not match")
        fields = msgpack.unpackb(payload, strict_map_key=False)
        if fields["dimensions"] != settings.dimensions:
            raise DamagedFile(path, f"has {fields['dimensions']} dimensions, the index has {settings.dimensions}")
        if fields["base_offset"] != segment.next_offset:
            return Replay(
                segment,
                good,
                f"frame at byte {good} begins at offset {fields['base_offset']}, not {segment.next_offset}",
            )
        segment.append_stored(*_run(fields, segment))
        good = position
    return Replay(segment, good, "")


def _run(fields: dict[str, Any], segment: GrowingSegment) -> tuple[Run, Float32]:
    raw = fields["hashes"]
    hashes = [raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)]
    rows = np.frombuffer(fields["rows"], dtype=fields["dtype"]).astype(np.float32)
    run = Run(
        offsets=np.frombuffer(fields["offsets"], dtype="<i8"),
        timestamps_ms=np.frombuffer(fields["timestamps_ms"], dtype="<i8"),
        hashes=hashes,
        vectors=np.empty((0, segment.settings.dimensions), dtype=np.float32),
        flags=np.frombuffer(fields["flags"], dtype="u1"),
        skipped=Counter(dict(fields["skipped"])),
        failed=fields["failed"],
        next_offset=fields["next_offset"],
    )
    return run, rows.reshape(-1, segment.settings.dimensions)
