"""One log over the simulated disk, as unit tests of the storage use it."""

import random
from pathlib import Path

from protocol.record_batch import TRANSACTIONAL, Record, build_batch, iterate_records, parse_batches
from storage.config import LogConfig, StorageConfig
from storage.log import PartitionLog
from storage.log_manager import LogManager
from storage.log_results import AppendResult
from tests.simulated_storage import Machine, ManualClock, SimulatedFileSystem

DIRECTORY = Path("/data")
TOPIC = b"t" * 16
CHANCE = random.Random(1)


class World:
    """A disk, a clock and one manager with one log."""

    def __init__(self, log_config: LogConfig | None = None, **settings: object) -> None:
        self.disk = SimulatedFileSystem()
        self.clock = ManualClock()
        settings = {"wal_file_bytes": 64 << 10, "min_free_bytes": 0} | settings
        self.config = StorageConfig(**settings)  # type: ignore[arg-type]
        self.log_config = log_config or LogConfig()
        self.open()

    def open(self) -> None:
        self.machine = Machine(self.disk, self.clock)
        self.manager = LogManager.open(
            DIRECTORY,
            self.config,
            clock=self.clock,
            file_system=self.disk,
            post=self.machine.post,
            new_worker=self.machine.new_worker,
        )
        self.log: PartitionLog = self.manager.create_log(TOPIC, "t", 0, self.log_config)
        self.manager.commit()
        self.settle()

    def settle(self) -> None:
        self.machine.settle(CHANCE)

    def append(
        self,
        *values: bytes,
        producer: tuple[int, int, int] = (-1, -1, -1),
        time_ms: int = 0,
        transactional: bool = False,
    ) -> AppendResult:
        records = [
            Record(0, (time_ms or self.clock.now_ms) + index, None, value, []) for index, value in enumerate(values)
        ]
        producer_id, epoch, sequence = producer
        data = build_batch(
            records,
            producer_id=producer_id,
            producer_epoch=epoch,
            base_sequence=sequence,
            attributes=TRANSACTIONAL if transactional else 0,
        )
        return self.log.append(memoryview(data), parse_batches(memoryview(data)), now_ms=self.clock.now_ms)

    def write(self, *values: bytes, time_ms: int = 0) -> None:
        self.append(*values, time_ms=time_ms)
        self.manager.commit()
        self.settle()

    def mark(self, producer_id: int, *, commit: bool, epoch: int = 0, coordinator_epoch: int = 0) -> AppendResult:
        """End a transaction; not committed to the WAL yet."""
        return self.log.append_marker(producer_id, epoch, coordinator_epoch, commit=commit, now_ms=self.clock.now_ms)

    def flush(self) -> None:
        self.manager.checkpoint()
        self.settle()

    def values(self) -> list[bytes | None]:
        offset, found = self.log.log_start_offset, []
        while offset < self.log.high_watermark:
            result = self.log.read(offset, 1000, up_to=1 << 60, at_least_one=True)
            data = memoryview(b"".join(result.buffers))
            for batch in parse_batches(data):
                records = iterate_records(data[batch.position : batch.position + batch.size])
                found += [record.value for record in records if record.offset >= offset]
            offset = result.next_offset
        return found
