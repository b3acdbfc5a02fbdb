"""Record batches (magic 2): what producers send, the log stores and consumers fetch, byte for byte.

`protocol.batch_header` has what works on headers alone, `protocol.records` what looks inside; this is all of it.
"""

from protocol.batch_header import (
    BATCH_OVERHEAD,
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
    ABORT,
    COMMIT,
    Record,
    build_batch,
    build_marker,
    control_type,
    iterate_records,
    select_records,
)

__all__ = [
    "ABORT",
    "BATCH_OVERHEAD",
    "COMMIT",
    "BatchHeader",
    "Compression",
    "Record",
    "UnreadableBatch",
    "build_batch",
    "build_marker",
    "control_type",
    "crc_matches",
    "iterate_records",
    "parse_batches",
    "parse_produced",
    "patch_batch",
    "patch_log_append_time",
    "select_records",
    "walk_batches",
]
