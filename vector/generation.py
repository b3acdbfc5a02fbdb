"""Generations of a topic's index: what its vectors mean, and the folder they live in: data/vector/TOPIC_ID/GENERATION/PARTITION."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vector.index.files import create_directory, sync_directory, write_durable

FILE = "generation.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """Vectors may be compared, and an index continued, only where all of this is equal."""

    field: str
    long_text: str
    model: str
    revision: str
    dimensions: int
    metric: str


@dataclass(frozen=True, slots=True)
class Generation:
    """One index of one topic."""

    number: int
    identity: Identity
    directory: Path

    def partition_directory(self, partition: int) -> Path:
        """Where one partition's index lies."""
        return self.directory / str(partition)


def latest_generation(topic_directory: Path) -> Generation | None:
    """The one that was used last, None when there is none that can be read."""
    for directory in sorted(_numbered(topic_directory), key=lambda path: int(path.name), reverse=True):
        try:
            data: dict[str, Any] = json.loads((directory / FILE).read_text())
            return Generation(int(directory.name), Identity(**data), directory)
        except (OSError, ValueError, TypeError):
            continue
    return None


def open_generation(topic_directory: Path, identity: Identity) -> Generation:
    """The latest generation if it has this identity, else a new one; older ones are deleted, they can be made again from the log.

    Raises OSError.
    """
    current = latest_generation(topic_directory)
    if current is None or current.identity != identity:
        number = 1 + max((int(path.name) for path in _numbered(topic_directory)), default=0)
        directory = topic_directory / str(number)
        create_directory(directory)
        write_durable(directory / FILE, [json.dumps(asdict(identity), indent=2).encode()])
        sync_directory(directory)
        current = Generation(number, identity, directory)
    for directory in _numbered(topic_directory):
        if directory != current.directory:
            shutil.rmtree(directory, ignore_errors=True)
    return current


def _numbered(topic_directory: Path) -> list[Path]:
    if not topic_directory.is_dir():
        return []
    return [path for path in topic_directory.iterdir() if path.is_dir() and path.name.isdecimal()]
