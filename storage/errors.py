"""What can go wrong below the log."""

from pathlib import Path

from protocol.errors import ErrorCode, KafkaError


class StorageFailure(Exception):
    """The disk failed (write, short write or sync): nothing may be acknowledged any more and the process must end.

    A failed fsync is never retried: the kernel has dropped the dirty pages and the retry would lie (PostgreSQL's
    "fsyncgate", https://wiki.postgresql.org/wiki/Fsync_Errors).
    """


class CorruptStorage(Exception):
    """Durable data is damaged: the broker refuses to start instead of cutting it silently."""

    def __init__(self, path: Path, position: int, reason: str) -> None:
        super().__init__(path, position, reason)
        self.path = path
        self.position = position
        self.reason = reason
        self.directory: Path | None = None
        """The data directory."""

    def __str__(self) -> str:
        return (
            f"{self.path}: damaged at byte {self.position}: {self.reason}. Nothing has been changed; to set what is damaged "
            f"aside and start without it: senselog check {self.directory or 'DIR'} --repair"
        )


class DirectoryLocked(Exception):
    """Another process holds the data directory."""


class OffsetOutOfRange(KafkaError):
    """The offset is below the log's start or beyond its end."""

    def __init__(self, offset: int, log_start_offset: int, log_end_offset: int) -> None:
        super().__init__(
            ErrorCode.OFFSET_OUT_OF_RANGE,
            f"offset {offset} is outside {log_start_offset} to {log_end_offset}",
        )
