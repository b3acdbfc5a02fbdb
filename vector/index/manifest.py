"""The manifest: which files make up the index. Replaced atomically; what it does not name does not exist."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vector.index.files import DamagedFile, read, replace_durable, with_checksum, without_checksum
from vector.index.settings import Counts

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
Kind = Literal["sealed", "growing"]


@dataclass(slots=True, frozen=True)
class Entry:
    """One segment. `next_offset` is -1 for the growing segment that is still appended to: its journal says."""

    kind: Kind
    identity: int
    base_offset: int
    next_offset: int


@dataclass(slots=True, frozen=True)
class Manifest:
    """Segments in offset order, each beginning where the one before it ends.

    `reserve`: segments that are intact but lie behind a damaged one; not searched, but their vectors are used while the log is
    replayed, so that nothing is embedded again. `dropped`: counts of segments removed below `log_start_offset`.
    """

    dimensions: int
    metric: str
    next_identity: int
    log_start_offset: int
    dropped: Counts
    entries: tuple[Entry, ...]
    reserve: tuple[Entry, ...] = field(default=())


def encode(manifest: Manifest) -> bytes:
    """JSON below its checksum."""
    body = {
        "version": FORMAT_VERSION,
        "dimensions": manifest.dimensions,
        "metric": manifest.metric,
        "next_identity": manifest.next_identity,
        "log_start_offset": manifest.log_start_offset,
        "dropped": manifest.dropped.to_json(),
        "entries": [_entry_to_json(entry) for entry in manifest.entries],
        "reserve": [_entry_to_json(entry) for entry in manifest.reserve],
    }
    return with_checksum(json.dumps(body, indent=1).encode())


def decode(path: Path, data: bytes) -> Manifest:
    """Raises DamagedFile."""
    text = without_checksum(data)
    if text is None:
        raise DamagedFile(path, "checksum does not match")
    body = json.loads(text)
    if body["version"] != FORMAT_VERSION:
        raise DamagedFile(path, f"format version {body['version']}, this is {FORMAT_VERSION}")
    return Manifest(
        dimensions=body["dimensions"],
        metric=body["metric"],
        next_identity=body["next_identity"],
        log_start_offset=body["log_start_offset"],
        dropped=Counts.from_json(body["dropped"]),
        entries=tuple(Entry(**entry) for entry in body["entries"]),
        reserve=tuple(Entry(**entry) for entry in body["reserve"]),
    )


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in Entry.__slots__}


def load(directory: Path) -> Manifest | None:
    """The manifest, None in an empty directory. Raises DamagedFile."""
    path = directory / MANIFEST_NAME
    if not path.exists():
        return None
    return decode(path, read(path))


def store(directory: Path, manifest: Manifest) -> None:
    """Replaces the manifest durably; files it names must be fsynced before."""
    replace_durable(directory / MANIFEST_NAME, encode(manifest))
