"""Compacted logs over the simulated disk: what stays, what readers see, and what must not disturb it."""

import errno
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.record_batch import (
    TRANSACTIONAL,
    BatchHeader,
    Record,
    build_batch,
    iterate_records,
    parse_batches,
    walk_batches,
)
from storage.check import check_directory
from storage.checkpoint import read_checkpoint
from storage.compaction import group_segments, plan_compaction
from storage.config import LogConfig
from storage.flush_plan import tail_closes_segment
from storage.offset_map import OffsetMap
from storage.repair import repair_directory
from storage.segment import Segment
from storage.tail import Tail
from tests.simulated_storage import SimulatedFile
from tests.storage_world import DIRECTORY, World

COMPACT = LogConfig(cleanup_policy="compact", segment_bytes=1000, min_cleanable_dirty_ratio=0.0)
DAY_MS = 24 * 3_600_000


def put(world: World, *pairs: tuple[bytes | None, bytes | None], producer: tuple[int, int, int] = (-1, -1, -1)) -> None:
    """One batch."""
    records = [Record(0, world.clock.now_ms, key, value, []) for key, value in pairs]
    producer_id, epoch, sequence = producer
    data = memoryview(build_batch(records, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence))
    world.log.append(data, parse_batches(data), now_ms=world.clock.now_ms)
    world.manager.commit()
    world.settle()


def roll(world: World) -> None:
    """Everything so far is in closed segments, and a checkpoint knows them."""
    world.flush()
    world.log.seal_last_segment()
    put(world, (b"newest", b""))
    world.flush()


def compact(world: World) -> None:
    world.manager.maintain()
    world.settle()


def batches(world: World, offset: int = -1) -> list[memoryview]:
    offset = world.log.log_start_offset if offset < 0 else offset
    found = []
    while offset < world.log.high_watermark:
        result = world.log.read(offset, 1000, up_to=1 << 60, at_least_one=True)
        data = memoryview(b"".join(result.buffers))
        found += [data[batch.position : batch.position + batch.size] for batch in walk_batches(data)]
        offset = result.next_offset
    return found


def table(world: World, offset: int = -1) -> dict[int, tuple[bytes | None, bytes | None]]:
    """Key and value at each offset, without what `roll` wrote."""
    records = [record for batch in batches(world, offset) for record in iterate_records(batch)]
    return {record.offset: (record.key, record.value) for record in records if record.key != b"newest"}


def test_the_last_value_of_each_key_stays_where_it_was() -> None:
    """Offsets are kept, also through a restart; a fetch from a removed offset gives what comes next."""
    world = World(COMPACT)
    put(world, (b"a", b"1"), (b"b", b"1"))
    put(world, (b"a", b"2"), (b"c", b"1"))
    roll(world)
    compact(world)
    expected = {1: (b"b", b"1"), 2: (b"a", b"2"), 3: (b"c", b"1")}
    assert table(world) == table(world, 0) == expected
    assert list(table(world, 2)) == [2, 3]
    world.manager.close()
    assert check_directory(DIRECTORY, world.disk) == []
    world.open()
    assert table(world) == expected
    assert world.log.log_end_offset == 5
    put(world, (b"d", b"1"))
    assert table(world)[5] == (b"d", b"1")


def test_a_batch_without_records_goes_unless_it_ends_the_segment_or_is_its_producers_last() -> None:
    world = World(COMPACT)
    put(world, (b"a", b"1"), producer=(7, 0, 0))
    put(world, (b"a", b"2"), producer=(8, 0, 0))
    put(world, (b"a", b"3"), producer=(7, 0, 1))
    put(world, (b"a", b"4"))
    put(world, (b"b", b"1"))
    put(world, (b"b", b"2"))
    world.flush()
    world.log.seal_last_segment()
    put(world, (b"b", b"3"))
    roll(world)
    world.log.config = replace(COMPACT, segment_bytes=10)
    compact(world)
    kept = [(header.base_offset, header.record_count) for header in map(BatchHeader, batches(world))]
    assert kept == [(1, 0), (2, 0), (3, 1), (5, 0), (6, 1), (7, 1)]
    with pytest.raises(Exception, match="producer 7 sent sequence 5 after 1"):
        put(world, (b"a", b"5"), producer=(7, 0, 5))


def test_a_tombstone_outlives_the_first_compaction_by_delete_retention() -> None:
    """KAFKA-8522: the time counts from the compaction that first saw it, and stands in the batch."""
    world = World(COMPACT)
    put(world, (b"a", b"1"), (b"b", b"1"))
    put(world, (b"a", None))
    roll(world)
    compact(world)
    assert table(world) == {1: (b"b", b"1"), 2: (b"a", None)}
    tombstone = BatchHeader(batches(world, 2)[0])
    assert tombstone.delete_horizon_ms == world.clock.now_ms + DAY_MS
    (record,) = iterate_records(batches(world, 2)[0])
    assert record.timestamp_ms == world.clock.now_ms
    world.clock.advance(DAY_MS - 1)
    put(world, (b"c", b"1"))
    roll(world)
    compact(world)
    assert (b"a", None) in table(world).values()
    world.clock.advance(1)
    put(world, (b"c", b"2"))
    roll(world)
    compact(world)
    assert table(world) == {1: (b"b", b"1"), 6: (b"c", b"2")}


def test_a_record_without_a_key_goes_with_the_first_compaction() -> None:
    """From before the topic was compacted: produce refuses it since."""
    world = World(COMPACT)
    put(world, (None, b"1"), (b"a", b"1"))
    roll(world)
    compact(world)
    assert table(world) == {1: (b"a", b"1")}


def test_times_are_found_over_removed_records_and_empty_batches() -> None:
    """ListOffsets by time answers with a record that is still there."""
    world = World(COMPACT)
    start = world.clock.now_ms
    for value in range(4):
        put(world, (b"a", b"%d" % value), producer=(7, 0, value))
        world.clock.advance(1000)
    put(world, (b"b", b"1"))
    roll(world)
    compact(world)
    found = world.log.offset_for_timestamp(start)
    assert found is not None
    assert found[:2] == (3, start + 3000)
    assert world.log.offset_for_timestamp(start + 3001) == (4, start + 4000, 0)
    assert world.log.max_timestamp() == (4, start + 4000, 0)


def test_small_remains_become_one_segment() -> None:
    world = World(COMPACT)
    for value in range(40):
        put(world, (b"a", b"%d" % value + b"x" * 300))
    roll(world)
    before = len(world.log.segments)
    compact(world)
    world.clock.advance(1)
    put(world, (b"a", b""))
    roll(world)
    compact(world)
    assert before > 12
    assert len(world.log.segments) <= 3
    present = {name for name in world.disk.list_directory(world.log.directory) if name.endswith(".log")}
    assert present == {f"{segment.name}.log" for segment in world.log.segments}


def test_readers_of_replaced_segments_keep_what_they_read() -> None:
    """What a Fetch is about to send stays valid, whatever becomes of the file."""
    world = World(COMPACT)
    put(world, (b"a", b"1"))
    put(world, (b"a", b"2"))
    roll(world)
    result = world.log.read(0, 1000, up_to=1 << 60, at_least_one=True)
    before = b"".join(result.buffers)
    compact(world)
    world.flush()
    assert list(table(world)) == [1]
    assert b"".join(result.buffers) == before


def test_damage_is_not_written_anew_with_a_right_checksum() -> None:
    """The log is left as it is, and the others are still compacted."""
    world = World(COMPACT)
    put(world, (b"a", b"1"), (b"a", b"2"))
    roll(world)
    (node,) = [node for path, node in world.disk.files() if path.name == f"{0:020d}.log"]
    node.current[-1] ^= 1
    damaged = bytes(node.current)
    other = world.manager.create_log(b"u" * 16, "u", 0, COMPACT)
    compact(world)
    compact(world)
    assert bytes(node.current) == damaged
    assert world.manager.failed is None
    broken, world.log = world.log, other
    put(world, (b"a", b"1"), (b"a", b"2"))
    roll(world)
    compact(world)
    assert list(table(world)) == [1]
    assert broken.cleaned_offset == 0


def test_a_full_disk_ends_a_compaction_without_a_trace() -> None:
    """It is tried again after a while."""
    world = World(COMPACT)
    put(world, (b"a", b"1" * 300), (b"a", b"2" * 300))
    roll(world)
    world.disk.capacity = world.disk.used() + 10
    compact(world)
    assert not [path for path, _ in world.disk.files() if path.name.endswith(".cleaned")]
    assert world.manager.failed is None
    world.disk.capacity = 1 << 40
    compact(world)
    assert len(table(world)) == 2
    world.clock.advance(20_000)
    compact(world)
    assert list(table(world)) == [1]


def test_a_failing_disk_stops_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(COMPACT)
    put(world, (b"a", b"1"), (b"a", b"2"))
    roll(world)

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "the disk failed")

    monkeypatch.setattr(SimulatedFile, "read", fail)
    compact(world)
    assert "compacting /data/t-0 failed" in str(world.manager.failed)


@pytest.mark.parametrize("steps", range(12))
def test_retention_and_deletion_in_the_middle_of_a_compaction(steps: int) -> None:
    """Whatever the thread has got to: the log is what it should be, and nothing is left over."""
    for gone in ("start", "log"):
        world = World(replace(COMPACT, segment_bytes=200))
        for value in range(8):
            put(world, (b"a", b"%d" % value * 100))
        roll(world)
        world.manager.maintain()
        for _ in range(steps):
            world.machine.workers[2].run_one()
        if gone == "start":
            world.log.delete_records_before(6)
            world.manager.commit()
            world.settle()
            compact(world)
            world.flush()
            world.flush()
            assert set(table(world)) in ({6, 7}, {7})
        else:
            world.manager.delete_log(world.log)
            world.settle()
            assert world.disk.list_directory(world.log.directory) == {}
        world.manager.close()
        assert world.manager.failed is None
        assert check_directory(DIRECTORY, world.disk) == []
        assert not [path for path, _ in world.disk.files() if path.name.endswith(".cleaned")]


def test_what_was_staged_by_a_killed_broker_goes() -> None:
    """And what had been swapped in but not renamed is found under its staged name."""
    world = World(COMPACT)
    put(world, (b"a", b"1"))
    put(world, (b"a", b"2"))
    roll(world)
    world.manager.maintain()
    world.machine.workers[2].run_one()
    world.machine.callbacks.clear()
    assert [path for path, _ in world.disk.files() if path.name.endswith(".cleaned")]
    world.disk.kill()
    world.open()
    assert list(table(world)) == [0, 1]
    world.flush()
    assert not [path for path, _ in world.disk.files() if path.name.endswith(".cleaned")]


def test_a_compacted_log_that_lost_a_file_can_be_repaired() -> None:
    world = World(replace(COMPACT, segment_bytes=200))
    for value in range(8):
        put(world, (b"%d" % value, b"x" * 100))
    roll(world)
    compact(world)
    world.flush()
    world.manager.close()
    world.disk.remove(world.log.directory / f"{0:020d}.log")
    assert repair_directory(DIRECTORY, world.disk)
    world.open()
    assert world.log.log_start_offset > 0
    assert table(world)[7] == (b"7", b"x" * 100)


# ---- planning


def segment(base: int, end: int, *, size: int = 100, newest_ms: int = 1000) -> Segment:
    made = Segment(Path("/d"), base)
    made.end_offset, made.size, made.sealed = end, size, True
    made.first_timestamp = made.max_timestamp = newest_ms
    return made


SEGMENTS = [segment(0, 10), segment(10, 20), segment(20, 30), segment(30, 40)]


def planned(config: LogConfig = COMPACT, **changes: object) -> tuple[int, int] | None:
    """(first dirty offset, how many segments)."""
    options = {"cleaned_offset": 0, "last_stable_offset": 40, "busy": (), "now_ms": 5000} | changes
    plan = plan_compaction(options.pop("segments", SEGMENTS), config, **options)  # type: ignore[arg-type]
    return None if plan is None else (plan.first_dirty_offset, len(plan.segments))


def test_the_active_segment_is_never_compacted() -> None:
    assert planned() == (0, 3)
    assert planned(segments=SEGMENTS[:1]) is None


def test_only_logs_with_the_policy_are_compacted() -> None:
    assert planned(LogConfig()) is None
    assert planned(replace(COMPACT, cleanup_policy="compact,delete")) == (0, 3)


def test_nothing_from_an_open_transaction_on_is_compacted() -> None:
    assert planned(last_stable_offset=29) == (0, 2)


def test_segments_that_a_checkpoint_has_yet_to_complete_wait() -> None:
    assert planned(busy={SEGMENTS[1]}) == (0, 1)


def test_young_records_wait_for_min_compaction_lag() -> None:
    config = replace(COMPACT, min_compaction_lag_ms=500)
    segments = [*SEGMENTS[:2], segment(20, 30, newest_ms=1001), SEGMENTS[3]]
    assert planned(config, segments=segments, now_ms=1500) == (0, 2)


@pytest.mark.parametrize(("cleaned", "found"), [(0, (0, 3)), (10, (10, 3)), (15, (15, 3)), (20, None), (30, None)])
def test_compaction_begins_above_the_dirty_ratio(cleaned: int, found: tuple[int, int] | None) -> None:
    assert planned(replace(COMPACT, min_cleanable_dirty_ratio=0.5), cleaned_offset=cleaned) == found


def test_max_compaction_lag_overrules_the_ratio() -> None:
    config = replace(COMPACT, min_cleanable_dirty_ratio=1.0, max_compaction_lag_ms=4000)
    assert planned(config, now_ms=5000) is None
    assert planned(config, now_ms=5001) == (0, 3)


def test_max_compaction_lag_closes_segments() -> None:
    """Of compacted topics only."""
    assert replace(COMPACT, max_compaction_lag_ms=7).roll_ms == 7
    assert LogConfig(max_compaction_lag_ms=7).roll_ms == LogConfig().segment_ms


def test_groups_are_no_larger_than_a_segment() -> None:
    sizes = [100, 200, 700, 50, 1000, 10]
    made = [segment(index, index + 1, size=size) for index, size in enumerate(sizes)]
    groups = [[member.size for member in group] for group in group_segments(made, 1000)]
    assert groups == [[100, 200, 700], [50], [1000], [10]]
    far = [segment(0, 10), segment(10, 1 << 31), segment(1 << 31, (1 << 31) + 5)]
    assert [len(group) for group in group_segments(far, 1000)] == [1, 2]


# ---- the offset map


def test_a_full_offset_map_says_how_far_it_came() -> None:
    """At least one record at a time, so every compaction gets somewhere."""
    newest = OffsetMap(1)
    newest.add([b"a", b"b"], [3, 5], 6)
    assert (newest.full, newest.end_offset, newest.newest(b"a"), newest.newest(b"b")) == (True, 4, 3, -1)


@pytest.mark.parametrize("size", [8, 40])
def test_an_offset_map_takes_no_more_memory_than_it_may(size: int) -> None:
    """Also in the moment in which its dict grows."""
    newest, number, limit = OffsetMap(4 << 20), 0, 4 << 20
    tracemalloc.start()
    try:
        while not newest.full:
            newest.add([b"%0*d" % (size, number)], [1_000_000 + number], number + 1)
            number += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert number > 15_000
    assert limit / 2 < peak < limit


def test_long_keys_are_told_apart() -> None:
    newest = OffsetMap(1 << 20)
    keys = [b"k" * 31, b"k" * 32, b"k" * 33, b"", None]
    newest.add(keys, [0, 1, 2, 3, 4], 9)
    assert [newest.newest(key) for key in keys if key is not None] == [0, 1, 2, 3]
    assert newest.end_offset == 9


def test_a_log_with_more_keys_than_fit_is_compacted_in_several_runs() -> None:
    world = World(COMPACT, cleaner_buffer_bytes=400)
    for value in range(3):
        put(world, *((b"%d" % key, b"%d" % value) for key in range(5)))
    roll(world)
    for _ in range(20):
        compact(world)
    assert list(table(world).values()) == [(b"%d" % key, b"2") for key in range(5)]


def test_a_broker_that_never_compacts_needs_no_thread() -> None:
    world = World()
    world.write(b"a")
    compact(world)
    assert not world.machine.workers[2].jobs


@pytest.mark.parametrize("sync", ["always", "os"])
@pytest.mark.parametrize("written", [True, False])
def test_compaction_waits_10_s_at_most_for_a_checkpoint(sync: str, written: bool) -> None:
    """0077_compaction of librdkafka: compaction asks for the checkpoint that completes closed segments, whether they are
    in files or still in the WAL; with nothing left to compact it asks for none."""
    world = World(COMPACT, sync=sync)
    for value in range(30):
        put(world, (b"a", b"%d" % value), (b"b" * 100, b""))
        if written and value == 28:
            world.flush()
    for _ in range(3):
        world.clock.advance(5_000)
        compact(world)
    assert len(world.log.segments) > 1
    left = [offset for offset in table(world) if offset < world.log.segments[-1].base_offset]
    assert len(left) <= 4
    checkpoint = read_checkpoint(world.disk, DIRECTORY)
    for _ in range(4):
        world.clock.advance(4_000)
        compact(world)
    assert read_checkpoint(world.disk, DIRECTORY) == checkpoint
    world.manager.close()
    assert check_directory(DIRECTORY, world.disk) == []


def test_a_tail_closes_a_segment_by_its_size_or_its_age() -> None:
    """A segment whose records have no time has no age: checkpoints for its sake would never end."""
    tail, segment = Tail(10), Segment(DIRECTORY, 0)
    segment.size, segment.first_timestamp = 900, 1000
    config = LogConfig(cleanup_policy="compact", segment_bytes=1000, segment_ms=50)
    assert not tail_closes_segment([segment], tail, config)
    tail.add(10, 11, 60, 1050, None, 0)  # type: ignore[arg-type]  # nobody reads it
    assert not tail_closes_segment([segment], tail, config)
    tail.add(11, 12, 10, 1051, None, 60)  # type: ignore[arg-type]
    assert tail_closes_segment([segment], tail, config)
    segment.first_timestamp = -1
    assert not tail_closes_segment([segment], tail, config)
    tail.add(12, 13, 31, 1051, None, 70)  # type: ignore[arg-type]
    assert tail_closes_segment([segment], tail, config)
    segment.size, segment.sealed = 1, True
    assert tail_closes_segment([segment], tail, config)


# ---- transactions


def in_transaction(world: World, producer_id: int, *pairs: tuple[bytes, bytes], sequence: int = 0) -> None:
    records = [Record(0, world.clock.now_ms, key, value, []) for key, value in pairs]
    data = memoryview(
        build_batch(
            records, producer_id=producer_id, producer_epoch=0, base_sequence=sequence, attributes=TRANSACTIONAL
        )
    )
    world.log.append(data, parse_batches(data), now_ms=world.clock.now_ms)


def end(world: World, producer_id: int, *, commit: bool) -> None:
    world.mark(producer_id, commit=commit)
    world.manager.commit()
    world.settle()


def markers(world: World) -> list[int]:
    return [header.base_offset for header in map(BatchHeader, batches(world)) if header.control]


def test_an_aborted_record_is_nobodys_latest() -> None:
    """It goes, and what it would have replaced stays; the index of aborted transactions follows."""
    world = World(COMPACT)
    put(world, (b"a", b"1"))
    in_transaction(world, 7, (b"a", b"2"))
    end(world, 7, commit=False)
    in_transaction(world, 7, (b"b", b"1"), sequence=1)
    end(world, 7, commit=True)
    roll(world)
    compact(world)
    records = {offset: pair for offset, pair in table(world).items() if offset not in markers(world)}
    assert records == {0: (b"a", b"1"), 3: (b"b", b"1")}
    assert markers(world) == [2, 4]
    assert [one.first_offset for one in world.log.aborted_transactions(0, 100)] == [1]
    world.clock.advance(1)
    put(world, (b"c", b"1"))
    roll(world)
    compact(world)
    assert markers(world) == [2, 4]
    assert world.log.aborted_transactions(0, 100) == []
    world.manager.close()
    assert check_directory(DIRECTORY, world.disk) == []
    world.open()
    assert world.log.aborted_transactions(0, 100) == []


def test_a_marker_goes_when_its_transaction_has_gone_and_delete_retention_is_over() -> None:
    world = World(COMPACT)
    in_transaction(world, 7, (b"a", b"1"))
    end(world, 7, commit=True)
    put(world, (b"a", b"2"), producer=(7, 0, 1))
    roll(world)
    # The first compaction removes the record, the second finds the marker without any.
    for advance_ms in (0, DAY_MS):
        compact(world)
        assert 1 in markers(world)
        world.clock.advance(advance_ms)
        put(world, (b"c", b"1"))
        roll(world)
    compact(world)
    assert markers(world) == []


def test_a_transaction_that_is_open_holds_compaction_back() -> None:
    """What the transaction may still replace stays."""
    world = World(COMPACT)
    put(world, (b"a", b"1"))
    put(world, (b"a", b"2"))
    in_transaction(world, 7, (b"a", b"3"))
    put(world, (b"b", b"1"))
    roll(world)
    compact(world)
    assert len(table(world)) == 4
    end(world, 7, commit=True)
    roll(world)
    compact(world)
    assert {offset: pair for offset, pair in table(world).items() if offset not in markers(world)} == {
        2: (b"a", b"3"),
        3: (b"b", b"1"),
    }
