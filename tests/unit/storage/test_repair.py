"""`senselog check --repair`: a damaged directory starts again, and nothing of it is gone."""

import pytest

from storage.check import check_directory
from storage.config import LogConfig
from storage.errors import CorruptStorage
from storage.repair import repair_directory
from tests.simulated_storage import Node
from tests.storage_world import DIRECTORY, World


def _damaged(world: World) -> list[Node]:
    return [node for path, node in world.disk.files() if path.suffix == ".damaged"]


def _refuses(world: World) -> None:
    world.disk.kill()
    with pytest.raises(CorruptStorage, match=r"senselog check /data --repair"):
        world.open()


def _repair(world: World) -> None:
    """And a second time there is nothing to do."""
    assert repair_directory(DIRECTORY, world.disk)
    world.disk.lose_power()
    world.open()
    world.write(b"new")
    world.manager.close()
    assert check_directory(DIRECTORY, world.disk) == []
    assert repair_directory(DIRECTORY, world.disk) is None
    world.open()


def test_a_healthy_directory_is_left_alone() -> None:
    world = World()
    world.write(b"v")
    world.disk.kill()
    before = {path: bytes(node.current) for path, node in world.disk.files() if path.name != ".lock"}
    assert repair_directory(DIRECTORY, world.disk) is None
    assert {path: bytes(node.current) for path, node in world.disk.files() if path.name != ".lock"} == before


def test_a_bad_frame_ends_the_wal() -> None:
    world = World()
    for number in range(5):
        world.write(b"value %d" % number)
    node = next(node for path, node in world.disk.files() if path.suffix == ".wal" and b"value 2" in node.current)
    node.current[node.current.index(b"value 2")] ^= 1
    _refuses(world)
    _repair(world)
    assert world.values() == [b"value 0", b"value 1", b"new"]
    assert any(b"value 4" in node.current for node in _damaged(world))


def test_a_wal_file_with_a_damaged_header_is_set_aside() -> None:
    world = World()
    world.write(b"kept")
    world.flush()
    world.write(b"lost")
    for path, node in world.disk.files():
        if path.suffix == ".wal" and b"lost" in node.current:
            node.current[9] ^= 1
    _refuses(world)
    _repair(world)
    assert world.values() == [b"kept", b"new"]
    assert any(b"lost" in node.current for node in _damaged(world))


def test_a_missing_wal_file_is_gone_without() -> None:
    world = World()
    world.write(b"kept")
    world.flush()
    for path, _ in world.disk.files():
        if path.suffix == ".wal":
            world.disk.remove(path)
    _refuses(world)
    world.disk.sync_directory(DIRECTORY / "wal")
    assert repair_directory(DIRECTORY, world.disk) == []
    world.open()
    assert world.values() == [b"kept"]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_log_goes_on_without_a_lost_segment(lost: int) -> None:
    """Behind an older one, before the newest; what the WAL holds of a log with a hole does not count."""
    world = World(LogConfig(segment_bytes=1000))
    for number in range(3):
        world.append(b"%d" % number * 900, producer=(7, 0, number))
        world.manager.commit()
        world.settle()
    world.flush()
    world.write(b"tail")
    path = world.log.segments[lost].path(".log")
    world.disk.remove(path)
    world.disk.sync_directory(path.parent)
    _refuses(world)
    _repair_segments(world)
    world.open()
    kept = [b"%d" % number * 900 for number in range(3)]
    expected = [*kept[:2], b"new"] if lost == 2 else [*kept[lost + 1 :], b"tail", b"new"]
    assert world.values() == expected


def test_a_cut_segment_keeps_its_whole_batches() -> None:
    world = World()
    for number in range(3):
        world.append(b"%d" % number * 100, producer=(7, 0, number))
    world.manager.commit()
    world.settle()
    world.manager.close()
    path, node = next((path, node) for path, node in world.disk.files() if path.suffix == ".log")
    node.resize(len(node.current) - 1)
    node.sync()
    _refuses(world)
    _repair(world)
    assert world.values() == [b"0" * 100, b"1" * 100, b"new"]
    assert len(_damaged(world)) == 1
    assert path.name in str(next(path for path, _ in world.disk.files() if path.suffix == ".damaged"))


def test_a_lost_checkpoint_cannot_be_made_up() -> None:
    world = World()
    world.manager.close()
    next(node for path, node in world.disk.files() if path.name == "checkpoint").current[3] ^= 1
    with pytest.raises(CorruptStorage):
        repair_directory(DIRECTORY, world.disk)


def _repair_segments(world: World) -> None:
    """A missing newest segment leaves nothing to set aside."""
    assert repair_directory(DIRECTORY, world.disk) is not None
    world.open()
    world.write(b"new")
    world.manager.close()
    assert check_directory(DIRECTORY, world.disk) == []
