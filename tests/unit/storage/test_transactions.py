"""Transactions in one log: the last stable offset, markers, the index of aborted transactions, and all of it after a restart."""

import struct

import pytest

from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import parse_batches
from storage.aborted_transactions import AbortedTransaction, AbortedTransactions, without_aborted
from storage.check import check_directory
from storage.config import LogConfig
from tests.storage_world import DIRECTORY, World

LOG = DIRECTORY / "t-0"


def aborted_of(world: World, start: int = 0, end: int = 1 << 40) -> list[tuple[int, int]]:
    return [(entry.producer_id, entry.first_offset) for entry in world.log.aborted_transactions(start, end)]


def settle(world: World) -> None:
    world.manager.commit()
    world.settle()


def reopen(world: World) -> None:
    world.manager.close()
    world.open()


def world_with_transactions(**settings: object) -> World:
    """Offsets: 0-1 of 7, 2 plain, 3 of 8, 4 commits 7, 5 aborts 8, 6 of 7, 7 aborts 7, 8 of 9, which stays open."""
    world = World(**settings)  # type: ignore[arg-type]
    world.append(b"a", b"b", producer=(7, 0, 0), transactional=True)
    world.append(b"plain")
    world.append(b"c", producer=(8, 0, 0), transactional=True)
    world.mark(7, commit=True)
    world.mark(8, commit=False)
    world.append(b"d", producer=(7, 0, 2), transactional=True)
    world.mark(7, commit=False)
    world.append(b"e", producer=(9, 0, 0), transactional=True)
    settle(world)
    return world


def test_readers_of_committed_records_stop_at_the_oldest_open_transaction() -> None:
    """Whichever of two transactions ends first, the last stable offset waits for the older one, and never falls."""
    world = World()
    for producer_id in (7, 8):
        world.append(b"x", producer=(producer_id, 0, 0), transactional=True)
    settle(world)
    assert (world.log.last_stable_offset, world.log.high_watermark) == (0, 2)
    world.mark(8, commit=True)
    settle(world)
    assert (world.log.last_stable_offset, world.log.high_watermark) == (0, 3)
    world.append(b"y", producer=(8, 0, 1), transactional=True)
    world.mark(7, commit=False)
    settle(world)
    assert (world.log.last_stable_offset, world.log.high_watermark) == (3, 5)
    world.mark(8, commit=True)
    settle(world)
    assert world.log.last_stable_offset == world.log.high_watermark == 6


def test_a_marker_that_a_crash_could_take_back_ends_nothing() -> None:
    """While the marker is not durable, what its transaction wrote must not be read as committed."""
    world = World()
    world.append(b"x", producer=(7, 0, 0), transactional=True)
    settle(world)
    world.mark(7, commit=True)
    assert world.log.last_stable_offset == 0
    settle(world)
    assert world.log.last_stable_offset == 2


def test_a_plain_batch_of_a_producer_with_an_open_transaction_is_refused() -> None:
    """INVALID_TXN_STATE, unless it repeats a batch; afterwards it is welcome."""
    world = World()
    world.append(b"x", producer=(7, 0, 0), transactional=True)
    with pytest.raises(KafkaError) as caught:
        world.append(b"y", producer=(7, 0, 1))
    assert caught.value.code is ErrorCode.INVALID_TXN_STATE
    assert world.append(b"x", producer=(7, 0, 0)).base_offset == 0
    world.mark(7, commit=True)
    assert world.append(b"y", producer=(7, 0, 1)).base_offset == 2


def test_outdated_markers_are_refused() -> None:
    """An older producer epoch, or an older coordinator's: then nothing has changed."""
    world = World()
    world.append(b"x", producer=(7, 3, 0), transactional=True)
    world.mark(7, commit=False, epoch=4, coordinator_epoch=2)
    for epoch, coordinator_epoch, code in ((3, 2, 47), (4, 1, 52)):
        with pytest.raises(KafkaError) as caught:
            world.mark(7, commit=True, epoch=epoch, coordinator_epoch=coordinator_epoch)
        assert caught.value.code == code
    assert world.log.log_end_offset == 2


def test_a_marker_of_the_next_epoch_fences_the_producer() -> None:
    """Batches of the old epoch are refused, those of the new one begin with sequence 0 (KIP-890)."""
    world = World()
    world.append(b"x", producer=(7, 0, 0), transactional=True)
    world.mark(7, commit=True, epoch=1)
    for producer, code in (((7, 0, 1), 47), ((7, 1, 1), 45)):
        with pytest.raises(KafkaError) as caught:
            world.append(b"y", producer=producer, transactional=True)
        assert caught.value.code == code
    assert world.append(b"y", producer=(7, 1, 0), transactional=True).base_offset == 2


@pytest.mark.parametrize("flush", [False, True])
def test_everything_is_there_after_a_restart(flush: bool) -> None:
    """Open transactions, aborted ones and coordinator epochs: from the checkpoint, or from the WAL."""
    world = world_with_transactions()
    if flush:
        world.flush()
    before = world.log.producers.snapshot()
    assert aborted_of(world) == [(8, 3), (7, 6)]
    world.disk.kill()
    world.open()
    assert aborted_of(world) == [(8, 3), (7, 6)]
    assert aborted_of(world, 4) == [(8, 3), (7, 6)]
    assert aborted_of(world, 6) == [(7, 6)]
    assert aborted_of(world, 0, 4) == [(8, 3)]
    assert world.log.last_stable_offset == 8
    assert [entry[0:2] + entry[4:] for entry in world.log.producers.snapshot()] == [
        entry[0:2] + entry[4:] for entry in before
    ]


def test_the_index_has_the_format_of_kafka() -> None:
    """`.txnindex` of a segment: version, producer id, first and last offset, last stable offset (TransactionIndex)."""
    world = world_with_transactions()
    world.flush()
    file = world.disk.open(LOG / f"{0:020d}.txnindex")
    data = file.read(0, file.size())
    assert list(struct.iter_unpack(">hqqqq", data)) == [(0, 8, 3, 5, 6), (0, 7, 6, 7, 8)]


def test_each_segment_has_its_own_aborted_transactions() -> None:
    """They lie in the segment of their marker, and go with it."""
    world = World(LogConfig(segment_bytes=500))
    for number in range(8):
        world.append(b"x" * 300, producer=(7, 0, number), transactional=True)
        world.mark(7, commit=False)
    settle(world)
    world.flush()
    counts = [segment.aborted_count for segment in world.log.segments]
    assert len(counts) > 2
    assert sum(counts) == 8
    assert aborted_of(world) == [(7, 2 * number) for number in range(8)]
    reopen(world)
    assert aborted_of(world) == [(7, 2 * number) for number in range(8)]
    world.log.delete_records_before(world.log.segments[2].base_offset)
    start = world.log.log_start_offset
    world.flush()
    assert aborted_of(world, start) == [(7, 2 * number) for number in range(8) if 2 * number + 1 >= start]
    reopen(world)
    assert aborted_of(world, start) == [(7, 2 * number) for number in range(8) if 2 * number + 1 >= start]
    world.manager.close()
    assert check_directory(DIRECTORY, world.disk) == []


@pytest.mark.parametrize("damage", ["missing", "short", "garbage"])
def test_a_damaged_index_is_noticed_and_rebuilt(damage: str) -> None:
    """It is derived: fsck names it, the next start reads the log instead."""
    world = world_with_transactions()
    world.flush()
    world.manager.close()
    path = LOG / f"{0:020d}.txnindex"
    if damage == "missing":
        world.disk.remove(path)
    else:
        file = world.disk.open(path)
        if damage == "short":
            file.truncate(40)
        else:
            file.write([b"\1" * 20], 5)
        file.close()
    assert [problem.path for problem in check_directory(DIRECTORY, world.disk)] == [path]
    world.open()
    assert aborted_of(world) == [(8, 3), (7, 6)]
    assert world.log.last_stable_offset == 8
    world.flush()
    world.manager.close()
    assert check_directory(DIRECTORY, world.disk) == []


def test_deleting_records_of_an_open_transaction_leaves_the_rest_readable() -> None:
    """The last stable offset is never below the log's start; the transaction still ends with its marker."""
    world = world_with_transactions()
    world.append(b"later")
    settle(world)
    world.log.delete_records_before(9)
    assert world.log.last_stable_offset == 9
    world.mark(9, commit=False)
    settle(world)
    assert world.log.last_stable_offset == world.log.high_watermark == 11


def test_producers_with_an_open_transaction_do_not_expire() -> None:
    """However long they have been silent: their transaction would be taken for committed."""
    world = world_with_transactions(producer_id_expiration_ms=1000)
    world.clock.advance(60_000)
    world.flush()
    assert list(world.log.producers.producers) == [9]
    assert world.log.last_stable_offset == 8


def test_what_is_left_without_aborted_transactions() -> None:
    """All committed and plain batches, in order; those of a producer's aborted transaction alone are missing."""
    world = world_with_transactions()
    stable = world.log.last_stable_offset
    result = world.log.read(0, 1 << 20, up_to=stable, at_least_one=True)
    data = memoryview(b"".join(result.buffers))
    kept = without_aborted(data, world.log.aborted_transactions(0, stable))
    assert [parse_batches(batch)[0].base_offset for batch in kept] == [0, 2, 4, 5, 7]


def test_a_transaction_is_listed_for_every_read_that_overlaps_it() -> None:
    """Against a plain walk over all entries, for many transactions of several producers."""
    listed = AbortedTransactions()
    entries = []
    for number in range(100):
        first, last = number * 3, number * 3 + 40
        entries.append(AbortedTransaction(number % 5, first, last, first + 3 if number < 99 else last + 1))
        listed.add(entries[-1])
    for start in range(0, 350, 7):
        for end in range(start + 1, 350, 11):
            expected = [e for e in entries if e.last_offset >= start and e.first_offset < end]
            assert listed.overlapping(start, end)[: len(expected)] == expected
