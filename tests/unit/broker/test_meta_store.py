"""broker.meta_store: what was promised survives, what was not is whole or absent, damage is noticed."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.meta_store import FILE_NAME, DamagedMetadata, MetaStore, TopicRecord
from storage.file_system import OsFileSystem
from tests.simulated_storage import SimulatedCrash, SimulatedFileSystem

DIRECTORY = Path("/data")
names = st.text("abc._-", min_size=1, max_size=8)
records = st.builds(
    TopicRecord,
    name=names,
    topic_id=st.binary(min_size=16, max_size=16),
    partitions=st.integers(1, 10_000),
    configs=st.dictionaries(names, st.text(max_size=20), max_size=3),
)


def store_of(disk: Any) -> MetaStore:
    return MetaStore.open(DIRECTORY, disk)


def stored(disk: SimulatedFileSystem) -> bytearray:
    return dict(disk.files())[DIRECTORY / FILE_NAME].current


@given(st.lists(records, max_size=5), st.integers(0, 2**62))
def test_reads_back_what_was_written(topics: list[TopicRecord], next_producer_id: int) -> None:
    disk = SimulatedFileSystem()
    by_name = {topic.name: topic for topic in topics}
    store = store_of(disk)
    store.replace(topics=by_name, next_producer_id=next_producer_id, resource_configs={32: {"g": {"k": "v"}}})
    assert store_of(disk).metadata == store.metadata


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("step", range(1, 9))
def test_a_crash_at_any_step_leaves_the_old_or_the_new_state(step: int, seed: int) -> None:
    disk = SimulatedFileSystem(seed)
    store = store_of(disk)
    before = store.metadata
    disk.crash_at = disk.steps + step
    topics = {"logs": TopicRecord("logs", bytes(range(16)), 3, {"retention.ms": "1"})}
    promised = False
    try:
        store.replace(topics=topics)
        promised = True
    except SimulatedCrash:
        assert store.metadata == before
    disk.lose_power()
    after = store_of(disk).metadata
    assert after.cluster_id == before.cluster_id
    assert after.topics in ((topics,) if promised else ({}, topics))


@pytest.mark.parametrize("step", range(1, 9))
def test_a_crash_while_the_first_file_is_written_leaves_a_directory_that_opens(step: int) -> None:
    disk = SimulatedFileSystem(step)
    disk.crash_at = step
    with contextlib.suppress(SimulatedCrash):
        store_of(disk)
    disk.lose_power()
    assert len(store_of(disk).metadata.cluster_id) == 22


def test_short_writes_are_continued() -> None:
    disk = SimulatedFileSystem()
    disk.short_write = True
    store = store_of(disk)
    assert store_of(disk).metadata == store.metadata


def test_a_full_disk_changes_nothing() -> None:
    disk = SimulatedFileSystem()
    store = store_of(disk)
    disk.capacity = disk.used() + 3
    with pytest.raises(OSError, match="no space"):
        store.replace(next_producer_id=7)
    assert store.metadata.next_producer_id == 0
    disk.capacity = 1 << 40
    assert store_of(disk).metadata == store.metadata


@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    disk = SimulatedFileSystem()
    store_of(disk)
    content = stored(disk)
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DamagedMetadata, match=FILE_NAME):
        store_of(disk)


def test_a_file_cut_short_is_noticed() -> None:
    disk = SimulatedFileSystem()
    store_of(disk)
    del stored(disk)[5:]
    with pytest.raises(DamagedMetadata, match="too few"):
        store_of(disk)


def test_on_the_real_file_system(tmp_path: Path) -> None:
    store = MetaStore.open(tmp_path / "new" / "directory", OsFileSystem())
    store.replace(next_producer_id=5)
    again = MetaStore.open(tmp_path / "new" / "directory", OsFileSystem())
    assert again.metadata == store.metadata
    assert [path.name for path in (tmp_path / "new" / "directory").iterdir()] == [FILE_NAME]


def test_topic_ids_differ_and_are_not_reserved() -> None:
    store = store_of(SimulatedFileSystem())
    ids = {store.new_topic_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(any(topic_id[:8]) for topic_id in ids)
