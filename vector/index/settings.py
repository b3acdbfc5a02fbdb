"""What an index is made of: its settings, the run of records appended to it, and the counts it keeps."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np

from vector.arrays import Float32, Int64, UInt8
from vector.index.fields import Fields

Metric = Literal["cosine", "dot", "l2"]
Storage = Literal["fp32", "fp16", "sq8"]

HASH_BYTES = 16
"""Length of a content hash."""

# Records of one growing segment, as a multiple of its distinct texts: a log that repeats one line for ever must seal too.
POSTINGS_PER_ROW_MAX = 20
# A filter that leaves at most this many vectors of a segment is answered exactly: measured at 384 dimensions, a scan takes 0.022 ms for
# 1,000, a graph as wide as it takes to be believed 0.3 to 0.5 ms.
EXACT_MATCHES_MAX = 20_000
# Sealed segments are merged up to this many distinct texts: an exact scan over them, the price of a filter that the graph cannot
# serve, takes 9 ms.
SEGMENT_ROWS_MAX = 350_000


@dataclass(slots=True, frozen=True)
class IndexSettings:
    """Settings of one index generation. `dimensions` and `metric` never change in an index; the rest applies to new segments.

    `growing_rows_max` and the four after it are bounds: distinct texts until a growing segment is sealed; age and least size for sealing
    it anyway; distinct texts of a merged segment; matches up to which a segment is scanned exactly, and below which it gets no graph.
    `texts`: keep the texts, searchable by words.
    """

    dimensions: int
    metric: Metric = "cosine"
    hnsw_m: int = 16
    ef_construction: int = 100
    ef_search: int = 64
    storage: Storage = "sq8"
    growing_rows_max: int = 10_000
    seal_after_s: float = 3600.0
    seal_rows_min: int = 1_000
    segment_rows_max: int = SEGMENT_ROWS_MAX
    exact_matches_max: int = EXACT_MATCHES_MAX
    texts: bool = False

    @property
    def vector_dtype(self) -> np.dtype[Any]:
        """What vectors are kept and scored in, in every kind of segment, so that a score does not change when one is sealed."""
        return np.dtype("<f4") if self.storage == "fp32" else np.dtype("<f2")


@dataclass(slots=True)
class Counts:
    """What became of records: searchable, skipped (by reason) or failed."""

    indexed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failed: int = 0

    @property
    def records(self) -> int:
        """indexed + skipped + failed: all records accounted for."""
        return self.indexed + self.skipped.total() + self.failed

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.indexed + other.indexed, self.skipped + other.skipped, self.failed + other.failed)

    def to_json(self) -> dict[str, Any]:
        return {"indexed": self.indexed, "skipped": dict(self.skipped), "failed": self.failed}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(
            int(data["indexed"]), Counter({str(k): int(v) for k, v in data["skipped"].items()}), int(data["failed"])
        )


@dataclass(slots=True, frozen=True)
class Run:
    """A contiguous stretch of the log, from the index's `indexed_offset` up to `next_offset` (exclusive).

    offsets int64[n] ascending (a record cut into chunks repeats its offset), timestamps_ms int64[n], hashes: n content
    hashes of 16 bytes, vectors float32[n, d] (a row whose hash the index knows already is not read), flags uint8[n].
    `skipped` by reason and `failed` count the records of the stretch that have no row. `fields`: of the distinct offsets, in order;
    None: unknown, so that every filter on them asks the log. `texts` by content hash, of contents that have one.
    """

    offsets: Int64
    timestamps_ms: Int64
    hashes: list[bytes]
    vectors: Float32
    flags: UInt8
    skipped: Counter[str]
    failed: int
    next_offset: int
    fields: Fields | None = None
    texts: Mapping[bytes, str] = field(default_factory=dict)
