"""Starting over what a crash left behind."""

from storage.check import check_directory
from storage.config import LogConfig
from tests.storage_world import DIRECTORY, TOPIC, World


def test_what_a_power_failure_takes_under_os_is_said_once() -> None:
    """The start succeeds with what was written back; the broker gets one line to log, and only then."""
    world = World(sync="os")
    world.write(b"synced")
    world.manager.close()
    world.open()
    assert world.manager.loss is None
    world.write(b"lost")
    for path, node in world.disk.files():
        if path.suffix == ".wal":
            node.unsynced.clear()
    world.disk.lose_power()
    world.open()
    assert "storage.sync=os" in (world.manager.loss or "")
    assert world.values() == [b"synced"]
    world.write(b"new")
    world.disk.kill()
    world.open()
    assert (world.manager.loss, world.values()) == (None, [b"synced", b"new"])


def test_under_os_retention_removes_files_only_behind_a_synced_checkpoint() -> None:
    """Until then the last synced checkpoint names them, and a power failure goes back to it."""
    world = World(LogConfig(segment_bytes=1000), sync="os", checkpoint_interval_ms=1000)
    for _ in range(3):
        world.write(b"x" * 900)
    world.manager.close()
    world.open()
    world.log.delete_records_before(2)
    world.flush()
    assert len(_segments(world)) == 3
    world.disk.lose_power()
    world.open()
    assert len(world.values()) <= 3
    world.log.delete_records_before(2)
    world.clock.advance(5000)
    world.flush()
    assert len(_segments(world)) == 1
    world.manager.close()
    assert check_directory(DIRECTORY, world.disk) == []


def test_under_os_a_log_whose_directory_is_gone_was_deleted() -> None:
    world = World(sync="os")
    world.write(b"v")
    world.manager.close()
    world.open()
    world.disk.remove_tree(world.log.directory)
    world.disk.sync_directory(DIRECTORY)
    world.disk.lose_power()
    world.open()
    assert (world.log.log_start_offset, world.log.log_end_offset) == (0, 0)


def test_a_stale_wal_file_is_discarded() -> None:
    """Frames behind a torn one were never acknowledged: kept, they would be replayed behind the new frames."""
    world = World(flush_bytes=1 << 30)
    world.write(b"synced")
    for value in (b"torn" * 5000, b"stale" * 5000):
        world.append(value)
        world.manager.commit()
    first, second = sorted((path, node) for path, node in world.disk.files() if path.suffix == ".wal")
    first[1].unsynced.clear()
    second[1].sync()
    world.disk.lose_power()
    world.open()
    assert world.values() == [b"synced"]
    world.write(b"new")
    world.disk.kill()
    world.open()
    assert world.values() == [b"synced", b"new"]


def test_a_stop_that_takes_too_long_leaves_the_rest_to_the_next_start() -> None:
    """2,000 dirty partitions on a busy machine: acknowledged is in the WAL, and that is enough."""
    world = World()
    for partition in range(1, 300):
        world.manager.create_log(TOPIC, "t", partition, world.log_config)
    for log in list(world.manager.logs()):
        world.log = log
        world.append(b"value")
        world.manager.commit()
    world.settle()
    world.clock.step_ms = 400
    world.manager.close()
    assert 0 < len(_segments(world)) < 300
    world.disk.lose_power()
    world.clock.step_ms = 0
    world.open()
    assert {log.high_watermark for log in world.manager.logs()} == {1}
    world.manager.close()
    assert len(_segments(world)) == 300
    assert check_directory(DIRECTORY, world.disk) == []


def _segments(world: World) -> list[str]:
    return [path.name for path, _ in world.disk.files() if path.suffix == ".log"]
