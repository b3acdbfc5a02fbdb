"""One partition's index in an object store: sealed segments, which never change, and manifests that name them.

Names hold the digest of what they name, so an object is put once and never replaced; a manifest is put after all it names. What is
read back is verified file by file: a damaged or missing one ends the index there, and the log has the rest.
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vector.index import manifest as manifests
from vector.index.files import create_directory, with_checksum, without_checksum
from vector.index.manifest import Manifest
from vector.index.snapshot import Snapshot
from vector.objects import DamagedObject, ObjectStore, digest_of

MANIFESTS_KEPT = 2
"""The latest, and one in case it turns out damaged."""
_MANIFEST = "manifest-"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the store; `digest` is BLAKE2b's, in hex. A CRC would not do for a name: files that end with their own all have the same."""

    name: str
    size: int
    digest: str


class StoredIndex:
    """The objects under one prefix. One writer at a time; every method blocks and raises ObjectError."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix.rstrip("/") + "/"
        self._writer = uuid.uuid4().hex
        self._there: set[str] | None = None
        self._sequence = 0
        self._references: dict[str, StoredFile] = {}
        self.stored: tuple[manifests.Entry, ...] | None = None
        """The entries of the manifest that was put last."""
        self.bytes_put = 0

    # Putting

    def put(self, snapshot: Snapshot) -> None:
        """Stores what is not there yet, then the manifest, then removes what no manifest names. Raises FileNotFoundError."""
        there = self._list()
        names = [name for files in snapshot.files for name in files]
        references = [self._reference(snapshot.directory, name) for name in names]
        for reference in references:
            name = self._object(reference)
            if name not in there:
                self._store.put_file(name, snapshot.directory / reference.name)
                there.add(name)
                self.bytes_put += reference.size
        self._sequence += 1
        name = f"{self._prefix}{_MANIFEST}{self._sequence:012d}-{self._writer}"
        body = {
            "writer": self._writer,
            "manifest": manifests.encode(snapshot.manifest).decode(),
            "files": [[list(self._fields(row)) for row in self._of(files, references)] for files in snapshot.files],
        }
        self._store.put(name, with_checksum(json.dumps(body).encode()))
        there.add(name)
        self._references = {reference.name: reference for reference in references}
        self._collect(there)
        self.stored = snapshot.manifest.entries

    def _list(self) -> set[str]:
        if self._there is None:
            self._there = set(self._store.list(self._prefix))
            self._sequence = max((_sequence(name) for name in self._manifests(self._there)), default=0)
        return self._there

    def _manifests(self, names: set[str]) -> list[str]:
        """The newest first."""
        found = [name for name in names if name.startswith(self._prefix + _MANIFEST)]
        return sorted(found, key=lambda name: (_sequence(name), name), reverse=True)

    def _reference(self, directory: Path, name: str) -> StoredFile:
        path = directory / name
        return self._references.get(name) or StoredFile(name, path.stat().st_size, digest_of(path))

    def _object(self, reference: StoredFile) -> str:
        return f"{self._prefix}{reference.name}.{reference.digest}"

    def _of(self, names: tuple[str, ...], references: list[StoredFile]) -> Iterator[StoredFile]:
        return (reference for reference in references if reference.name in names)

    def _fields(self, reference: StoredFile) -> tuple[str, int, str]:
        return reference.name, reference.size, reference.digest

    def _collect(self, there: set[str]) -> None:
        newest = self._manifests(there)
        named: set[str] = set(newest[:MANIFESTS_KEPT])
        for name in newest[:MANIFESTS_KEPT]:
            try:
                _, files = self._read_manifest(name)
            except DamagedObject:
                continue
            named |= {self._object(reference) for segment in files for reference in segment}
        gone = there - named
        self._store.delete(sorted(gone))
        there -= gone

    # Getting

    def _read_manifest(self, name: str) -> tuple[Manifest, list[list[StoredFile]]]:
        text = without_checksum(self._store.get(name))
        if text is None:
            raise DamagedObject(f"{name}: checksum does not match")
        body = json.loads(text)
        manifest = manifests.decode(Path(name), body["manifest"].encode())
        return manifest, [[StoredFile(*row) for row in segment] for segment in body["files"]]

    def restore(self, directory: Path) -> tuple[bool, list[str]]:
        """Fetches the newest index into an empty directory: (whether there is one now, what was damaged). Raises OSError.

        A segment that is damaged ends the index before it; the vectors of those behind are kept for when the log is indexed again.
        """
        damages: list[str] = []
        for name in self._manifests(set(self._store.list(self._prefix))):
            try:
                manifest, files = self._read_manifest(name)
            except DamagedObject as damage:
                damages.append(str(damage))
                continue
            create_directory(directory)
            intact = [self._fetch(segment, directory, damages) for segment in files]
            whole = intact.index(False) if False in intact else len(intact)
            if whole:
                behind = tuple(entry for entry, good in zip(manifest.entries, intact, strict=True) if good)[whole:]
                manifests.store(directory, replace(manifest, entries=manifest.entries[:whole], reserve=behind))
                return True, damages
        return False, damages

    def _fetch(self, segment: list[StoredFile], directory: Path, damages: list[str]) -> bool:
        try:
            for reference in segment:
                path = directory / reference.name
                create_directory(path.parent)  # the texts of a segment are a folder
                self._store.download(self._object(reference), path, reference.size, reference.digest)
        except DamagedObject as damage:
            damages.append(str(damage))
            return False
        return True


def _sequence(name: str) -> int:
    number = name.rpartition(_MANIFEST)[2].partition("-")[0]
    return int(number) if number.isdecimal() else 0
