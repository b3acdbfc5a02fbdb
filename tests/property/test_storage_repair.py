"""Random damage to what was synced: the broker starts, or refuses and starts after a repair, and fsck is content."""

import random

from storage.check import check_directory
from storage.errors import CorruptStorage
from storage.log_manager import LogManager
from storage.repair import repair_directory
from tests.simulated_storage import Machine
from tests.storage_scenario import DIRECTORY, Scenario


def _damage(scenario: Scenario, chance: random.Random) -> None:
    """One file of the WAL or of a log: gone, shorter, or with a wrong byte (in the WAL: rot in segments is served as it is)."""
    files = [(path, node) for path, node in scenario.disk.files() if path.suffix in (".wal", ".log") and node.current]
    path, node = chance.choice(files)
    kind = chance.choice(["remove", "cut", "flip"] if path.suffix == ".log" else ["remove", "flip", "flip"])
    if kind == "remove":
        scenario.disk.remove(path)
    elif kind == "cut" or path.suffix == ".log":
        node.resize(chance.randrange(len(node.current)))
    else:
        used = len(bytes(node.current).rstrip(b"\0"))
        node.current[chance.randrange(used)] ^= 1 << chance.randrange(8)


def _open(scenario: Scenario) -> LogManager:
    scenario.machine = Machine(scenario.disk, scenario.clock)
    return LogManager.open(
        DIRECTORY,
        scenario.config,
        clock=scenario.clock,
        file_system=scenario.disk,
        post=scenario.machine.post,
        new_worker=scenario.machine.new_worker,
    )


def _live(seed: int) -> bool:
    """Whether a repair was needed."""
    chance = random.Random(seed)
    scenario = Scenario(seed, chance.choice(["always", "os"]))
    scenario.start()
    scenario.work(chance.randint(5, 60))
    if chance.random() < 0.3:
        scenario.stop()
    scenario.disk.kill()
    _damage(scenario, chance)
    repaired = False
    try:
        manager = _open(scenario)
    except CorruptStorage:
        scenario.disk.kill()
        assert repair_directory(DIRECTORY, scenario.disk) is not None
        repaired = True
        manager = _open(scenario)
    for model in scenario.logs:
        log = manager.create_log(model.topic_id, model.name, 0, scenario.log_config)
        end = log.log_end_offset
        assert scenario.send(log, [b"new"], -1, -1) == end
    manager.commit()
    scenario.machine.settle(chance)
    manager.close()
    assert check_directory(DIRECTORY, scenario.disk) == []
    return repaired


def test_whatever_keeps_the_broker_from_starting_can_be_repaired() -> None:
    repairs = sum(_live(seed) for seed in range(150))
    assert repairs > 20
