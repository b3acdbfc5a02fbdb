"""What all logs of a data directory share, and what their files have yet to become."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from protocol.errors import KafkaError
from storage.segment import Segment, SegmentReaders
from storage.wal import Wal

if TYPE_CHECKING:
    from storage.log import PartitionLog


@dataclass(frozen=True, slots=True)
class FileChange:
    """What becomes of a segment's file once a checkpoint no longer needs it as it is."""

    log: "PartitionLog"
    path: Path
    renamed: Path | None = None
    """None: it is removed."""
    segment: Segment | None = None
    """Staged until its log is renamed."""


class LogServices:
    """What all logs of a directory share."""

    __slots__ = ("changed", "file_changes", "readers", "refusal", "wal")

    def __init__(self, readers: SegmentReaders) -> None:
        self.readers = readers
        self.wal: Wal = cast("Wal", None)
        """Set once recovery is over; nothing is appended before."""
        self.refusal: KafkaError | None = None
        """Why appends are refused at the moment (disk full, storage failed)."""
        self.changed: dict[PartitionLog, None] = {}
        """Logs that differ from the last checkpoint."""
        self.file_changes: list[FileChange] = []
        """Due once a checkpoint is on the disk that was begun after them."""
