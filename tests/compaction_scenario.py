"""Lives of compacted logs, with crashes at any file-system call, against a model: a log is a dict of the latest values.

A record's key, and whether it is a tombstone, follow from the number that its value begins with, so the model of
`tests.storage_scenario` says what belongs at each offset.
"""

from collections import defaultdict
from dataclasses import replace

from protocol.record_batch import Record, iterate_records, walk_batches
from storage.aborted_transactions import without_aborted
from storage.config import SyncPolicy
from storage.log import PartitionLog
from storage.log_manager import LogManager
from tests.storage_scenario import TRANSACTIONAL_IDS, ModelLog, Scenario, Violation

KEYS = 6
TOMBSTONES = 5
"""One record in so many."""
DELETE_RETENTION_MS = 40_000


def number_of(value: bytes) -> int:
    return int(value.split(b":")[0])


def key_of(value: bytes) -> bytes:
    # Long ones are told apart by a digest.
    return b"%d" % (number_of(value) % KEYS) * (1 if number_of(value) % 2 else 40)


def stored(value: bytes) -> bytes | None:
    return None if number_of(value) % TOMBSTONES == 0 else value


class CompactionScenario(Scenario):
    """One seed's life."""

    def __init__(self, seed: int, sync: SyncPolicy = "always") -> None:
        super().__init__(seed, sync)
        self.log_config = replace(
            self.log_config,
            segment_bytes=self.chance.choice([4200, 9000]),
            cleanup_policy=self.chance.choice(["compact", "compact,delete"]),
            min_cleanable_dirty_ratio=self.chance.choice([0.0, 0.3]),
            delete_retention_ms=DELETE_RETENTION_MS,
            retention_ms=self.chance.choice([-1, 200_000]),
        )
        self.config = replace(self.config, cleaner_buffer_bytes=self.chance.choice([500, 1 << 20]))
        self.times: dict[int, list[int]] = {}
        """When each record was sent, and sent again, by its number."""
        self.senders: dict[int, int] = {}
        """Producer id by record number."""
        self.markers: dict[str, dict[int, tuple[int, bool]]] = defaultdict(dict)
        """Of each log, by offset: producer id, and whether it committed."""
        self.compacted = 0
        """Batches found that were fewer records than they had been, or none."""

    # ---- life

    def record(self, value: bytes, time_ms: int) -> Record:
        self.times.setdefault(number_of(value), []).append(time_ms)
        return Record(0, time_ms, key_of(value), stored(value), [])

    def send(self, log: PartitionLog, values: list[bytes], producer_id: int, sequence: int) -> int:
        self.senders |= dict.fromkeys(map(number_of, values), producer_id)
        return super().send(log, values, producer_id, sequence)

    def end_transaction(self, manager: LogManager, log: PartitionLog, model: ModelLog, producer_id: int) -> None:
        aborted = len(log.aborted)
        super().end_transaction(manager, log, model, producer_id)
        self.markers[model.name][len(model.values) - 1] = producer_id, len(log.aborted) == aborted

    def operate(self) -> None:
        super().operate()
        if self.chance.random() < 0.3:
            manager = self.manager
            assert manager is not None
            self.clock.advance(self.chance.randint(0, 15_000))
            manager.maintain()
            self.follow_starts(manager)

    def follow_starts(self, manager: LogManager) -> None:
        """Retention, not the client, may have moved them."""
        for model in self.logs:
            log = manager.get(model.topic_id, 0)
            assert log is not None
            model.start = model.start_max = max(model.start, log.log_start_offset)

    def stop(self) -> None:
        """Before the end: everything that can be compacted is."""
        manager = self.manager
        assert manager is not None
        if self.chance.random() < 0.5:
            manager.checkpoint()
            self.machine.settle(self.chance)
            for _ in range(2):
                manager.maintain()
                self.machine.settle(self.chance)
            self.follow_starts(manager)
            for model in self.logs:
                log = manager.get(model.topic_id, 0)
                assert log is not None
                self.check_compacted(log, model)
        super().stop()

    # ---- comparing

    def compare_recovered(self, log: PartitionLog, model: ModelLog) -> None:
        if "delete" in self.log_config.cleanup_policy:
            model.start_max = max(model.start_max, log.log_start_offset)
        markers = self.markers[model.name]
        self.markers[model.name] = {offset: ended for offset, ended in markers.items() if offset < log.log_end_offset}
        super().compare_recovered(log, model)

    def compare(self, log: PartitionLog, model: ModelLog) -> None:
        """From a random offset on: every record is the one that was sent, and what must be there is there."""
        start = self.chance.randint(log.log_start_offset, log.high_watermark)
        stable = log.last_stable_offset
        seen, committed = self.read(log, model, start)
        aborted = self.aborted(model, stable)
        if wrong := committed & aborted:
            raise Violation(f"{model.name}: aborted records {wrong} are read as committed")
        for offset in self.needed(model, stable, aborted) | set(range(stable, log.high_watermark)):
            if offset >= start and offset not in seen:
                raise Violation(f"{model.name}: offset {offset} is gone: {model.values[offset][:20]!r}")
            if start <= offset < stable and offset not in committed:
                raise Violation(f"{model.name}: offset {offset} is not read as committed")

    def read(self, log: PartitionLog, model: ModelLog, start: int) -> tuple[set[int], set[int]]:
        """Offsets of all records from `start` on, in steps, and of those that a reader of committed records sees."""
        offset, seen, committed = start, list[int](), set[int]()
        stable = log.last_stable_offset
        while offset < log.high_watermark:
            limit = self.chance.choice([1, 200, 3000, 100_000])
            up_to = stable if offset < stable else 1 << 60
            result = log.read(offset, limit, up_to=up_to, at_least_one=True)
            if result.next_offset <= offset:
                raise Violation(f"{model.name}: a read at {offset} of {limit} bytes does not go on")
            data = memoryview(b"".join(result.buffers))
            for batch in walk_batches(data):
                self.compacted += batch.record_count != batch.last_offset_delta + 1
                for record in iterate_records(data[batch.position : batch.position + batch.size]):
                    if record.offset >= offset:
                        self.compare_record(model, record)
                        seen.append(record.offset)
            if offset < stable:
                aborted = log.aborted_transactions(offset, result.next_offset)
                for piece in without_aborted(data, aborted):
                    committed |= {record.offset for record in iterate_records(piece) if record.offset >= offset}
            offset = result.next_offset
        if seen != sorted(set(seen)):
            raise Violation(f"{model.name}: offsets from {start} do not ascend: {seen}")
        return set(seen), committed - self.markers[model.name].keys()

    def compare_record(self, model: ModelLog, record: Record) -> None:
        value = model.values[record.offset]
        if record.offset in self.markers[model.name]:
            if record.value != value:
                raise Violation(f"{model.name}: offset {record.offset} is no marker")
            return
        right = (record.key, record.value) == (key_of(value), stored(value))
        if not right or record.timestamp_ms not in self.times[number_of(value)]:
            raise Violation(
                f"{model.name}: offset {record.offset} has {record.key!r} at {record.timestamp_ms}: {value!r}"
            )

    def aborted(self, model: ModelLog, end: int) -> set[int]:
        """Offsets of the records of aborted transactions."""
        found, written = set[int](), defaultdict[int, list[int]](list)
        for offset, value in enumerate(model.values):
            if offset in self.markers[model.name]:
                producer_id, commit = self.markers[model.name][offset]
                found |= set() if commit else set(written[producer_id])
                written[producer_id] = []
            elif (producer_id := self.senders[number_of(value)]) in TRANSACTIONAL_IDS and offset < end:
                written[producer_id].append(offset)
        return found

    def needed(self, model: ModelLog, end: int, aborted: set[int]) -> set[int]:
        """Offsets of the newest records of all keys; tombstones only while a reader may still be on its way to them."""
        left_out = aborted | self.markers[model.name].keys()
        newest = {key_of(value): offset for offset, value in enumerate(model.values[:end]) if offset not in left_out}
        young_ms = self.clock.now_ms - DELETE_RETENTION_MS
        return {
            offset
            for offset in newest.values()
            if stored(model.values[offset]) is not None or self.times[number_of(model.values[offset])][0] > young_ms
        }

    def check_compacted(self, log: PartitionLog, model: ModelLog) -> None:
        """Below the point up to which the log says it is compacted no key is there twice, and producers' ends are there."""
        seen, _ = self.read(log, model, log.log_start_offset)
        clean = {offset for offset in seen if offset < log.cleaned_offset} - self.markers[model.name].keys()
        keys = [key_of(model.values[offset]) for offset in sorted(clean)]
        if len(keys) != len(set(keys)):
            raise Violation(f"{model.name}: compacted up to {log.cleaned_offset}, but {keys}")
        if left := clean & self.aborted(model, log.cleaned_offset):
            raise Violation(f"{model.name}: compacted up to {log.cleaned_offset}, but aborted {left} are there")
        if self.config.sync == "os":
            return  # a power failure may have taken the batch that was the last back
        ends = self.batch_ends(log)
        for producer_id, offset in log.producers.last_offsets(log.high_watermark).items():
            if offset >= log.log_start_offset and offset not in ends:
                raise Violation(f"{model.name}: the last batch of producer {producer_id}, up to {offset}, is gone")

    def batch_ends(self, log: PartitionLog) -> set[int]:
        offset, ends = log.log_start_offset, set[int]()
        while offset < log.high_watermark:
            result = log.read(offset, 100_000, up_to=1 << 60, at_least_one=True)
            ends |= {batch.last_offset for batch in walk_batches(memoryview(b"".join(result.buffers)))}
            offset = result.next_offset
        return ends
