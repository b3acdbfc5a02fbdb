"""Random lives of a data directory, with crashes at any file-system call, against a model: a log is a list of batches."""

import random
from dataclasses import dataclass, field
from pathlib import Path

from protocol.errors import KafkaError
from protocol.record_batch import (
    TRANSACTIONAL,
    Record,
    build_batch,
    build_marker,
    iterate_records,
    parse_batches,
    read_marker,
    walk_batches,
)
from storage.aborted_transactions import AbortedTransaction
from storage.check import check_directory
from storage.config import LogConfig, StorageConfig, SyncPolicy
from storage.log import PartitionLog
from storage.log_manager import LogManager
from tests.simulated_storage import Machine, ManualClock, SimulatedCrash, SimulatedFileSystem

DIRECTORY = Path("/data")
CLEAN_ENDING = "clean"
LOST = 1 << 60
TRANSACTIONAL_IDS = (11, 12)
"""Ids of transactional producers."""


class Violation(AssertionError):
    """The storage broke a promise."""


@dataclass
class ModelLog:
    """What the clients of one partition know."""

    topic_id: bytes
    name: str
    values: list[bytes] = field(default_factory=list)
    """Value of the record at each offset, as far as appends were accepted."""
    acked_end: int = 0
    """Offsets below have been acknowledged."""
    start: int = 0
    start_max: int = 0
    sequences: dict[int, int] = field(default_factory=dict)
    """Next sequence of each producer."""
    batches: dict[int, list[tuple[int, list[bytes], int]]] = field(default_factory=dict)
    """Sequence, values and offset of each producer's batches."""
    last_stable_offset: int = 0


class Scenario:
    """One seed's life."""

    def __init__(self, seed: int, sync: SyncPolicy = "always") -> None:
        self.chance = random.Random(seed)
        self.disk = SimulatedFileSystem(seed)
        self.clock = ManualClock()
        self.config = StorageConfig(
            sync=sync,
            wal_file_bytes=self.chance.choice([48, 64, 128]) << 10,
            group_bytes=4 << 10,
            flush_bytes=self.chance.choice([512, 4096, 20_000]),
            checkpoint_bytes=self.chance.choice([2048, 10_000, 40_000]),
            min_free_bytes=0,
            open_files_max=2,
        )
        self.log_config = LogConfig(segment_bytes=self.chance.choice([4200, 9000, 50_000]), index_interval_bytes=300)
        self.logs = [ModelLog(bytes([index]) * 16, f"topic{index}") for index in range(3)]
        self.counter = 0
        self.manager: LogManager | None = None
        self.machine = Machine(self.disk, self.clock)

    # ---- life

    def live(self, *, lives: int = 3, operations: int = 40) -> None:
        """Start, work, crash or stop; several times. Raises Violation."""
        for life in range(lives):
            kinds = ["power", "power", "kill"]
            crash_kind = self.chance.choice([*kinds, CLEAN_ENDING])
            if crash_kind != CLEAN_ENDING:
                self.disk.crash_at = self.disk.steps + self.chance.randint(1, 60 if life else 120)
            try:
                self.start()
                self.work(operations)
                self.stop()
            except SimulatedCrash:
                self.crash(crash_kind)
        self.disk.crash_at = -1
        self.start()
        self.work(5)
        self.stop()
        self.fsck()

    def start(self) -> None:
        """Open, then compare with what the clients know."""
        self.machine = Machine(self.disk, self.clock)
        self.manager = LogManager.open(
            DIRECTORY,
            self.config,
            clock=self.clock,
            file_system=self.disk,
            post=self.machine.post,
            new_worker=self.machine.new_worker,
        )
        for model in self.logs:
            log = self.manager.create_log(model.topic_id, model.name, 0, self.log_config)
            self.compare_recovered(log, model)
        self.manager.commit()

    def stop(self) -> None:
        assert self.manager is not None
        self.clock.step_ms = self.chance.choice([0, 300])
        self.manager.close()
        self.clock.step_ms = 0
        for model in self.logs:
            model.acked_end = max(model.acked_end, len(model.values))
        self.manager = None

    def crash(self, kind: str) -> None:
        self.manager = None
        if kind == "power":
            self.disk.lose_power()
            if self.config.sync != "always":
                for model in self.logs:
                    model.acked_end = 0
        else:
            self.disk.kill()
        self.disk.crash_at = -1

    def fsck(self) -> None:
        if problems := check_directory(DIRECTORY, self.disk):
            raise Violation(f"fsck: {[str(problem) for problem in problems]}")

    def work(self, operations: int) -> None:
        for _ in range(operations):
            self.operate()
        self.machine.settle(self.chance)

    def operate(self) -> None:
        manager = self.manager
        assert manager is not None
        action = self.chance.random()
        model = self.chance.choice(self.logs)
        log = manager.get(model.topic_id, 0)
        assert log is not None
        if action < 0.45:
            for _ in range(self.chance.randint(1, 4)):
                other = self.chance.choice(self.logs)
                self.append(manager, other)
            if self.chance.random() < 0.9:
                manager.commit()
        elif action < 0.8:
            for _ in range(self.chance.randint(1, 6)):
                self.machine.step(self.chance)
        elif action < 0.88:
            self.compare(log, model)
        elif action < 0.92:
            manager.checkpoint()
        elif action < 0.95:
            self.clock.advance(self.chance.randint(0, 20_000))
            manager.maintain()
        elif log.high_watermark > model.start:
            offset = self.chance.randint(model.start, log.high_watermark)
            model.start_max = max(model.start_max, offset)
            log.delete_records_before(offset)
            manager.commit()
            model.start = offset

    def append(self, manager: LogManager, model: ModelLog) -> None:
        log = manager.get(model.topic_id, 0)
        assert log is not None
        producer_id = self.chance.choice([-1, 1, 2, *TRANSACTIONAL_IDS])
        if producer_id in log.producers.open_transactions and self.chance.random() < 0.5:
            self.end_transaction(manager, log, model, producer_id)
            return
        if model.batches.get(producer_id) and self.chance.random() < 0.25:
            self.retry(manager, log, model, producer_id)
            return
        values = []
        for _ in range(self.chance.randint(1, 4)):
            self.counter += 1
            values.append(b"%d:" % self.counter + b"x" * self.chance.choice([5, 50, 900]))
        sequence = model.sequences.get(producer_id, 0)
        result = self.send(log, values, producer_id, sequence)
        if result != len(model.values):
            raise Violation(f"{model.name}: appended at offset {result}, not {len(model.values)}")
        model.values += values
        if producer_id > 0:
            model.sequences[producer_id] = sequence + len(values)
            model.batches.setdefault(producer_id, [])
            model.batches[producer_id] = [b for b in model.batches[producer_id] if b[2] < result]
            model.batches[producer_id].append((sequence, values, result))
        self.wait(manager, log, model)

    def end_transaction(self, manager: LogManager, log: PartitionLog, model: ModelLog, producer_id: int) -> None:
        commit = self.chance.random() < 0.5
        marker = build_marker(
            commit=commit, producer_id=producer_id, producer_epoch=0, coordinator_epoch=3, timestamp_ms=0
        )
        result = log.append_marker(producer_id, 0, 3, commit=commit, now_ms=self.clock.now_ms)
        if result.base_offset != len(model.values):
            raise Violation(f"{model.name}: a marker was put at {result.base_offset}, not {len(model.values)}")
        (record,) = iterate_records(memoryview(marker))
        model.values.append(record.value or b"")
        self.sequence = result.sequence
        self.wait(manager, log, model)

    def retry(self, manager: LogManager, log: PartitionLog, model: ModelLog, producer_id: int) -> None:
        """The client did not see the answer: the same batch again must not be written twice, nor be lost."""
        batches = model.batches[producer_id]
        sequence, values, offset = batches[-1]
        result = self.send(log, values, producer_id, sequence)
        if offset >= len(model.values):
            if result != len(model.values):
                raise Violation(f"{model.name}: a lost batch was retried and put at {result}, not {len(model.values)}")
            model.values += values
            model.sequences[producer_id] = sequence + len(values)
            batches[-1] = sequence, values, result
        elif result != offset:
            raise Violation(f"{model.name}: a duplicate of offset {offset} was put at {result}")
        self.wait(manager, log, model)

    def send(self, log: PartitionLog, values: list[bytes], producer_id: int, sequence: int) -> int:
        records = [self.record(value, self.clock.now_ms + index) for index, value in enumerate(values)]
        epoch, sequence = (0, sequence) if producer_id > 0 else (-1, -1)
        data = build_batch(
            records,
            producer_id=producer_id,
            producer_epoch=epoch,
            base_sequence=sequence,
            attributes=TRANSACTIONAL if producer_id in TRANSACTIONAL_IDS else 0,
        )
        self.sequence = -1
        result = log.append(memoryview(data), parse_batches(memoryview(data)), now_ms=self.clock.now_ms)
        self.sequence = result.sequence
        return result.base_offset

    def record(self, value: bytes, time_ms: int) -> Record:
        return Record(0, time_ms, None, value, [])

    def wait(self, manager: LogManager, log: PartitionLog, model: ModelLog) -> None:
        end = len(model.values)

        def durable(error: Exception | None) -> None:
            if error is None:
                model.acked_end = max(model.acked_end, end)
                if log.high_watermark < end:
                    raise Violation(f"{model.name}: acked up to {end}, visible up to {log.high_watermark}")

        manager.when_durable(self.sequence, durable)

    # ---- comparing

    def compare_recovered(self, log: PartitionLog, model: ModelLog) -> None:
        end = log.log_end_offset
        if end < model.acked_end:
            raise Violation(f"{model.name}: acked up to {model.acked_end}, recovered up to {end}")
        if end > len(model.values):
            raise Violation(f"{model.name}: {end} records recovered, {len(model.values)} were sent")
        if log.high_watermark != end:
            raise Violation(f"{model.name}: recovered data is not visible")
        if not log.log_start_offset <= max(model.start_max, model.start):
            raise Violation(f"{model.name}: starts at {log.log_start_offset} > {model.start_max}")
        del model.values[end:]
        model.start = log.log_start_offset
        for producer_id, batches in model.batches.items():
            # The first lost batch is the one that the client sends again.
            kept = [batch for batch in batches if batch[2] < end]
            lost = [batch for batch in batches if batch[2] >= end]
            model.batches[producer_id] = kept + [(sequence, values, LOST) for sequence, values, _ in lost[:1]]
            model.sequences[producer_id] = kept[-1][0] + len(kept[-1][1]) if kept else 0
        # What was recovered has been made durable before anyone can read it.
        model.acked_end = end
        model.last_stable_offset = 0
        self.compare(log, model)
        self.compare_transactions(log, model)

    def compare(self, log: PartitionLog, model: ModelLog) -> None:
        """Read everything visible in random steps."""
        if log.log_start_offset > log.high_watermark:
            raise Violation(f"{model.name}: starts at {log.log_start_offset}, ends at {log.high_watermark}")
        offset = start = self.chance.randint(log.log_start_offset, log.high_watermark)
        seen: list[bytes] = []
        while offset < log.high_watermark:
            limit = self.chance.choice([1, 200, 3000, 100_000])
            result = log.read(offset, limit, up_to=1 << 60, at_least_one=True)
            if result.next_offset <= offset or (result.size > limit and len(walk_batches(_joined(result.buffers))) > 1):
                raise Violation(f"{model.name}: a read at {offset} of {limit} bytes gave {result.size}")
            joined = _joined(result.buffers)
            for batch in parse_batches(joined):
                for record in iterate_records(joined[batch.position : batch.position + batch.size]):
                    if record.offset >= start + len(seen):
                        if record.offset != start + len(seen):
                            raise Violation(f"{model.name}: offset {record.offset} follows {start + len(seen) - 1}")
                        seen.append(record.value or b"")
            offset = result.next_offset
        expected = model.values[start : log.high_watermark]
        if seen != expected:
            raise Violation(f"{model.name}: from {start}: {_first_difference(seen, expected)}")
        if not model.last_stable_offset <= log.last_stable_offset <= log.high_watermark:
            raise Violation(f"{model.name}: the last stable offset fell from {model.last_stable_offset}")
        model.last_stable_offset = log.last_stable_offset

    def compare_transactions(self, log: PartitionLog, model: ModelLog) -> None:
        """The recovered transactions are those that the recovered batches tell of."""
        started: dict[int, int] = {}
        aborted: list[AbortedTransaction] = []
        offset = log.log_start_offset
        while offset < log.log_end_offset:
            result = log.read(offset, 100_000, up_to=1 << 60, at_least_one=True)
            joined = _joined(result.buffers)
            for batch in walk_batches(joined):
                if batch.control:
                    marker = read_marker(joined[batch.position : batch.position + batch.size])
                    first = started.pop(batch.producer_id, None)
                    if marker is not None and not marker.commit and first is not None:
                        stable = min(started.values(), default=batch.base_offset + 1)
                        aborted.append(AbortedTransaction(batch.producer_id, first, batch.base_offset, stable))
                elif batch.transactional:
                    started.setdefault(batch.producer_id, batch.base_offset)
            offset = result.next_offset
        known = dict(log.producers.open_transactions)
        if started.keys() - known.keys() or any(known[key] > first for key, first in started.items()):
            raise Violation(f"{model.name}: open {started}, recovered {known}")
        listed = {entry.last_offset: entry for entry in log.aborted_transactions(log.log_start_offset, LOST)}
        for entry in aborted:
            other = listed.get(entry.last_offset)
            if other is None or other.first_offset > entry.first_offset or other.producer_id != entry.producer_id:
                raise Violation(f"{model.name}: aborted {entry}, recovered {other}")


def _joined(buffers: list[memoryview]) -> memoryview:
    return memoryview(b"".join(buffers))


def _first_difference(seen: list[bytes], expected: list[bytes]) -> str:
    for index, (left, right) in enumerate(zip(seen, expected, strict=False)):
        if left != right:
            return f"{index} later {left[:20]!r} instead of {right[:20]!r}"
    return f"{len(seen)} records instead of {len(expected)}"


def violations(
    seeds: range, sync: SyncPolicy = "always", *, lives: int = 3, kind: "type[Scenario]" = Scenario
) -> dict[int, str]:
    """What goes wrong for which seed. Errors that storage raises while it should work count, too."""
    found: dict[int, str] = {}
    for seed in seeds:
        try:
            kind(seed, sync).live(lives=lives)
        except (Violation, KafkaError, Exception) as error:
            found[seed] = f"{type(error).__name__}: {error}"
    return found
