"""What /metrics says of the storage."""

from dataclasses import replace

from broker.storage_metrics import StorageCollector
from tests.storage_world import World
from tests.unit.storage.test_compaction import COMPACT, compact, put, roll


def test_compactions_are_counted() -> None:
    """Runs and bytes while they happen, and nothing waits once all is compacted."""
    world = World(replace(COMPACT, min_cleanable_dirty_ratio=0.5))
    collector = StorageCollector(world.manager)
    assert {family.name: family.samples[0].value for family in collector.collect()}["senselog_compactions"] == 0
    put(world, (b"a", b"1"), (b"a", b"2"))
    roll(world)
    compact(world)
    values = {family.name: family.samples[0].value for family in collector.collect()}
    assert values["senselog_compactions"] == 1
    assert values["senselog_compaction_bytes"] > 100
    assert values["senselog_compaction_waiting_partitions"] == 0
    assert values["senselog_compaction_damaged_partitions"] == 0
