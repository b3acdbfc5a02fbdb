"""Settings of one log (from its topic's configs) and of the whole data directory (from the broker's)."""

import math
from dataclasses import dataclass
from typing import Literal

NO_LIMIT_MS = 2**63 - 1
SyncPolicy = Literal["always", "interval", "os"]


@dataclass(frozen=True, slots=True)
class LogConfig:
    """One topic's settings; defaults are Kafka's."""

    segment_bytes: int = 1 << 30
    segment_ms: int = 7 * 24 * 3_600_000
    retention_bytes: int = -1
    """Kept per partition; -1: no limit."""
    retention_ms: int = 7 * 24 * 3_600_000
    """-1: for ever."""
    max_message_bytes: int = 1_048_588
    message_timestamp_type: str = "CreateTime"
    """CreateTime or LogAppendTime."""
    message_timestamp_before_max_ms: int = NO_LIMIT_MS
    message_timestamp_after_max_ms: int = 3_600_000
    """How far a record's CreateTime may be from the broker's clock; checked by Produce."""
    cleanup_policy: str = "delete"
    """Comma-separated list of delete and compact, as in Kafka; retention applies only where delete is listed."""
    index_interval_bytes: int = 4096
    min_cleanable_dirty_ratio: float = 0.5
    """Compaction begins when this share of a log's closed segments has not been compacted yet."""
    min_compaction_lag_ms: int = 0
    max_compaction_lag_ms: int = NO_LIMIT_MS
    """A segment whose records are older is closed and compacted whatever the ratio says."""
    delete_retention_ms: int = 24 * 3_600_000
    """How long a tombstone outlives the first compaction that sees it."""

    @property
    def compacts(self) -> bool:
        """Whether of each key only the last record is kept."""
        return "compact" in self.cleanup_policy

    @property
    def roll_ms(self) -> int:
        """The age at which a segment is closed."""
        return min(self.segment_ms, self.max_compaction_lag_ms) if self.compacts else self.segment_ms


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """The data directory's settings (`storage.*` of the broker's configuration)."""

    sync: SyncPolicy = "always"
    """always: acked means synced. interval: acked means written, synced within sync_interval_ms. os: the kernel decides."""
    sync_interval_ms: int = 1000
    wal_file_bytes: int = 64 << 20
    wal_bytes_max: int = 2 << 30
    """Beyond it appends are refused until write-behind has caught up (a disk slower than the producers)."""
    group_bytes: int = 1 << 20
    """Payload of one WAL frame: larger groups make every waiting producer wait for all (storage research, part 5)."""
    flush_bytes: int = 4 << 20
    """Write-behind starts after this much: the WAL's pages are then still in the CPU's cache."""
    checkpoint_bytes: int = 64 << 20
    checkpoint_interval_ms: int = 30_000
    min_free_bytes: int = 256 << 20
    """Below this much free space appends are refused (`storage.min.free`)."""
    open_files_max: int = 256
    """Segment files kept open for reading, and as many for writing."""
    producer_id_expiration_ms: int = 24 * 3_600_000
    """Kafka's producer.id.expiration.ms."""
    cleaner_buffer_bytes: int = 128 << 20
    """Memory for the newest offset of each key, Kafka's log.cleaner.dedupe.buffer.size: a log with more keys is compacted in
    several runs."""
    cleaner_bytes_per_second: float = math.inf
    """What compaction may read and write, Kafka's log.cleaner.io.max.bytes.per.second."""
