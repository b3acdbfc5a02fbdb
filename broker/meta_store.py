"""The broker's own facts (cluster id, topics, configs, producer ids) in one file, replaced as a whole.

A change is written to a temporary file, synced, renamed over the old one, and the directory is synced: after a crash at any
step the file holds either all of a change or nothing of it. 2,000 topics are about 200 KB, written only by admin requests.
"""

import base64
import struct
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import msgpack

from protocol.crc import crc32c
from storage.file_system import FileSystem

FILE_NAME = "meta.msgpack"
TEMPORARY = ".tmp"
FORMAT = 1
_HEADER = struct.Struct(">4sHI")
_MAGIC = b"SLMD"


class DamagedMetadata(Exception):
    """The metadata file cannot be what this broker wrote; the message names the file."""


@dataclass(frozen=True, slots=True)
class TopicRecord:
    """What is durable of one topic; `configs` are its overrides as they were given."""

    name: str
    topic_id: bytes
    partitions: int
    configs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metadata:
    """Everything in the file. Values are replaced, never changed in place, so that a failed write leaves no trace."""

    cluster_id: str
    topics: dict[str, TopicRecord] = field(default_factory=dict)
    resource_configs: dict[int, dict[str, dict[str, str]]] = field(default_factory=dict)
    """Configs of what is not a topic: resource type -> resource name -> overrides."""
    next_producer_id: int = 0
    scram: dict[str, dict[int, list[Any]]] = field(default_factory=dict)
    """User -> SCRAM mechanism's code -> the fields of a `broker.security.scram.Credential`."""
    acls: list[list[Any]] = field(default_factory=list)
    """The fields of each `broker.security.acl.Acl`."""
    quotas: list[list[Any]] = field(default_factory=list)
    """Each an entity, as pairs of type and name, and its quotas by key."""
    features: dict[str, int] = field(default_factory=dict)
    """Levels that were set; see `broker.features`."""
    feature_changes: int = 0


class MetaStore:
    """The current `Metadata`, durable before `replace` returns."""

    def __init__(self, path: Path, file_system: FileSystem, metadata: Metadata) -> None:
        self._path = path
        self._file_system = file_system
        self.metadata = metadata
        self.created = False
        """Whether the directory had none: it is a new broker's, or one that has lost everything."""

    @classmethod
    def open(cls, directory: Path, file_system: FileSystem) -> Self:
        """Reads the file, or writes the first one with a new cluster id; raises DamagedMetadata, OSError."""
        missing = [path for path in (directory, *directory.parents) if not file_system.exists(path)]
        file_system.make_directory(directory)
        for path in missing:
            file_system.sync_directory(path.parent)
        path = directory / FILE_NAME
        # A temporary file is a change that a crash interrupted: nobody was told that it happened.
        file_system.remove(path.with_suffix(TEMPORARY))
        if file_system.exists(path):
            return cls(path, file_system, _decode(_read(path, file_system), path))
        store = cls(path, file_system, Metadata(_new_cluster_id(file_system)))
        store.replace()
        store.created = True
        return store

    def replace(self, **changes: Any) -> None:
        """Replaces fields of the metadata, durably; raises OSError, and then `metadata` is what it was."""
        changed = replace(self.metadata, **changes)
        temporary = self._path.with_suffix(TEMPORARY)
        self._file_system.remove(temporary)
        _write(temporary, _encode(changed), self._file_system)
        self._file_system.rename(temporary, self._path)
        self._file_system.sync_directory(self._path.parent)
        self.metadata = changed

    def new_topic_id(self) -> bytes:
        """A random 16-byte id; never one of Kafka's reserved ids, which are the lowest numbers."""
        while True:
            topic_id = self._file_system.random_bytes(16)
            if any(topic_id[:8]):
                return topic_id


def _new_cluster_id(file_system: FileSystem) -> str:
    """22 characters of base64, as Kafka's cluster ids."""
    return base64.urlsafe_b64encode(file_system.random_bytes(16)).decode().rstrip("=")


def _read(path: Path, file_system: FileSystem) -> bytes:
    file = file_system.open(path)
    try:
        return file.read(0, file.size())
    finally:
        file.close()


def _write(path: Path, data: bytes, file_system: FileSystem) -> None:
    file = file_system.open(path, create=True)
    try:
        written = 0
        while written < len(data):
            written += file.write([memoryview(data)[written:]], written)
        file.sync()
    finally:
        file.close()


def _encode(metadata: Metadata) -> bytes:
    content = {one.name: getattr(metadata, one.name) for one in fields(metadata)}
    content["topics"] = [[t.name, t.topic_id, t.partitions, t.configs] for t in metadata.topics.values()]
    payload: bytes = msgpack.packb(content)
    return _HEADER.pack(_MAGIC, FORMAT, crc32c(payload)) + payload


def _decode(data: bytes, path: Path) -> Metadata:
    if len(data) < _HEADER.size:
        raise DamagedMetadata(f"{path}: {len(data)} bytes are too few")
    magic, version, crc = _HEADER.unpack_from(data)
    payload = data[_HEADER.size :]
    if magic != _MAGIC or crc != crc32c(payload):
        raise DamagedMetadata(f"{path}: wrong magic or checksum; restore the file from a backup")
    if version != FORMAT:
        raise DamagedMetadata(f"{path}: format {version}, this broker reads format {FORMAT}")
    content = msgpack.unpackb(payload, strict_map_key=False)
    content["topics"] = {row[0]: TopicRecord(*row) for row in content["topics"]}
    return Metadata(**content)
