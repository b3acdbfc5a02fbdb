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

from vector.arrays import Float32
from vector.index.fields import decode as decode_fields
from vector.index.fields import encode as encode_fields
from vector.index.files import Buffer, DamagedFile, checksum
from vector.index.growing import GrowingSegment
from vector.index.settings import HASH_BYTES, IndexSettings, Run

FRAME_HEAD = struct.Struct("<II")
JOURNAL_SUFFIX = ".journal"


def journal_name(identity: int) -> str:
    """File name of a growing segment's journal."""
    return f"growing-{identity:012d}{JOURNAL_SUFFIX}"


def encode_frame(
    base_offset: int, run: Run, new_rows: Float32, texts: list[str | None] | None, settings: IndexSettings
) -> bytes:
    """A run as a frame; `new_rows` are the stored vectors of contents the segment did not know, in order of first occurrence, and
    `texts` theirs (None: the index keeps no texts)."""
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
            "texts": None if texts is None else [_packed(text) for text in texts],
            "fields": None if run.fields is None else encode_fields(run.fields),
        }
    )
    return FRAME_HEAD.pack(len(payload), checksum(payload)) + payload


def _packed(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogatepass")


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
    result = Replay(segment, 0, "")
    for position, payload in frames(data):
        good = result.good_bytes
        if payload is None:
            result.damage = f"checksum of the frame at byte {good} does not match"
            break
        frame = msgpack.unpackb(payload, strict_map_key=False)
        if frame["dimensions"] != settings.dimensions:
            raise DamagedFile(path, f"has {frame['dimensions']} dimensions, the index has {settings.dimensions}")
        if frame["base_offset"] != segment.next_offset:
            result.damage = f"frame at byte {good} begins at offset {frame['base_offset']}, not {segment.next_offset}"
            break
        segment.outdated |= "fields" not in frame or (settings.texts and frame.get("texts") is None)
        segment.append_stored(*_run(frame, segment))
        result.good_bytes = position
    return result


def _run(frame: dict[str, Any], segment: GrowingSegment) -> tuple[Run, Float32]:
    raw = frame["hashes"]
    hashes = [raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)]
    rows = np.frombuffer(frame["rows"], dtype=frame["dtype"]).astype(np.float32)
    texts: dict[bytes, str] = {}
    if frame.get("texts") is not None:
        new = [content for content in dict.fromkeys(hashes) if segment.nodes_of([content])[0] < 0]
        kept = zip(new, frame["texts"], strict=True)
        texts = {content: text.decode("utf-8", "surrogatepass") for content, text in kept if text is not None}
    run = Run(
        offsets=np.frombuffer(frame["offsets"], dtype="<i8"),
        timestamps_ms=np.frombuffer(frame["timestamps_ms"], dtype="<i8"),
        hashes=hashes,
        vectors=np.empty((0, segment.settings.dimensions), dtype=np.float32),
        flags=np.frombuffer(frame["flags"], dtype="u1"),
        skipped=Counter(dict(frame["skipped"])),
        failed=frame["failed"],
        texts=texts,
        fields=None if frame.get("fields") is None else decode_fields(frame["fields"]),
        next_offset=frame["next_offset"],
    )
    return run, rows.reshape(-1, segment.settings.dimensions)
