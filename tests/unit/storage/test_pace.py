"""Producers that are faster than the disk."""

import errno

import pytest

from protocol.errors import ErrorCode, KafkaError
from storage.check import check_directory
from storage.errors import StorageFailure
from storage.wal_files import SPARE_FILES_MAX
from storage.worker import ThreadWorker
from tests.storage_world import DIRECTORY, World

VALUE = b"x" * 5000


def _world(sync: str, **settings: object) -> World:
    return World(
        sync=sync,
        wal_file_bytes=64 << 10,
        wal_bytes_max=512 << 10,
        checkpoint_bytes=128 << 10,
        flush_bytes=16 << 10,
        **settings,
    )


@pytest.mark.parametrize("sync", ["always", "interval", "os"])
def test_producers_wait_for_a_disk_that_is_too_slow(sync: str) -> None:
    """The threads get no turn of their own at all: the WAL stays below its bound, and no append fails."""
    world = _world(sync)
    largest = 0
    for _ in range(300):
        world.append(VALUE)
        world.manager.commit()
        while world.machine.callbacks:
            world.machine.callbacks.pop(0)()
        largest = max(largest, sum(len(node.current) for path, node in world.disk.files() if path.suffix == ".wal"))
    assert largest <= (512 << 10) + SPARE_FILES_MAX * (64 << 10)
    world.settle()
    assert world.values() == [VALUE] * 300
    world.manager.close()
    assert check_directory(DIRECTORY, world.disk) == []


def test_a_full_wal_refuses_and_what_it_accepted_is_still_acknowledged() -> None:
    """One turn that brings more than the whole WAL: the rest is refused, and nothing waits for ever."""
    world = _world("always")
    accepted, acks = 0, []
    with pytest.raises(KafkaError) as refused:
        while True:
            world.manager.when_durable(world.append(VALUE).sequence, acks.append)
            accepted += 1
    assert refused.value.code == ErrorCode.KAFKA_STORAGE_ERROR
    world.manager.commit()
    world.settle()
    assert acks == [None] * accepted
    world.write(VALUE)
    assert world.values() == [VALUE] * (accepted + 1)


def test_a_full_disk_is_not_tried_again_on_each_commit() -> None:
    """Segments have no room: every commit would stop the loop for a checkpoint that cannot succeed."""
    world = World(wal_file_bytes=64 << 10, wal_bytes_max=512 << 10, flush_bytes=1 << 30, checkpoint_bytes=1 << 30)
    write_behind = world.manager._write_behind
    wal = world.manager._wal
    full = OSError(errno.ENOSPC, "no space left")
    attempts: list[object] = []

    def refuse(write: object) -> None:
        attempts.append(write)
        raise full

    write_behind._writer.execute = refuse  # type: ignore[method-assign]
    count = 0
    while len(wal.old_files) <= world.manager._wal_files_paced:
        world.write(VALUE)
        count += 1
    assert write_behind.disk_full is full
    assert len(attempts) == 1
    del write_behind._writer.execute
    world.manager.maintain()
    world.settle()
    assert write_behind.disk_full is None
    assert world.values() == [VALUE] * count


def test_waiting_for_a_thread_cuts_delays_short() -> None:
    """Under `interval` the loop would stand still until the next sync is due."""
    worker = ThreadWorker("test")
    done: list[int] = []
    for number in range(3):
        worker.submit(lambda number=number: done.append(number), 3600.0)
    worker.wait()
    assert done == [0, 1, 2]
    worker.close()


def test_the_loop_does_not_wait_for_a_thread_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.worker.ALIVE_CHECK_S", 0.001)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    worker = ThreadWorker("test")

    def fail() -> None:
        raise ValueError("unexpected")

    worker.submit(fail)
    with pytest.raises(StorageFailure, match="test"):
        worker.wait()
    worker.close()


def test_a_dead_thread_ends_the_broker_and_does_not_freeze_it() -> None:
    world = _world("always")
    told: list[Exception] = []
    world.manager.on_failure = told.append

    def died() -> None:
        raise StorageFailure("the thread has ended")

    world.machine.workers[1].wait = died  # type: ignore[method-assign]
    for _ in range(60):
        if not told:
            world.append(VALUE)
            world.manager.commit()
            while world.machine.callbacks:
                world.machine.callbacks.pop(0)()
    assert told == [world.manager.failed]
