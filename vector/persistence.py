"""Keeps an object store in step with the indexes of a worker, and fetches from it what is not here: off every search and every append."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from vector.generation import FILE, Generation
from vector.index.files import create_directory, replace_durable
from vector.index.manifest import MANIFEST_NAME
from vector.index.partition_index import PartitionIndex
from vector.index.stored import StoredIndex
from vector.objects import DamagedObject, ObjectError, ObjectStore
from vector.priority import LOWEST_PRIORITY, lower_priority
from vector.threads import WorkerThreads

DELAY_S = 2.0
"""After a segment was made: several may be swapped in one after the other."""
INTERVAL_S = 60.0
"""How often it is looked without being told: what retention drops stays in the store so long."""
BACKOFF_MAX_S = 60.0
RESTORE_ATTEMPTS = 6
RESTORE_RETRY_S = 1.0
"""A store that does not answer for about this long times RESTORE_ATTEMPTS delays an index; then the log is indexed anew."""

logger = logging.getLogger(__name__)


class StoredTopic(Protocol):
    """What is kept of a topic: its live generation."""

    @property
    def topic_id(self) -> bytes: ...

    @property
    def generation(self) -> Generation | None: ...

    @property
    def indexes(self) -> dict[int, PartitionIndex]: ...


class Persistence:
    """One per worker. Uploads in a thread of its own, one object at a time."""

    def __init__(self, store: ObjectStore, threads: WorkerThreads, *, leads: bool = True) -> None:
        """`leads`: it deletes what belongs to no worker's partitions too."""
        self._store = store
        self._leads = leads
        self._threads = threads
        self._thread = ThreadPoolExecutor(1, "objects", initializer=lower_priority, initargs=(LOWEST_PRIORITY,))
        self._stored: dict[tuple[bytes, int, int], StoredIndex] = {}
        self._live: dict[bytes, int] = {}
        """The generation of each topic that is stored, alone."""
        self._deleted: list[str] = []
        """Prefixes whose objects must go."""
        self.trouble: str | None = None
        """Why the store is behind."""
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def notice(self) -> None:
        """An index has other segments than before. Any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker ends
            self._loop.call_soon_threadsafe(self._changed.set)

    # Keeping up

    async def run(self, topics: Callable[[], list[StoredTopic]]) -> None:
        """Until cancelled."""
        wait_s = DELAY_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await self._changed.wait()
            await asyncio.sleep(wait_s)
            self._changed.clear()
            try:
                await self.catch_up(topics())
            except (ObjectError, OSError) as error:
                self.trouble = str(error)
                logger.warning("object store: %s", error)
                wait_s = min(BACKOFF_MAX_S, wait_s * 2)
                self._changed.set()
            else:
                self.trouble = None
                wait_s = DELAY_S

    async def catch_up(self, topics: list[StoredTopic]) -> None:
        """Stores whatever is sealed and not there yet. Raises ObjectError, OSError."""
        while self._deleted:
            await self._in_thread(self._delete_all, self._deleted[0])
            self._deleted.pop(0)
        for topic in topics:
            generation = topic.generation
            if generation is None:
                continue
            indexes = list(topic.indexes.items())
            stored = [await self._keep(topic, generation, *one) for one in indexes]
            if any(stored) and self._live.get(topic.topic_id) != generation.number:
                mine = {str(partition) for partition, _ in indexes}
                await self._in_thread(self._delete_others, topic.topic_id, generation.number, mine)
                self._live[topic.topic_id] = generation.number

    async def _keep(self, topic: StoredTopic, generation: Generation, partition: int, index: PartitionIndex) -> bool:
        """Whether all that is sealed is stored."""
        key = topic.topic_id, generation.number, partition
        stored = self._stored.get(key)
        if stored is None:
            stored = self._stored[key] = StoredIndex(self._store, _prefix(*key))
        if stored.stored is not None and index.sealed_identities == tuple(entry.identity for entry in stored.stored):
            return True
        if not index.sealed_identities:
            return False
        snapshot = await self._in_index_thread(index.snapshot)
        if snapshot is None:
            return False
        if self._live.get(topic.topic_id) != generation.number:
            await self._in_thread(self._put_generation, topic.topic_id, generation)
        try:
            await self._in_thread(stored.put, snapshot)
        except FileNotFoundError:  # merged or dropped meanwhile; the next round has what took its place
            self._changed.set()
            return False
        return True

    def _put_generation(self, topic_id: bytes, generation: Generation) -> None:
        name = f"{topic_id.hex()}/{generation.number}/{FILE}"
        self._store.put(name, (generation.directory / FILE).read_bytes())

    def _delete_others(self, topic_id: bytes, live: int, mine: Collection[str]) -> None:
        """Of several generations only the live one is kept: others are here, or can be made again from the log.

        What other workers have of them they delete themselves, once they have stored what takes its place.
        """
        names = self._store.list(f"{topic_id.hex()}/")
        of_others = [name for name in names if _generation_of(name) != live]
        self._store.delete(name for name in of_others if _belongs(name, mine, leads=self._leads))
        self._stored = {k: stored for k, stored in self._stored.items() if k[0] != topic_id or k[1] == live}

    def forget_topic(self, topic_id: bytes) -> None:
        """The topic was deleted: so are its objects, soon."""
        if self._leads:
            self._deleted.append(f"{topic_id.hex()}/")
            self._changed.set()
        self._stored = {key: stored for key, stored in self._stored.items() if key[0] != topic_id}
        self._live.pop(topic_id, None)

    def taken_back(self, topic_id: bytes, generation: int, partition: int) -> None:
        """The log has lost its tail, and an index what it held of that. Manifests that name it must never be restored: none may be the
        latest, nor take the place of a damaged one. Any thread."""
        key = topic_id, generation, partition
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker ends
            self._loop.call_soon_threadsafe(self._store_anew, key)

    def _store_anew(self, key: tuple[bytes, int, int]) -> None:
        self._stored.pop(key, None)
        self._deleted.append(f"{_prefix(*key)}/")
        self._changed.set()

    def _delete_all(self, prefix: str) -> None:
        self._store.delete(self._store.list(prefix))

    # Fetching

    async def restore_generation(self, topic_id: bytes, directory: Path) -> None:
        """The latest stored generation of a topic, where none is here. Its partitions follow one by one."""
        await self._restored(f"topic {topic_id.hex()}", self._fetch_generation, topic_id, directory)

    def _fetch_generation(self, topic_id: bytes, directory: Path) -> None:
        if any((path / FILE).exists() for path in directory.glob("*") if path.name.isdecimal()):
            return
        prefix = f"{topic_id.hex()}/"
        for name in sorted(self._store.list(prefix), key=_generation_of, reverse=True):
            number, _, rest = name.removeprefix(prefix).partition("/")
            if rest == FILE and number.isdecimal():
                data = self._store.get(name)
                create_directory(directory / number)
                replace_durable(directory / number / FILE, data)
                return

    async def restore_partition(self, topic_id: bytes, generation: Generation, partition: int) -> None:
        """A partition's index, where none is here. Without one, or with a store that stays silent, the log is indexed."""
        await self._restored(f"partition {partition}", self._fetch_partition, topic_id, generation, partition)

    def _fetch_partition(self, topic_id: bytes, generation: Generation, partition: int) -> None:
        directory = generation.partition_directory(partition)
        if (directory / MANIFEST_NAME).exists():
            return
        stored = StoredIndex(self._store, _prefix(topic_id, generation.number, partition))
        restored, damages = stored.restore(directory)
        for damage in damages:
            logger.warning("object store: %s; the log has the records", damage)
        if restored:
            logger.warning("index of partition %d restored from %s", partition, self._store.url)

    async def _restored(self, what: str, fetch: Callable[..., None], *arguments: object) -> None:
        for attempt in range(RESTORE_ATTEMPTS):
            try:
                await self._in_thread(fetch, *arguments)
            except DamagedObject as damage:
                logger.warning("object store: %s; the log has the records", damage)
                return
            except ObjectError as error:
                self.trouble = str(error)
                logger.warning("object store: %s", error)
                await asyncio.sleep(RESTORE_RETRY_S * 2**attempt)
            else:
                return
        logger.warning("cannot restore the index of %s: it is built from the log", what)

    async def _in_index_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads.index, call)

    async def _in_thread(self, call: Callable[..., Any], *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    def status(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "url": self._store.url,
            "bytes_put": sum(stored.bytes_put for stored in self._stored.values()),
            "trouble": self.trouble,
        }

    def close(self) -> None:
        """Drops what has not begun; what was being put is put again after the next start."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _prefix(topic_id: bytes, generation: int, partition: int) -> str:
    return f"{topic_id.hex()}/{generation}/{partition}"


def _belongs(name: str, partitions: Collection[str], *, leads: bool) -> bool:
    partition, separator, _ = name.split("/", 2)[2].partition("/")
    return partition in partitions if separator else leads


def _generation_of(name: str) -> int:
    number = name.split("/")[1]
    return int(number) if number.isdecimal() else -1
