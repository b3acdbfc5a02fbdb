"""Record batches (magic 2): what producers send, the log stores and consumers fetch, byte for byte.

`protocol.batch_header` has what works on headers alone, `protocol.records` what looks inside; this is all of it.
"""

from protocol.batch_header import (
    BATCH_OVERHEAD,
    TRANSACTIONAL,
    BatchFields,
    BatchHeader,
    UnreadableBatch,
    crc_matches,
    parse_batches,
    parse_produced,
    patch_batch,
    patch_log_append_time,
    walk_batches,
)
from protocol.compression import Compression
from protocol.records import (
    Marker,
    Record,
    build_batch,
    build_marker,
    iterate_records,
    no_starts,
    read_marker,
    select_records,
)

__all__ = [
    "BATCH_OVERHEAD",
    "TRANSACTIONAL",
    "BatchFields",
    "BatchHeader",
    "Compression",
    "Marker",
    "Record",
    "UnreadableBatch",
    "build_batch",
    "build_marker",
    "crc_matches",
    "iterate_records",
    "no_starts",
    "parse_batches",
    "parse_produced",
    "patch_batch",
    "patch_log_append_time",
    "read_marker",
    "select_records",
    "walk_batches",
]
