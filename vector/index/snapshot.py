"""What of an index an object store can keep."""

from dataclasses import dataclass
from pathlib import Path

from vector.index.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Sealed segments, from the first up to the first that is not sealed; their files never change.

    `files` of each segment in `directory`. Those of a segment that is merged away meanwhile are gone; the next snapshot has others.
    """

    directory: Path
    manifest: Manifest
    files: tuple[tuple[str, ...], ...]
