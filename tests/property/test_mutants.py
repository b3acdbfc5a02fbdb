"""The simulation is worth something only if it finds bugs: here they are planted, one by one."""

import hashlib
from collections.abc import Callable

import pytest

from protocol.record_batch import BatchHeader, build_batch, iterate_records
from protocol.record_keys import KeyedRecords
from storage import compaction_filter, flush_plan, offset_map, wal_frame, write_behind
from storage.cleaner import Cleaner
from storage.compacted_segment import CompactedSegment
from storage.compaction_filter import CompactedTransactions, CompactionFilter, ProducerEnds
from storage.file_system import Buffer
from storage.log import PartitionLog
from storage.offset_map import OffsetMap
from storage.producer_state import ProducerState
from storage.segment import SEGMENT_ENDINGS, Segment
from storage.wal import Wal
from tests import simulated_storage
from tests.compaction_scenario import CompactionScenario
from tests.storage_scenario import Scenario, violations

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


def tombstones_dropped_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BatchHeader, "delete_horizon_ms", property(lambda self: 0))


def compacted_segments_not_synced(patch: pytest.MonkeyPatch) -> None:
    original = CompactedSegment.finish

    def finish(self: CompactedSegment, aborted: bytes) -> Segment:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(simulated_storage.SimulatedFile, "sync", lambda self: None)
            return original(self, aborted)

    patch.setattr(CompactedSegment, "finish", finish)


def compacted_segments_renamed_at_once(patch: pytest.MonkeyPatch) -> None:
    """Before a checkpoint names them: a crash leaves it with the sizes of what was there before."""
    original = CompactedSegment.finish

    def finish(self: CompactedSegment, aborted: bytes) -> Segment:
        segment = original(self, aborted)
        for ending in SEGMENT_ENDINGS[:3]:
            self._file_system.rename(segment.path(ending), segment.directory / (segment.name + ending))
        return segment

    patch.setattr(CompactedSegment, "finish", finish)


def sources_removed_at_once(patch: pytest.MonkeyPatch) -> None:
    original = PartitionLog.replace_segments

    def replace(self: PartitionLog, sources: tuple[Segment, ...], segment: Segment, aborted: bytes) -> bool:
        before = len(self._services.file_changes)
        replaced = original(self, sources, segment, aborted)
        for change in self._services.file_changes[before:]:
            if change.renamed is None:
                self._services.wal._files._file_system.remove(change.path)
        return replaced

    patch.setattr(PartitionLog, "replace_segments", replace)


def offsets_renumbered(patch: pytest.MonkeyPatch) -> None:
    original = compaction_filter.keep_records

    def renumbered(header: BatchHeader, records: KeyedRecords, kept: list[int], **options: int) -> bytearray:
        smaller = memoryview(original(header, records, kept, **options))
        return build_batch(list(iterate_records(smaller)), base_offset=header.base_offset)

    patch.setattr(compaction_filter, "keep_records", renumbered)


def the_oldest_record_of_a_key_kept(patch: pytest.MonkeyPatch) -> None:
    original = OffsetMap.add

    def add(self: OffsetMap, keys: list[bytes], offsets: list[int], end_offset: int) -> None:
        new = [index for index, key in enumerate(keys) if key not in self._offsets]
        original(self, [keys[index] for index in new], [offsets[index] for index in new], end_offset)

    patch.setattr(OffsetMap, "add", add)


def digests_all_alike(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(offset_map, "blake2b", lambda key, digest_size: hashlib.blake2b(b"", digest_size=digest_size))


def ends_not_kept(patch: pytest.MonkeyPatch) -> None:
    """A segment's last batch goes like any other, and with it, after a crash, the offsets that it stood for."""
    original = CompactionFilter.remains
    patch.setattr(
        CompactionFilter, "remains", lambda self, header, batch, *, last: original(self, header, batch, last=False)
    )


def last_batches_of_producers_not_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ProducerEnds, "needs", lambda self, header: False)


def aborted_records_taken_for_the_newest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CompactedTransactions, "aborted", lambda self, header: False)


def markers_dropped_before_their_records(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CompactedTransactions, "ended", lambda self, header, batch: True)


def compacted_further_than_it_was(patch: pytest.MonkeyPatch) -> None:
    """The log takes all for compacted though the keys of only a part fitted into memory."""
    original = Cleaner._finish

    def finish(self: Cleaner, run: object) -> None:
        run.newest.end_offset = run.log.segments[-1].base_offset  # type: ignore[attr-defined]
        original(self, run)  # type: ignore[arg-type]

    patch.setattr(Cleaner, "_finish", finish)


COMPACTION_MUTANTS: list[Plant] = [
    tombstones_dropped_at_once,
    compacted_segments_not_synced,
    compacted_segments_renamed_at_once,
    sources_removed_at_once,
    offsets_renumbered,
    the_oldest_record_of_a_key_kept,
    digests_all_alike,
    ends_not_kept,
    last_batches_of_producers_not_kept,
    aborted_records_taken_for_the_newest,
    markers_dropped_before_their_records,
    compacted_further_than_it_was,
]

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
    _find(plant, Scenario)


@pytest.mark.parametrize("plant", COMPACTION_MUTANTS, ids=lambda plant: plant.__name__)
def test_the_simulation_of_compaction_finds(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for what compaction could do wrong."""
    plant(monkeypatch)
    _find(plant, CompactionScenario)


def _find(plant: Plant, kind: type[Scenario]) -> None:
    for start in range(SEEDS.start, SEEDS.stop, 10):
        if violations(range(start, start + 10), kind=kind):
            return
    pytest.fail(f"{plant.__name__} was not found in {len(SEEDS)} seeds")
