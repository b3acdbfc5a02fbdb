"""A worker is killed before and after every request of its uploads: the store restores to what was stored last, whole."""

from collections.abc import Callable, Iterable
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest

from tests.unit.vector.index.model import Expected, Record, brute_force, build_all, run_of
from vector.check import check_index
from vector.index.partition_index import PartitionIndex
from vector.index.query import IndexQuery
from vector.index.settings import IndexSettings
from vector.index.stored import StoredIndex
from vector.objects import ObjectStore

SETTINGS = IndexSettings(6, growing_rows_max=10, exact_matches_max=10, segment_rows_max=20)
RECORDS = [Record(offset, offset, (offset,) if offset % 7 else (), 0) for offset in range(60)]
QUERY = IndexQuery(np.array([1, 1, 2, -1, 0, 1], dtype=np.float32), limit=1000)
PREFIX = "topic/1/0"


@pytest.fixture(autouse=True)
def _no_power_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)


class WatchedStore(ObjectStore):
    """Calls `on_step` before every request that changes something, and after the last one."""

    on_step: Callable[[], None] = staticmethod(lambda: None)

    def put_file(self, name: str, path: Path) -> None:
        self.on_step()
        super().put_file(name, path)

    def put(self, name: str, data: bytes) -> None:
        self.on_step()
        super().put(name, data)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            self.on_step()
            super().delete([name])


def compare(index: PartitionIndex) -> None:
    found = [Expected(c.offset, c.timestamp_ms, c.similarity, c.duplicates, c.flags) for c in index.search(QUERY)]
    assert found == brute_force(RECORDS[: index.indexed_offset], QUERY, SETTINGS)


def append(index: PartitionIndex, end: int) -> None:
    for start in range(index.indexed_offset, end, 5):
        index.append(run_of(RECORDS[start : min(start + 5, end)], min(start + 5, end), SETTINGS))
        build_all(index)


def go_on(restored: PartitionIndex, directory: Path) -> None:
    """It is right as it is, and with the rest of the log; then it is removed."""
    compare(restored)
    append(restored, len(RECORDS))
    compare(restored)
    restored.close()
    assert check_index(directory) == []
    rmtree(directory)


def copy(store: ObjectStore) -> WatchedStore:
    """What lies there now, for the one that goes on after the crash."""
    copied = WatchedStore("memory:///")
    for name in store.list(""):
        ObjectStore.put(copied, name, store.get(name))
    return copied


def sealed_end(index: PartitionIndex) -> int:
    snapshot = index.snapshot()
    return snapshot.manifest.entries[-1].next_offset if snapshot else 0


def test_a_kill_at_every_step_of_an_upload(tmp_path: Path) -> None:
    """Of segments that are new, and of merged ones in whose place older objects are deleted. Whoever goes on stores the latest."""
    store = WatchedStore("memory:///")
    index = PartitionIndex.open(tmp_path / "here", SETTINGS)
    stored = StoredIndex(store, PREFIX)
    last, steps = 0, 0

    def crash() -> None:
        nonlocal steps
        steps += 1
        survivor = copy(store)
        for expected in ({last, sealed_end(index)}, {sealed_end(index)}):
            there, damages = StoredIndex(survivor, PREFIX).restore(tmp_path / "restored")
            assert not damages
            restored = PartitionIndex.open(tmp_path / "restored", SETTINGS)
            assert restored.indexed_offset in expected
            assert there == bool(restored.indexed_offset)
            go_on(restored, tmp_path / "restored")
            snapshot = index.snapshot()
            assert snapshot is not None
            StoredIndex(survivor, PREFIX).put(snapshot)  # another process goes on

    for end in range(10, len(RECORDS) + 1, 10):
        append(index, end)
        if (snapshot := index.snapshot()) is not None:
            store.on_step = crash
            stored.put(snapshot)
            crash()
            last = sealed_end(index)
    index.close()
    assert last
    assert steps > 25


@pytest.mark.parametrize("kind", ["manifest-", ".columns", ".vec", ".faiss", ".fields"])
def test_a_flipped_bit_in_the_store_is_named_and_made_good(tmp_path: Path, kind: str) -> None:
    """At positions all over the object. The index ends before the damage, the log has the rest."""
    store = WatchedStore("memory:///")
    index = PartitionIndex.open(tmp_path / "here", SETTINGS)
    append(index, len(RECORDS))
    snapshot = index.snapshot()
    assert snapshot is not None
    StoredIndex(store, PREFIX).put(snapshot)
    index.close()
    victims = [name for name in store.list("") if kind in name]
    assert victims
    for number in range(20):
        victim = victims[number % len(victims)]
        damaged = copy(store)
        data = bytearray(store.get(victim))
        data[(len(data) - 1) * number // 19] ^= 1 << number % 8
        ObjectStore.put(damaged, victim, bytes(data))
        _, damages = StoredIndex(damaged, PREFIX).restore(tmp_path / "restored")
        assert any(victim in damage for damage in damages)
        restored = PartitionIndex.open(tmp_path / "restored", SETTINGS)
        assert not restored.damages
        assert restored.indexed_offset < snapshot.manifest.entries[-1].next_offset
        go_on(restored, tmp_path / "restored")
