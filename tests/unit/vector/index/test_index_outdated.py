"""An index of a version that kept no fields: rebuilt from the log, with the vectors it has."""

import shutil
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np

from tests.unit.vector.index.model import Record, build_all, content_hash, run_of
from vector.index import segment_files
from vector.index.files import checksum
from vector.index.journal import FRAME_HEAD, frames
from vector.index.partition_index import PartitionIndex
from vector.index.query import IndexQuery, record_filter
from vector.index.settings import IndexSettings
from vector.index.text_search import best_texts

SETTINGS = IndexSettings(6, growing_rows_max=20, exact_matches_max=10, segment_rows_max=30)
RECORDS = [Record(offset, offset, (offset,), 0) for offset in range(50)]


def make_outdated(directory: Path) -> None:
    """What the version before would have written."""
    for path in directory.glob("*.columns"):
        header, data = segment_files.decode(path)
        files = tuple(file for file in header.files if not file.name.endswith(".fields"))
        path.write_bytes(b"".join(segment_files.encode(replace(header, files=files), data)))
    for path in directory.glob("*.fields"):
        path.unlink()
    for path in directory.glob("*.journal"):
        rewritten = b""
        for _, payload in frames(path.read_bytes()):
            frame = msgpack.unpackb(payload or b"", strict_map_key=False)
            del frame["fields"]
            packed = msgpack.packb(frame)
            rewritten += FRAME_HEAD.pack(len(packed), checksum(packed)) + packed
        path.write_bytes(rewritten)


def test_texts_that_are_asked_for_later_are_read_from_the_log(tmp_path: Path) -> None:
    """vector.text.index switched on: what was sealed without texts is replayed, with the vectors it has."""
    index = PartitionIndex.open(tmp_path, SETTINGS)
    index.append(run_of(RECORDS, 50, SETTINGS))
    build_all(index)
    index.close()
    with_texts = replace(SETTINGS, texts=True)
    index = PartitionIndex.open(tmp_path, with_texts)
    assert index.indexed_offset == 0
    assert len(index.known_vectors([content_hash(record.offset) for record in RECORDS])) == 50
    index.append(run_of(RECORDS, 50, with_texts))
    build_all(index)
    index.close()
    index = PartitionIndex.open(tmp_path, with_texts)
    parts = index.parts(record_filter(IndexQuery(np.ones(6, dtype=np.float32))))
    assert [hit.offset for hit in best_texts(parts, {"17": 1.0}, 10, collapse=False)] == [17]
    index.close()
    index = PartitionIndex.open(tmp_path, SETTINGS)  # and off again: nothing is made anew for that
    assert (index.indexed_offset, index.damages) == (50, [])
    index.close()


def test_an_outdated_index_is_rebuilt_without_embedding(tmp_path: Path) -> None:
    index = PartitionIndex.open(tmp_path / "index", SETTINGS)
    for start in range(0, 50, 10):
        index.append(run_of(RECORDS[start : start + 10], start + 10, SETTINGS))
        build_all(index)
    index.close()
    make_outdated(tmp_path / "index")

    index = PartitionIndex.open(tmp_path / "index", SETTINGS)
    assert (index.indexed_offset, index.damages) == (0, [])
    hashes = [content_hash(record.offset) for record in RECORDS]
    known = index.known_vectors(hashes)
    assert set(known) == set(hashes)
    everything = IndexQuery(np.ones(6, dtype=np.float32), 100)
    assert index.search(everything) == []
    index.append(run_of(RECORDS, 50, SETTINGS))
    index.checkpoint()
    assert len(index.search(everything)) == 50
    assert (index.counts.records, index.status()["reserve_segments"]) == (50, 0)
    index.close()
    shutil.rmtree(tmp_path / "index")
