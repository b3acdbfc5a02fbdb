"""Producers that are faster than the disk."""

import pytest

from protocol.errors import ErrorCode, KafkaError
from storage.check import check_directory
from storage.wal_files import SPARE_FILES_MAX
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
