"""What a build that outlives its index may do: nothing."""

from pathlib import Path

from tests.unit.vector.index.model import Record, build_all, run_of
from vector.index.partition_index import PartitionIndex
from vector.index.settings import IndexSettings

SETTINGS = IndexSettings(6, growing_rows_max=20, exact_matches_max=10, segment_rows_max=30)
RECORDS = [Record(offset, offset, (offset,), 0) for offset in range(40)]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_a_build_that_ends_after_close_does_not_touch_the_index_opened_since(tmp_path: Path) -> None:
    """A topic whose config was altered during a build: the folder is the new index's by then."""
    old = PartitionIndex.open(tmp_path, SETTINGS)
    old.append(run_of(RECORDS[:30], 30, SETTINGS))
    task = old.plan()
    assert task is not None
    built = old.build(task)
    old.close()

    new = PartitionIndex.open(tmp_path, SETTINGS)
    new.append(run_of(RECORDS[30:], 40, SETTINGS))
    build_all(new)
    new.checkpoint()
    before = contents(tmp_path)
    assert not old.swap(task, built)
    old.abandon(task, OSError("late"))
    assert old.plan() is None
    assert contents(tmp_path) == before
    new.close()
    again = PartitionIndex.open(tmp_path, SETTINGS)
    assert (again.indexed_offset, again.damages) == (40, [])
    again.close()
