"""Collapse over chunked records: a content whose newest record is a hit by another chunk is still one by an older record."""

from pathlib import Path

from tests.unit.vector.index.model import Record, brute_force, content_vector, run_of
from vector.index.partition_index import PartitionIndex
from vector.index.query import IndexQuery
from vector.index.settings import IndexSettings


def test_a_content_is_not_lost_with_the_record_that_another_chunk_took(tmp_path: Path) -> None:
    settings = IndexSettings(4)
    near, far = 0, 30
    records = [Record(0, 10, (far,)), Record(1, 11, (far, near))]
    index = PartitionIndex.open(tmp_path, settings)
    index.append(run_of(records, 2, settings))
    query = IndexQuery(content_vector(near, 4), 10, -1, -1, -1, -1, None, True, -1, 0, -1, True)
    expected = brute_force(records, query, settings)
    assert [hit.offset for hit in expected] == [1, 0]
    assert [hit.offset for hit in index.search(query)] == [1, 0]
    index.close()
