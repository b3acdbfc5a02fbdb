"""The simulation is worth something only if it finds bugs: here they are planted, one by one."""

from collections.abc import Callable

import pytest

from storage import flush_plan, wal_frame, write_behind
from storage.file_system import Buffer
from storage.log import PartitionLog
from storage.producer_state import ProducerState
from storage.wal import Wal
from tests import simulated_storage
from tests.storage_scenario import violations

Plant = Callable[[pytest.MonkeyPatch], None]
SEEDS = range(400)


def no_sync_of_the_wal(patch: pytest.MonkeyPatch) -> None:
    def sync_nothing(self: Wal) -> None:
        self.synced_sequence = self.written_sequence
        self._syncing = False
        self._complete(self._publish_synced)

    patch.setattr(Wal, "_sync_loop", sync_nothing)


def ack_before_sync(patch: pytest.MonkeyPatch) -> None:
    original = Wal.commit

    def commit(self: Wal) -> None:
        original(self)
        self._publish(self.written_sequence)

    patch.setattr(Wal, "commit", commit)


def no_sync_of_directories(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(simulated_storage.SimulatedFileSystem, "sync_directory", lambda self, path: None)


def no_payload_checksums(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wal_frame, "payload_is_whole", lambda view, entry: True)


def reuse_the_recovered_tail(patch: pytest.MonkeyPatch) -> None:
    """New frames are appended to the file that recovery stopped in."""
    original = Wal.__init__

    def reuse(self: Wal, *arguments: object, **options: object) -> None:
        original(self, *arguments, **options)  # type: ignore[arg-type]
        if self.old_files:
            self.active = self.old_files.pop()

    patch.setattr(Wal, "__init__", reuse)


def checkpoint_without_sync_of_segments(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(write_behind.SegmentWriter, "sync", lambda self, directory: None)


def recycle_too_early(patch: pytest.MonkeyPatch) -> None:
    original = Wal.recyclable
    patch.setattr(Wal, "recyclable", lambda self, replay_from: original(self, replay_from + 3))


def producers_ahead_of_the_log(patch: pytest.MonkeyPatch) -> None:
    """The checkpoint's producer state shares its lists with the living one (a bug that this simulation found)."""
    patch.setattr(
        ProducerState,
        "snapshot",
        lambda self: [[p.producer_id, p.epoch, p.last_active_ms, p.batches] for p in self.producers.values()],
    )


def producers_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ProducerState, "restore", lambda self, snapshot: None)


def open_transactions_forgotten(patch: pytest.MonkeyPatch) -> None:
    """The checkpoint does not say which transactions are open."""
    original = ProducerState.snapshot
    patch.setattr(ProducerState, "snapshot", lambda self: [entry[:4] for entry in original(self)])


def aborted_transactions_not_saved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(flush_plan, "_add_transaction_index", lambda write, log: None)


def aborted_transactions_not_replayed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        PartitionLog, "take_up", lambda self, batch, data, now_ms: self.producers.take_up(batch, data, now_ms)
    )


def replay_twice(patch: pytest.MonkeyPatch) -> None:
    """Replay is not idempotent by offset."""
    original = PartitionLog.replay

    def replay(self: PartitionLog, batch: object, file: object, position: int, now_ms: int) -> bool:
        self.log_end_offset = batch.base_offset  # type: ignore[attr-defined]
        return original(self, batch, file, position, now_ms)  # type: ignore[arg-type]

    patch.setattr(PartitionLog, "replay", replay)


def short_write_ignored(patch: pytest.MonkeyPatch) -> None:
    """Only what is left of a torn frame is missing; the acks go out."""
    original = simulated_storage.SimulatedFile.write

    def write(self: simulated_storage.SimulatedFile, buffers: list[Buffer], position: int) -> int:
        size = sum(map(len, buffers))
        if len(buffers) > 2 and self._disk.chance.random() < 0.02:
            original(self, [b"".join(buffers)[: size // 2]], position)
            return size
        return original(self, buffers, position)

    patch.setattr(simulated_storage.SimulatedFile, "write", write)


MUTANTS: list[Plant] = [
    no_sync_of_the_wal,
    ack_before_sync,
    no_sync_of_directories,
    no_payload_checksums,
    reuse_the_recovered_tail,
    checkpoint_without_sync_of_segments,
    recycle_too_early,
    producers_ahead_of_the_log,
    producers_forgotten,
    open_transactions_forgotten,
    aborted_transactions_not_saved,
    aborted_transactions_not_replayed,
    replay_twice,
    short_write_ignored,
]


@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_the_simulation_finds(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each planted bug makes at least one seed fail."""
    plant(monkeypatch)
    for start in range(SEEDS.start, SEEDS.stop, 10):
        if violations(range(start, start + 10)):
            return
    pytest.fail(f"{plant.__name__} was not found in {len(SEEDS)} seeds")
