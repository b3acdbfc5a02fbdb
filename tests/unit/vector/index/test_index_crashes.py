"""A crash at every file operation of an index's life: appends, seals, merges, swaps, drops, truncations, restarts.

At each operation a killed process's folder and one of a power failure are opened as the next start would: everything below
`indexed_offset` is found with its true similarity, nothing else is, what was checkpointed needs no embedding again, and the log
brings the rest.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from tests.crash_images import WatchedFolder
from tests.unit.vector.index.model import Expected, Record, brute_force, build_all, content_hash, run_of
from vector.check import check_index
from vector.index import build as building
from vector.index import files, manifest
from vector.index.partition_index import BuildTask, PartitionIndex
from vector.index.query import IndexQuery, record_filter
from vector.index.settings import IndexSettings
from vector.index.text_search import best_texts

SETTINGS = IndexSettings(6, growing_rows_max=8, exact_matches_max=5, segment_rows_max=60, texts=False)
ACTIONS = ("append",) * 3 + ("build",) * 2 + ("checkpoint", "drop", "compact", "lose", "restart")
EVERYTHING = IndexQuery(np.array([1, 1, 2, -1, 0, 1], dtype=np.float32), limit=1000)
NARROW = replace(EVERYTHING, limit=7, exact=True)


class Life:
    """One index below `root`, the log it is made of, and what a crash at any moment may cost."""

    def __init__(self, root: Path, settings: IndexSettings, seed: int) -> None:
        self.settings = settings
        self.chance = Random(seed)
        self.log: list[Record] = []
        self.log_end = self.log_start = 0
        self.compacted: set[int] = set()
        self.durable = 0
        """What a crash must leave; only a lost tail of the log takes any of it back."""
        self.images = 0
        self.looked_in: set[str] = set()
        self.doing = "opening"
        self.opened: list[PartitionIndex] = []
        self.root = root / "vector"
        self.root.mkdir(parents=True)
        self.scratch = root / "image"
        self.folder = WatchedFolder(self.root, self.crash)
        self.index: PartitionIndex

    def live(self, rounds: int) -> None:
        with self.folder.watched():
            self.index = self.open(self.root)
            for action in self.chance.sample(ACTIONS * rounds, len(ACTIONS) * rounds):
                self.doing = action
                getattr(self, self.doing)()
                self.durable = self.index.checkpointed_offset
            self.doing = "closing"
            self.index.close()

    # What happens

    def append(self) -> None:
        for _ in range(self.chance.randint(1, 12)):
            offset = self.log_end + (self.chance.random() < 0.1)
            kind = self.chance.random()
            contents = tuple(self.chance.randrange(40) for _ in range(1 if kind < 0.8 else 3)) if kind < 0.9 else ()
            self.log.append(Record(offset, offset + self.chance.randint(0, 3), None if kind > 0.97 else contents))
            self.log_end = offset + 1
        self.catch_up(self.index)

    def catch_up(self, index: PartitionIndex) -> None:
        todo = [record for record in self.log if record.offset >= index.indexed_offset]
        if index.indexed_offset < self.log_end:
            index.append(run_of(todo, self.log_end, self.settings))

    def checkpoint(self) -> None:
        self.index.checkpoint()

    def build(self) -> None:
        build_all(self.index)

    def drop(self) -> None:
        self.log_start = max(self.log_start, self.log_end - self.chance.randint(20, 60))
        self.index.drop_below(self.log_start)

    def compact(self) -> None:
        self.compacted |= {record.offset for record in self.log[: len(self.log) // 2] if self.chance.random() < 0.3}
        self.index.bury(sorted(self.compacted))

    def lose(self) -> None:
        """The log lost its tail, as a start finds out."""
        self.log_end = max(self.log_start, self.log_end - self.chance.choice([0, 5, 15]))
        self.log = [record for record in self.log if record.offset < self.log_end]
        self.compacted = {offset for offset in self.compacted if offset < self.log_end}
        self.durable = 0
        self.index.truncate(self.log_end)
        self.durable = self.index.checkpointed_offset
        self.catch_up(self.index)

    def restart(self) -> None:
        self.index.close()
        self.durable = self.index.checkpointed_offset
        self.index = self.open(self.root)
        assert not self.index.damages

    # The crash

    def open(self, root: Path) -> PartitionIndex:
        """As a worker does."""
        index = PartitionIndex.open(root / "topic" / "1" / "0", self.settings, monotonic=lambda: 0.0)
        self.opened.append(index)
        index.drop_below(self.log_start)
        index.bury(sorted(self.compacted))
        if index.indexed_offset > self.log_end:
            index.truncate(self.log_end)
        return index

    def crash(self, operation: str) -> None:
        self.folder.after_kill(self.scratch)
        self.look(operation, "a kill")
        self.folder.after_power_failure(self.scratch, self.chance)
        self.look(operation, "a power failure")

    def look(self, operation: str, crash: str) -> None:
        try:
            self.recover(torn_is_damage=crash == "a power failure")
        except Exception as error:
            raise AssertionError(f"after {crash} at step {self.folder.steps} ({self.doing}: {operation})") from error
        shutil.rmtree(self.scratch)
        self.images += 1
        self.looked_in.add(self.doing)

    def recover(self, *, torn_is_damage: bool) -> None:
        """The sectors of a frame that was being written may be missing from its middle: nothing tells that from a rotten byte."""
        index = self.open(self.scratch)
        assert not index.damages or (torn_is_damage and "checksum of the frame" in "".join(index.damages))
        assert index.indexed_offset >= self.durable
        self.compare(index)
        known = self.durable if not self.compacted else 0
        contents = {c for r in self.log if self.log_start <= r.offset < known for c in r.contents or ()}
        assert len(index.known_vectors([content_hash(content) for content in contents])) == len(contents)
        self.catch_up(index)
        self.compare(index)
        index.close()
        assert check_index(self.scratch) == []

    def compare(self, index: PartitionIndex) -> None:
        visible = [r for r in self.log if self.log_start <= r.offset < index.indexed_offset]
        visible = [record for record in visible if record.offset not in self.compacted]
        for query in (EVERYTHING, NARROW):
            found = [
                Expected(c.offset, c.timestamp_ms, c.similarity, c.duplicates, c.flags) for c in index.search(query)
            ]
            assert found == brute_force(visible, query, self.settings)
        if self.settings.texts and visible:
            number = next((r.contents[0] for r in visible if r.contents), 0)
            hits = best_texts(index.parts(record_filter(EVERYTHING)), {str(number): 1.0}, 1000, collapse=False)
            assert sorted(hit.offset for hit in hits) == [r.offset for r in visible if number in (r.contents or ())]


def life(root: Path, seed: int, rounds: int, settings: IndexSettings = SETTINGS) -> Life:
    made = Life(root, settings, seed)
    try:
        made.live(rounds)
    finally:
        for index in made.opened:
            index._journal.close()  # of those that a failure ended
    return made


@pytest.mark.parametrize("seed", range(4))
def test_an_index_survives_a_crash_at_every_file_operation(tmp_path: Path, seed: int) -> None:
    one = life(tmp_path, seed, 3)
    assert one.images > 200
    assert {"append", "build", "lose", "restart"} <= one.looked_in


@pytest.mark.slow
def test_its_texts_too(tmp_path: Path) -> None:
    assert life(tmp_path, 11, 2, replace(SETTINGS, texts=True)).images > 200


# What all this is worth


def contents_not_synced(patch: pytest.MonkeyPatch) -> None:
    real = WatchedFolder._synced
    patch.setattr(WatchedFolder, "_synced", lambda self, path: real(self, path) if os.path.isdir(path) else None)


def names_not_synced(patch: pytest.MonkeyPatch) -> None:
    real = WatchedFolder._synced
    patch.setattr(WatchedFolder, "_synced", lambda self, path: None if os.path.isdir(path) else real(self, path))


def names_of_built_files_not_synced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(building, "sync_directory", lambda directory: None)


def manifest_written_in_place(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(manifest, "replace_durable", lambda path, data: files.write_durable(path, [data]))


def sources_removed_before_the_swap(patch: pytest.MonkeyPatch) -> None:
    original = PartitionIndex.swap

    def swap(self: PartitionIndex, task: BuildTask, built: building.Built) -> bool:
        self._remove(task.sources)
        return original(self, task, built)

    patch.setattr(PartitionIndex, "swap", swap)


def frozen_without_a_checkpoint(patch: pytest.MonkeyPatch) -> None:
    original = PartitionIndex._freeze

    def freeze(self: PartitionIndex) -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(PartitionIndex, "checkpoint", lambda self: None)
            original(self)

    patch.setattr(PartitionIndex, "_freeze", freeze)


MUTANTS: list[Callable[[pytest.MonkeyPatch], None]] = [
    contents_not_synced,
    names_not_synced,
    names_of_built_files_not_synced,
    manifest_written_in_place,
    sources_removed_before_the_swap,
    frozen_without_a_checkpoint,
]


@pytest.mark.slow
@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, OSError)):
        for seed in range(6):
            life(tmp_path / str(seed), seed, 3)
