"""An object store (S3, GCS, Azure, a folder): immutable objects are put, got, listed and deleted, nothing else is asked of it.

The only module that imports obstore. Its own retries are off: a PUT that failed may have succeeded all the same, and only who reads
back what lies there knows (design/storage.md, Object store tier).
"""

import hashlib
import os
from collections.abc import Iterable
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vector.index.files import sync_directory

TIMEOUT = "30s"
"""Of one request; a file travels in pieces of PART_BYTES, each its own request."""
PART_BYTES = 8 * 1024 * 1024
PARTS_AT_ONCE = 2
"""Bounds what an upload holds in memory to 16 MB."""
NO_RETRIES = {"max_retries": 0, "retry_timeout": timedelta(0)}
DIGEST_BYTES = 16
SCHEMES = ("s3", "gs", "az", "file", "memory")


class ObjectError(Exception):
    """The store does not answer, or refuses; the message says which."""


class DamagedObject(Exception):
    """An object that is missing, or not what was put there."""


class ObjectStore:
    """One bucket or folder. Every method may be called from any thread, blocks, and raises ObjectError."""

    def __init__(self, url: str) -> None:
        """`url` as `storage.objects.url` has it; credentials come from the environment. Raises ObjectError."""
        import obstore
        from obstore import store

        scheme = urlsplit(url).scheme
        if scheme not in SCHEMES:
            raise ObjectError(f"{url}: {scheme or 'no scheme'} is none of {', '.join(SCHEMES)}")
        self.url = url
        self._obstore = obstore
        try:
            if scheme == "file":
                self._store: Any = store.from_url(url, mkdir=True)
            elif scheme == "memory":
                self._store = store.MemoryStore()
            else:
                allow_http = (
                    os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true"
                )  # options given replace the environment's
                options: Any = {"timeout": TIMEOUT, "connect_timeout": "5s", "allow_http": allow_http}
                self._store = store.from_url(url, client_options=options, retry_config=NO_RETRIES)  # type: ignore[call-overload]
        except Exception as error:
            raise ObjectError(f"{url}: {_reason(error)}") from error

    def put_file(self, name: str, path: Path) -> None:
        """Stores a file under a name that no other content ever gets. Raises FileNotFoundError when the file is gone."""
        with path.open("rb") as file:
            size = path.stat().st_size
            try:
                self._obstore.put(self._store, name, file, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
            except Exception as error:
                # The answer may have been lost, not the object: such a name has this content or none.
                if self._size(name) != size:
                    raise ObjectError(f"put {name}: {_reason(error)}") from error

    def put(self, name: str, data: bytes) -> None:
        """Stores `data`, which holds something that only this writer writes, so that reading back tells whose it is."""
        try:
            self._obstore.put(self._store, name, data)
        except Exception as error:
            try:
                there = self.get(name)
            except (DamagedObject, ObjectError):
                there = b""
            if there != data:
                raise ObjectError(f"put {name}: {_reason(error)}") from error

    def get(self, name: str) -> bytes:
        """Raises DamagedObject when there is none."""
        try:
            return bytes(self._obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            raise DamagedObject(f"{name}: missing") from None
        except Exception as error:
            raise ObjectError(f"get {name}: {_reason(error)}") from error

    def download(self, name: str, path: Path, size: int, digest: str) -> None:
        """Writes the object to `path`, whole and verified, or not at all. Raises DamagedObject, OSError."""
        temporary = path.with_name(path.name + ".tmp")
        written, state = 0, blake2b(digest_size=DIGEST_BYTES)
        try:
            with temporary.open("wb") as file:
                for chunk in self._chunks(name):
                    file.write(chunk)
                    written += len(chunk)
                    state.update(chunk)
                file.flush()
                os.fsync(file.fileno())
        except DamagedObject:
            temporary.unlink(missing_ok=True)
            raise
        if (written, state.hexdigest()) != (size, digest):
            temporary.unlink()
            raise DamagedObject(f"{name}: {written:,} bytes that are not the {size:,} that were put there")
        temporary.replace(path)
        sync_directory(path.parent)

    def _chunks(self, name: str) -> Iterable[bytes]:
        try:
            for chunk in self._obstore.get(self._store, name).stream(min_chunk_size=PART_BYTES):
                yield bytes(chunk)
        except FileNotFoundError:
            raise DamagedObject(f"{name}: missing") from None
        except Exception as error:
            raise ObjectError(f"get {name}: {_reason(error)}") from error

    def list(self, prefix: str) -> dict[str, int]:
        """Sizes by name of all objects in the folder `prefix`."""
        try:
            return {row["path"]: row["size"] for rows in self._obstore.list(self._store, prefix) for row in rows}
        except Exception as error:
            raise ObjectError(f"list {prefix}: {_reason(error)}") from error

    def delete(self, names: Iterable[str]) -> None:
        """One that is already gone is fine."""
        for name in names:
            try:
                self._obstore.delete(self._store, name)
            except FileNotFoundError:
                continue
            except Exception as error:
                raise ObjectError(f"delete {name}: {_reason(error)}") from error

    def _size(self, name: str) -> int:
        """-1 when it is not there, or the store does not say."""
        try:
            return int(self._obstore.head(self._store, name)["size"])
        except Exception:
            return -1


def digest_of(path: Path) -> str:
    """Of a file's content, in hex; a gigabyte a second."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: blake2b(digest_size=DIGEST_BYTES)).hexdigest()


def _reason(error: Exception) -> str:
    """What people need of obstore's message, whose rest is the source of the source."""
    return str(error).partition("\n")[0] or type(error).__name__
