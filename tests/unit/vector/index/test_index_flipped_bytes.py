"""One flipped bit anywhere in any file of an index: named, rebuilt from the log, and never a wrong hit before or after that."""

from collections import Counter
from pathlib import Path
from random import Random
from shutil import copytree, rmtree

import numpy as np
import pytest

from tests.unit.vector.index.model import Expected, Record, brute_force, build_all, run_of
from vector.check import check_index
from vector.index.files import DAMAGED_DIRECTORY
from vector.index.partition_index import PartitionIndex
from vector.index.query import IndexQuery, record_filter
from vector.index.settings import IndexSettings
from vector.index.text_search import best_texts

SETTINGS = IndexSettings(6, growing_rows_max=20, exact_matches_max=10, segment_rows_max=30, texts=True)
RECORDS = [
    Record(offset, offset, (offset % 60,), 0) if offset % 7 else Record(offset, offset, (), 0) for offset in range(110)
]
QUERY = IndexQuery(np.array([1, 1, 2, -1, 0, 1], dtype=np.float32), limit=1000)
KINDS = ["manifest.json", "*.journal", "*.columns", "*.vec", "*.faiss", "*.fields", "*.texts/*"]
PER_KIND = 24


@pytest.fixture(autouse=True)
def _no_power_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sealed segments with graphs and texts, and a growing one."""
    directory = tmp_path_factory.mktemp("whole") / "index"
    index = PartitionIndex.open(directory, SETTINGS)
    for start in range(0, 110, 5):
        index.append(run_of(RECORDS[start : start + 5], start + 5, SETTINGS))
        index.checkpoint()
        if start < 90:
            build_all(index)
    index.close()
    return directory


def compare(index: PartitionIndex) -> None:
    """All hits with their scores, by vector and by word."""
    records = RECORDS[: index.indexed_offset]
    found = [Expected(c.offset, c.timestamp_ms, c.similarity, c.duplicates, c.flags) for c in index.search(QUERY)]
    assert found == brute_force(records, QUERY, SETTINGS)
    hits = best_texts(index.parts(record_filter(QUERY)), {"text": 1.0}, 1000, collapse=False)
    assert sorted(hit.offset for hit in hits) == [record.offset for record in records if record.contents]


def test_every_kind_of_file_is_among_them(whole: Path) -> None:
    files = {path for path in whole.rglob("*") if path.is_file()}
    assert files == {path for kind in KINDS for path in whole.glob(kind)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_named_and_made_good(whole: Path, tmp_path: Path, kind: str) -> None:
    """The first and the last byte of each file, and others between. A frame's length that now reaches beyond the file looks like an
    append that was cut by a crash: what it held is taken from the log, as after that."""
    chance = Random(kind)
    victims = sorted(path for path in whole.glob(kind) if path.stat().st_size)
    places = [(path, at) for path in victims for at in (0, path.stat().st_size - 1)]
    places += [(path, chance.randrange(path.stat().st_size)) for path in chance.choices(victims, k=PER_KIND)]
    outcomes: Counter[str] = Counter()
    for original, position in chance.sample(places, min(len(places), PER_KIND)):
        directory = tmp_path / "index"
        copytree(whole, directory)
        victim = directory / original.relative_to(whole)
        data = bytearray(victim.read_bytes())
        data[position] ^= 1 << chance.randrange(8)
        victim.write_bytes(data)
        named = [problem.path for problem in check_index(directory)]

        index = PartitionIndex.open(directory, SETTINGS)
        where = f"{original.relative_to(whole)}, byte {position}"
        if named:
            assert named == [victim], where
            assert any(victim.name in damage for damage in index.damages), where
            assert (directory / DAMAGED_DIRECTORY).exists(), where
            outcomes["named"] += 1
        else:
            assert kind == "*.journal", where
            outcomes["cut"] += 1
        assert index.indexed_offset < len(RECORDS), where
        compare(index)
        index.append(run_of(RECORDS[index.indexed_offset :], len(RECORDS), SETTINGS))
        compare(index)
        index.close()
        assert check_index(directory) == [], where
        again = PartitionIndex.open(directory, SETTINGS)
        assert not again.damages, where
        compare(again)
        again.close()
        rmtree(directory)
    assert outcomes["named"] > 10 * outcomes["cut"]
