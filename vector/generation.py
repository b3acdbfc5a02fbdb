"""Generations of a topic's index: what their vectors mean, which one is searched, and the folders they live in.

data/vector/TOPIC_ID/generations.json names the live generation, the one being built beside it and the one that was live before;
data/vector/TOPIC_ID/GENERATION/PARTITION holds an index. What the file does not name does not exist.
"""

import dataclasses
import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from vector.index.files import (
    DamagedFile,
    create_directory,
    read,
    replace_durable,
    with_checksum,
    without_checksum,
)

FILE = "generation.json"
STATE_FILE = "generations.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """Vectors may be compared, and an index continued, only where all of this is equal. `asked_dimensions` is how the model is
    opened again (0: as many as it has), which says nothing about the vectors."""

    field: str
    long_text: str
    model: str
    revision: str
    dimensions: int
    metric: str
    asked_dimensions: int = dataclasses.field(default=0, compare=False)

    def same_vectors(self, other: "Identity") -> bool:
        """Whether a text has the same vector there. Under cosine an index keeps directions alone."""
        if (self.model, self.revision, self.dimensions) != (other.model, other.revision, other.dimensions):
            return False
        return self.metric == other.metric or other.metric != "cosine"


@dataclass(frozen=True, slots=True)
class Generation:
    """One index of one topic."""

    number: int
    identity: Identity
    directory: Path

    def partition_directory(self, partition: int) -> Path:
        """Where one partition's index lies."""
        return self.directory / str(partition)


@dataclass(frozen=True, slots=True)
class _State:
    """Numbers of generations; `since_ms`: when `live` became that, milliseconds since 1970; `last`: the highest number given out."""

    live: int | None = None
    building: int | None = None
    previous: int | None = None
    since_ms: int = 0
    last: int = 0

    @property
    def named(self) -> set[int]:
        return {number for number in (self.live, self.building, self.previous) if number is not None}


@dataclass(frozen=True, slots=True)
class Roles:
    """What the generations of a topic are for: `live` is searched, `building` is to take its place, `previous` was searched before."""

    live: Generation | None = None
    building: Generation | None = None
    previous: Generation | None = None

    def to_message(self) -> dict[str, Any]:
        """As msgpack carries it."""
        named = {"live": self.live, "building": self.building, "previous": self.previous}
        return {role: None if one is None else [one.number, asdict(one.identity)] for role, one in named.items()}

    @classmethod
    def from_message(cls, message: Mapping[str, Any], topic_directory: Path) -> Self:
        """The inverse, in this worker's folder of the topic."""
        named = {
            role: None if one is None else Generation(one[0], Identity(**one[1]), topic_directory / str(one[0]))
            for role, one in message.items()
        }
        return cls(**named)

    def create(self) -> None:
        """Makes the folders that are not there yet: those of a worker that shares none with the topic's lead. Raises OSError."""
        for one in (self.live, self.building):
            if one is not None and not (one.directory / FILE).exists():
                _create(one)

    def clean(self, topic_directory: Path) -> None:
        """Deletes the folders of all others."""
        kept = {str(one.number) for one in (self.live, self.building, self.previous) if one is not None}
        for path in _numbered(topic_directory):
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)


class Generations:
    """The generations of one topic, on disk; all methods raise OSError, and may be called again then."""

    def __init__(self, topic_directory: Path) -> None:
        """Opens them. A state that cannot be read is made anew: the newest generation that can be read is live."""
        self._directory = topic_directory
        self._found = {one.number: one for one in _read_all(topic_directory)}
        self._state = self._load()

    def _load(self) -> _State:
        path = self._directory / STATE_FILE
        if not path.exists():
            return _State(live=max(self._found, default=None))
        try:
            state = _State(**_load(path))
        except (DamagedFile, TypeError) as damage:
            logger.warning("index: %s in %s; the newest generation is live", damage, self._directory)
            return _State(live=max(self._found, default=None))
        if state.live not in self._found:
            return _State(live=max(self._found, default=None), last=state.last)
        return replace(
            state,
            building=state.building if state.building in self._found else None,
            previous=state.previous if state.previous in self._found else None,
        )

    @property
    def live(self) -> Generation | None:
        """The one that is searched."""
        return self._named(self._state.live)

    @property
    def building(self) -> Generation | None:
        """The one that takes its place when it is complete."""
        return self._named(self._state.building)

    @property
    def previous(self) -> Generation | None:
        """The one that was searched before, kept to go back to."""
        return self._named(self._state.previous)

    @property
    def roles(self) -> Roles:
        """All three."""
        return Roles(self.live, self.building, self.previous)

    def _named(self, number: int | None) -> Generation | None:
        return None if number is None else self._found[number]

    def want(self, identity: Identity) -> None:
        """Makes it so that a generation of this identity is live or being built: one of those there are, or a new one."""
        state = self._state
        building, live, previous = self.building, self.live, self.previous
        if live is None:
            number = self._create(identity)
            self._store(_State(live=number, last=number))
        elif building is not None and building.identity == identity:
            return
        elif live.identity == identity:
            self._store(replace(state, building=None))
        elif previous is not None and previous.identity == identity:
            self._store(replace(state, building=previous.number))
        else:
            self._build(identity)

    def _build(self, identity: Identity) -> None:
        number = self._create(identity)
        self._store(replace(self._state, building=number, last=number))

    def rebuild(self) -> None:
        """Builds what is live anew from the log, unless something is being built."""
        if self.live is not None and self.building is None:
            self._build(self.live.identity)

    def go_back(self) -> None:
        """The previous generation is to become the live one again."""
        if self._state.previous is not None:
            self._store(replace(self._state, building=self._state.previous))

    def cut_over(self, number: int, now_ms: int) -> None:
        """This generation is live; what was live is kept."""
        state = self._state
        building = None if state.building == number else state.building
        self._store(_State(number, building, previous=state.live, since_ms=now_ms, last=state.last))

    def expire(self, now_ms: int, keep_ms: int) -> None:
        """Forgets the previous generation once the live one has been that for `keep_ms`."""
        state = self._state
        if state.previous is not None and state.previous != state.building and now_ms - state.since_ms >= keep_ms:
            self._store(replace(state, previous=None))

    def clean(self) -> list[int]:
        """Deletes the folders of generations that nothing names, closed before; returns their numbers."""
        gone = [number for number in self._found if number not in self._state.named]
        for number in gone:
            shutil.rmtree(self._found.pop(number).directory, ignore_errors=True)
        for path in _numbered(self._directory):
            if int(path.name) not in self._found:
                shutil.rmtree(path, ignore_errors=True)
        return gone

    def _create(self, identity: Identity) -> int:
        number = 1 + max((int(path.name) for path in _numbered(self._directory)), default=0)
        number = max(number, self._state.last + 1)
        generation = Generation(number, identity, self._directory / str(number))
        _create(generation)
        self._found[number] = generation
        return number

    def _store(self, state: _State) -> None:
        if state != self._state:
            replace_durable(self._directory / STATE_FILE, _encode(asdict(state)))
            self._state = state


def remove_partitions(topic_directory: Path, partitions: Iterable[int]) -> None:
    """Deletes the indexes of these partitions, of all generations."""
    for directory in _numbered(topic_directory):
        for partition in partitions:
            shutil.rmtree(directory / str(partition), ignore_errors=True)


def _create(generation: Generation) -> None:
    create_directory(generation.directory)
    replace_durable(generation.directory / FILE, _encode(asdict(generation.identity)))


def _read_all(topic_directory: Path) -> list[Generation]:
    found = []
    for directory in _numbered(topic_directory):
        if not (directory / FILE).exists():  # a crash while it was made
            continue
        try:
            found.append(Generation(int(directory.name), Identity(**_load(directory / FILE)), directory))
        except (DamagedFile, TypeError) as damage:
            logger.warning("index: %s in %s; the log is indexed anew", damage, directory)
    return found


def damages(topic_directory: Path) -> list[DamagedFile]:
    """The files here that cannot be read."""
    found = []
    for path in (topic_directory / STATE_FILE, *(directory / FILE for directory in _numbered(topic_directory))):
        try:
            if path.exists():
                _load(path)
        except DamagedFile as damage:
            found.append(damage)
    return found


def _encode(fields: dict[str, Any]) -> bytes:
    return with_checksum(json.dumps(fields, indent=2).encode())


def _load(path: Path) -> dict[str, Any]:
    """Raises DamagedFile."""
    text = without_checksum(read(path))
    if text is None:
        raise DamagedFile(path, "checksum does not match")
    return dict(json.loads(text))


def _numbered(topic_directory: Path) -> list[Path]:
    if not topic_directory.is_dir():
        return []
    return [path for path in topic_directory.iterdir() if path.is_dir() and path.name.isdecimal()]
