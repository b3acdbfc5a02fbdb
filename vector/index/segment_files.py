"""The files of a sealed segment, beside its FAISS files: one file of columns, self-describing and checksummed.

Layout: magic, header length uint32 LE, header (msgpack), padding to 8 bytes, the arrays one after the other, each padded to 8
bytes; last 4 bytes: CRC32C of everything before. The header names the segment's other files with size and checksum, so that a
segment can be verified even when the manifest is lost.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from vector.arrays import Hashes, Int32, Int64
from vector.index.columns import Columns
from vector.index.files import Buffer, DamagedFile, FileReference, checksum, map_file, read_by
from vector.index.segment import Trust
from vector.index.settings import HASH_BYTES, Counts, Metric, Storage

MAGIC = b"SLIDX001"
COLUMNS_SUFFIX = ".columns"
VECTORS_SUFFIX = ".vec"
GRAPH_SUFFIX = ".faiss"
FIELDS_SUFFIX = ".fields"
TEXTS_SUFFIX = ".texts"
"""A folder: tantivy's own files."""
ARRAYS = {
    "offsets": "<i8", "timestamps_ms": "<i8", "flags": "u1", "nodes": "<i4",
    "starts": "<i8", "by_node": "<i4", "hashes": f"S{HASH_BYTES}", "hash_order": "<i4",
}  # fmt: skip


@dataclass(slots=True, frozen=True)
class SegmentHeader:
    """What a segment says about itself. `graph_trust`: see SegmentView; `recall`: @10 of the graph, sampled
    when it was built."""

    identity: int
    base_offset: int
    next_offset: int
    counts: Counts
    dimensions: int
    metric: Metric
    storage: Storage
    nodes: int
    postings: int
    timestamp_min: int
    timestamp_max: int
    chunked: bool
    graph_trust: tuple[Trust, ...]
    recall: float
    files: tuple[FileReference, ...]

    @property
    def row_dtype(self) -> np.dtype[Any]:
        """Of the stored vectors."""
        return np.dtype("<f4" if self.storage == "fp32" else "<f2")

    @property
    def row_bytes(self) -> int:
        """Of one stored vector."""
        return self.dimensions * self.row_dtype.itemsize

    @property
    def rows_start(self) -> int:
        """Where the vectors begin in their file: they are the end of what FAISS writes of a flat index."""
        return self.size_of(VECTORS_SUFFIX) - self.nodes * self.row_bytes

    def size_of(self, suffix: str) -> int:
        """Bytes of the file that ends so, 0 where there is none."""
        return sum(file.size for file in self.files if file.name.endswith(suffix))


@dataclass(slots=True, frozen=True)
class SegmentColumns:
    """A segment's sidecar: postings, the way back from nodes to postings, content hashes in node order and their sorting order."""

    columns: Columns
    starts: Int64
    by_node: Int32
    hashes: Hashes
    hash_order: Int32


def segment_name(identity: int) -> str:
    """File name of a segment, without suffix."""
    return f"segment-{identity:012d}"


def encode(header: SegmentHeader, data: SegmentColumns) -> Iterator[Buffer]:
    """The columns file, in pieces."""
    columns = data.columns
    arrays: list[npt.NDArray[Any]] = [
        columns.offsets, columns.timestamps_ms, columns.flags, columns.nodes,
        data.starts, data.by_node, data.hashes, data.hash_order,
    ]  # fmt: skip
    packed = msgpack.packb(_header_fields(header, arrays))
    head = MAGIC + struct.pack("<I", len(packed)) + packed
    body = [head + bytes(-len(head) % 8)]
    for array, dtype in zip(arrays, ARRAYS.values(), strict=True):
        raw = np.ascontiguousarray(array, dtype=dtype).tobytes()
        body.append(raw + bytes(-len(raw) % 8))
    joined = b"".join(body)
    yield joined
    yield struct.pack("<I", checksum(joined))


def _header_fields(header: SegmentHeader, arrays: list[npt.NDArray[Any]]) -> dict[str, Any]:
    fields = {name: getattr(header, name) for name in SegmentHeader.__slots__}
    fields["counts"] = header.counts.to_json()
    fields["files"] = [[file.name, file.size, file.checksum] for file in header.files]
    fields["graph_trust"] = [[trust.closeness_min, trust.levels] for trust in header.graph_trust]
    fields["lengths"] = [len(array) for array in arrays]
    return fields


def decode(path: Path) -> tuple[SegmentHeader, SegmentColumns]:
    """Opens a columns file memory-mapped and verified. Raises DamagedFile."""
    data = map_file(path)
    if len(data) < len(MAGIC) + 8 or bytes(data[: len(MAGIC)]) != MAGIC:
        raise DamagedFile(path, "not a columns file")
    if checksum(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise DamagedFile(path, "checksum does not match")
    with read_by("this version", path):
        return _decoded(data)


def _decoded(data: memoryview) -> tuple[SegmentHeader, SegmentColumns]:
    position = len(MAGIC) + 4
    end = position + struct.unpack_from("<I", data, len(MAGIC))[0]
    fields = msgpack.unpackb(data[position:end])
    position = end + -end % 8
    arrays: dict[str, npt.NDArray[Any]] = {}
    for (name, dtype), length in zip(ARRAYS.items(), fields.pop("lengths"), strict=True):
        arrays[name] = np.frombuffer(data, dtype=dtype, count=length, offset=position)
        position += arrays[name].nbytes + -arrays[name].nbytes % 8
    fields["counts"] = Counts.from_json(fields["counts"])
    fields["files"] = tuple(FileReference(*file) for file in fields["files"])
    fields["graph_trust"] = tuple(
        Trust(least, tuple((width, depth) for width, depth in levels)) for least, levels in fields["graph_trust"]
    )
    header = SegmentHeader(**fields)
    columns = Columns(
        arrays.pop("offsets"), arrays.pop("timestamps_ms"), arrays.pop("flags"), arrays.pop("nodes"),
        *(header.nodes, header.timestamp_min, header.timestamp_max, header.chunked),
    )  # fmt: skip
    return header, SegmentColumns(columns, **arrays)
