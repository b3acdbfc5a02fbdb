"""A flipped byte in each kind of file: found, set aside, the log replayed from there, nothing embedded again needlessly."""

import struct
from dataclasses import replace
from pathlib import Path

import faiss
import pytest

from tests.unit.vector.index.model import Record, build_all, content_hash, run_of
from vector.check import check_index
from vector.index import segment_files
from vector.index.files import FileReference, checksum, write_durable
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


def write_with_right_checksums(columns: Path, victim: Path, content: bytes) -> None:
    """As a build with a bug, or of a version to come, would: the file's content is another, and all checksums are right."""
    if victim == columns:
        body = segment_files.MAGIC + content
        victim.write_bytes(body + struct.pack("<I", checksum(body)))
        return
    victim.write_bytes(content)
    header, data = segment_files.decode(columns)
    name = str(victim.relative_to(columns.parent))
    written = FileReference(name, len(content), checksum(content))
    files = tuple(written if file.name == name else file for file in header.files)
    assert written in files
    pieces = [bytes(piece) for piece in segment_files.encode(replace(header, files=files), data)]
    write_durable(columns, pieces)


@pytest.mark.parametrize(
    ("pattern", "reader", "named"),
    [
        ("*.faiss", "FAISS", ".faiss"),
        ("*.texts/meta.json", "tantivy", ".texts"),
        ("*.fields", "this version", ".fields"),
        ("*.columns", "this version", ".columns"),
    ],
)
def test_a_segment_that_its_library_cannot_read_is_a_damaged_one(
    directory: Path, pattern: str, reader: str, named: str
) -> None:
    """Its checksums are right, so it would be refused again at each attempt, for ever."""
    victim, columns = sorted(directory.glob(pattern))[1], sorted(directory.glob("*.columns"))[1]
    start = sorted(
        (segment_files.decode(path)[0] for path in directory.glob("*.columns")), key=lambda header: header.base_offset
    )[1].base_offset
    write_with_right_checksums(columns, victim, b"{}" + bytes(range(256)) * 4)
    problems = check_index(directory)
    assert [problem.path.name.endswith(named) for problem in problems] == [True]

    index = PartitionIndex.open(directory, SETTINGS)
    assert index.indexed_offset == start
    assert [f"{reader} cannot read it" in damage for damage in index.damages] == [True]
    assert index.status()["damages"] == index.damages
    index.append(run_of(RECORDS[start:], 110, SETTINGS))
    index.close()
    assert check_index(directory) == []
    again = PartitionIndex.open(directory, SETTINGS)
    assert (again.indexed_offset, again.damages) == (110, [])
    again.close()


@pytest.mark.parametrize("said", ["could not open it for reading: Too many open files", "mmap: Cannot allocate memory"])
def test_what_the_machine_lacks_is_no_damage(directory: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """Libraries tell of it by the same exceptions: nothing may be set aside for that, it is tried again."""

    def refuse(*_: object) -> None:
        raise RuntimeError(f"Error in faiss::FileIOReader: {said}")

    before = {path.name for path in directory.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(faiss, "read_index", refuse)
        with pytest.raises(OSError, match=said):
            PartitionIndex.open(directory, SETTINGS)
    assert {path.name for path in directory.iterdir()} == before
    index = PartitionIndex.open(directory, SETTINGS)
    assert (index.indexed_offset, index.damages) == (110, [])
    index.close()


def test_a_graph_that_cannot_be_read_any_more_is_made_anew_by_the_next_merge(tmp_path: Path) -> None:
    """A merge adds to the graph of its first segment; one that failed at that would be tried again for ever."""
    settings = replace(SETTINGS, segment_rows_max=1000, exact_matches_max=30)
    index = PartitionIndex.open(tmp_path, settings)
    for start in range(0, 16 * 20, 20):
        if start == 8 * 20:
            build_all(index)
            (graph,) = tmp_path.glob("*.faiss")
            graph.unlink()  # the index has mapped it
            graph.write_bytes(b"nothing of it")
        run = [Record(offset, offset, (offset,), 0) for offset in range(start, start + 20)]
        index.append(run_of(run, start + 20, settings))
    build_all(index)
    assert [segment["kind"] for segment in index.status()["segments"]] == ["sealed", "growing"]
    assert index.status()["segments"][0]["graph_trust"]
    index.close()
    assert check_index(tmp_path) == []


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
