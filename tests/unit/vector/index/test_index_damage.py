"""A flipped byte in each kind of file: found, set aside, the log replayed from there, nothing embedded again needlessly."""

from pathlib import Path

import pytest

from tests.unit.vector.index.model import Record, build_all, content_hash, run_of
from vector.check import check_index
from vector.index.partition_index import PartitionIndex
from vector.index.settings import IndexSettings

SETTINGS = IndexSettings(6, growing_rows_max=20, exact_matches_max=10, segment_rows_max=30, texts=True)
RECORDS = [
    Record(offset, offset, (offset,), 0) if offset % 7 else Record(offset, offset, (), 0) for offset in range(110)
]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Four sealed segments with graphs, a growing one with two frames."""
    index = PartitionIndex.open(tmp_path / "index", SETTINGS)
    for start in range(0, 110, 10):
        index.append(run_of(RECORDS[start : start + 10], start + 10, SETTINGS))
        build_all(index)
    index.close()
    return tmp_path / "index"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("pattern", ["*.columns", "*.vec", "*.faiss", "*.fields", "*.texts/*.idx", "*.texts/*.store"])
def test_a_damaged_segment_takes_the_index_back_to_its_start(directory: Path, pattern: str) -> None:
    whole = PartitionIndex.open(directory, SETTINGS)
    segments = whole.status()["segments"]
    hashes = [content_hash(record.offset) for record in RECORDS if record.contents]
    assert len(whole.known_vectors(hashes)) == len(hashes)
    whole.close()
    victim = sorted(directory.glob(pattern))[1]
    flip(victim)
    assert [problem.path for problem in check_index(directory)] == [victim]

    index = PartitionIndex.open(directory, SETTINGS)
    start, end = segments[1]["base_offset"], segments[1]["next_offset"]
    assert index.indexed_offset == start
    assert index.counts.records == start
    assert victim.name in index.damages[0]
    assert (directory / "damaged" / victim.relative_to(directory)).exists()
    # What lies behind the damage is not searched, but its vectors are still known: only the lost ones are embedded again.
    lost = [content_hash(record.offset) for record in RECORDS if record.contents and start <= record.offset < end]
    assert set(hashes) - set(index.known_vectors(hashes)) == set(lost)
    index.append(run_of(RECORDS[start:], 110, SETTINGS))
    index.checkpoint()
    assert index.counts.records == 110
    assert index.status()["reserve_segments"] == 0
    index.close()
    assert check_index(directory) == []


def test_a_damaged_manifest_costs_a_replay_but_no_embedding_of_sealed_records(directory: Path) -> None:
    flip(directory / "manifest.json")
    assert len(check_index(directory)) == 1
    index = PartitionIndex.open(directory, SETTINGS)
    assert index.indexed_offset == 0
    assert index.counts.records == 0
    sealed = [content_hash(record.offset) for record in RECORDS[:80] if record.contents]
    assert len(index.known_vectors(sealed)) == len(sealed)
    index.append(run_of(RECORDS, 110, SETTINGS))
    index.close()
    assert check_index(directory) == []


def test_a_damaged_journal_keeps_the_frames_before_the_damage(directory: Path) -> None:
    index = PartitionIndex.open(directory, SETTINGS)
    base = index.status()["segments"][-1]["base_offset"]
    index.append(run_of([Record(110, 110, (500,))], 111, SETTINGS))
    index.append(run_of([Record(111, 111, (501,))], 112, SETTINGS))
    index.close()
    journal = max(directory.glob("*.journal"))
    data = bytearray(journal.read_bytes())
    data[-3] ^= 1
    journal.write_bytes(data)
    assert check_index(directory)
    index = PartitionIndex.open(directory, SETTINGS)
    assert base <= index.indexed_offset == 111
    assert index.counts.records == 111
    assert index.damages
    index.close()
    assert check_index(directory) == []


def test_another_generation_is_refused(directory: Path) -> None:
    with pytest.raises(ValueError, match="6 dimensions"):
        PartitionIndex.open(directory, IndexSettings(7))
    with pytest.raises(ValueError, match="cosine"):
        PartitionIndex.open(directory, IndexSettings(6, metric="l2"))


def test_a_restart_after_a_crash_embeds_at_most_what_was_not_checkpointed(directory: Path) -> None:
    index = PartitionIndex.open(directory, SETTINGS)
    index.append(run_of([Record(110, 110, (500,))], 111, SETTINGS))
    index.checkpoint()
    index.append(run_of([Record(111, 111, (501,))], 112, SETTINGS))
    index._journal.close()  # the process dies here
    again = PartitionIndex.open(directory, SETTINGS)
    assert again.indexed_offset == 111
    assert list(again.known_vectors([content_hash(500), content_hash(501), content_hash(3)])) == [
        content_hash(500),
        content_hash(3),
    ]
    again.close()


def test_a_full_disk_loses_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is full records are searchable but not durable; once there is room a checkpoint makes them so."""
    index = PartitionIndex.open(directory, SETTINGS)

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for place in ("os.fsync", "os.write"):
        with monkeypatch.context() as patch:
            patch.setattr(place, disk_full)
            start = index.indexed_offset
            with pytest.raises(OSError, match="No space"):
                index.append(
                    run_of([Record(start + o, 0, (1000 + start + o,)) for o in range(25)], start + 25, SETTINGS)
                )
            assert index.indexed_offset == start + 25
            assert index.checkpointed_offset < start + 25
            with pytest.raises(OSError, match="No space"):
                index.checkpoint()
        index.checkpoint()
        assert index.checkpointed_offset == start + 25
    index._journal.close()  # the process dies here
    again = PartitionIndex.open(directory, SETTINGS)
    assert again.indexed_offset == 160
    assert again.counts.records == 160
    again.close()
    assert check_index(directory) == []
