"""A group coordinator on a real log, with time and the disk's threads in the test's hands."""

import heapq
import itertools
import shutil
from pathlib import Path

from broker.config import Config
from broker.coordinator.group_state import Committer, JoiningClient
from broker.coordinator.records import OFFSETS_TOPIC, CommittedOffset
from broker.coordinator.runtime import GroupCoordinator
from broker.meta_store import MetaStore
from broker.topics import Topics
from protocol.messages import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest
from storage.config import StorageConfig
from storage.file_system import OsFileSystem
from storage.log_manager import LogManager
from tests.unit.broker.coordinator.simulation import value


class ManualClock:
    """Moves only when told."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def monotonic(self) -> float:
        return self.now_ms / 1000

    def time_ms(self) -> int:
        return self.now_ms


class _Handle:
    def __init__(self, callback) -> None:
        self.callback = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualScheduler:
    """`call_later` of an event loop on a ManualClock."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._due: list[tuple[float, int, _Handle]] = []
        self._order = itertools.count()

    def call_later(self, delay, callback, *args):
        handle = _Handle(lambda: callback(*args))
        heapq.heappush(self._due, (self._clock.now_ms + delay * 1000, next(self._order), handle))
        return handle

    def call_soon(self, callback, *args):
        return self.call_later(0, callback, *args)

    def pass_time(self, duration_ms: int) -> None:
        end_ms = self._clock.now_ms + duration_ms
        while self._due and self._due[0][0] <= end_ms:
            due_ms, _, handle = heapq.heappop(self._due)
            self._clock.now_ms = max(self._clock.now_ms, int(due_ms))
            if handle.callback is not None:
                handle.callback()
        self._clock.now_ms = end_ms


class HeldWorker:
    """Keeps its jobs until the test runs them; `held` False: runs them at once."""

    held = False

    def __init__(self, name: str) -> None:
        self.jobs: list = []

    def submit(self, job, delay_s: float = 0.0) -> None:
        self.jobs.append(job)
        if not self.held:
            self.run()

    def run(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()

    def close(self) -> None:
        self.held = False
        self.run()


class World:
    """One broker's groups; `killed` opens another one on what the first had written."""

    def __init__(self, directory: Path, clock: ManualClock | None = None, **settings: int) -> None:
        self.directory = directory
        self.settings = settings
        self.clock = clock or ManualClock()
        self.scheduler = VirtualScheduler(self.clock)
        self.workers: list[HeldWorker] = []
        self.posted: list = []
        config = Config(**{"group_initial_rebalance_delay_ms": 0, "offsets_topic_num_partitions": 3, **settings})
        file_system = OsFileSystem()
        self.logs = LogManager.open(
            directory,
            StorageConfig(min_free_bytes=0, wal_file_bytes=1 << 20),
            clock=self.clock,
            file_system=file_system,
            post=self.posted.append,
            new_worker=self._new_worker,
        )
        self.topics = Topics(MetaStore.open(directory, file_system), self.logs, config)
        self.groups = GroupCoordinator(config, self.clock, self.topics, self.logs, self.scheduler)
        self.groups.start()
        self.turn()

    def turn(self) -> None:
        """Ends a turn of the event loop: writes what was appended, runs what the disk's threads have posted."""
        self.logs.commit()
        while self.posted:
            self.posted.pop(0)()

    def pass_time(self, duration_ms: int) -> None:
        self.scheduler.pass_time(duration_ms)
        self.turn()

    def _new_worker(self, name: str) -> HeldWorker:
        self.workers.append(HeldWorker(name))
        return self.workers[-1]

    def hold(self, held: bool) -> None:
        """Stops the disk's threads, or lets them work again."""
        for worker in self.workers:
            worker.held = held
            if not held:
                worker.run()
        self.turn()

    def killed(self, directory: Path) -> "World":
        """kill -9 and a restart: the new one sees what had reached the files."""
        shutil.copytree(self.directory, directory)
        return World(directory, self.clock, **self.settings)

    def close(self) -> None:
        self.groups.stop()
        self.logs.close()

    def commit(self, group_id: str, topic: str, partition: int, offset: int, member=("", -1), producer=None, **fields):
        """An OffsetCommit, or with a producer a TxnOffsetCommit."""
        committer = Committer(group_id, member[0], None, member[1], api_version=8, producer=producer)
        committed = CommittedOffset(offset, -1, "m", self.clock.time_ms(), **fields)
        answer = self.groups.offsets.commit(committer, [(topic, partition, committed)])
        self.turn()
        return answer

    def end_transaction(self, group_id: str, producer_id: int, *, commit: bool) -> None:
        """What the transaction coordinator does with a transaction that has committed offsets of the group."""
        partition = self.groups.offsets.partition_of(group_id)
        log = self.topics.log(OFFSETS_TOPIC, partition)
        result = log.append_marker(producer_id, 0, 0, commit=commit, now_ms=self.clock.time_ms())
        self.groups.offsets.end_transaction(partition, producer_id, commit=commit, sequence=result.sequence)
        self.turn()

    def join(self, group_id: str, member_id: str = "", version: int = 3, **fields):
        request = JoinGroupRequest(
            group_id=group_id,
            session_timeout_ms=10_000,
            rebalance_timeout_ms=10_000,
            member_id=member_id,
            protocol_type="consumer",
            protocols=[JoinGroupRequest.JoinGroupRequestProtocol(name="range", metadata=b"\0\0\0\0\0\0\0\0\0\0")],
        )
        for name, given in fields.items():
            setattr(request, name, given)
        answer = self.groups.join(request, JoiningClient("client", "/127.0.0.1", version))
        self.turn()
        return answer

    def sync(self, group_id: str, member_id: str, generation_id: int, assignment: bytes = b""):
        given = SyncGroupRequest.SyncGroupRequestAssignment(member_id=member_id, assignment=assignment)
        request = SyncGroupRequest(
            group_id=group_id, generation_id=generation_id, member_id=member_id, assignments=[given]
        )
        answer = self.groups.sync(request)
        self.turn()
        return answer

    def stable(self, group_id: str) -> tuple[str, int]:
        """A group of one member, Stable."""
        answer = self.join(group_id)
        self.pass_time(0)
        member_id, generation_id = value(answer).member_id, value(answer).generation_id
        assert value(self.sync(group_id, member_id, generation_id, b"assigned")).error_code == 0
        return member_id, generation_id

    def heartbeat(self, group_id: str, member: tuple[str, int]) -> int:
        request = HeartbeatRequest(group_id=group_id, member_id=member[0], generation_id=member[1])
        return int(self.groups.heartbeat(request))

    def state(self) -> dict:
        """Everything that must survive: generations and offsets of all groups."""
        return {
            group.group_id: (
                group.snapshot() if group.protocol_type else None,
                list(self.groups.offsets.of_group(group.group_id)),
            )
            for group in self.groups.groups()
        }
