"""Logs over the simulated disk: durability, failure, space, time, producers, retention."""

import dataclasses
import errno

import pytest

from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import Record, build_batch, parse_batches
from storage.check import check_directory
from storage.config import LogConfig
from storage.errors import CorruptStorage, DirectoryLocked, OffsetOutOfRange, StorageFailure
from storage.wal import Wal
from tests.simulated_storage import SimulatedFile
from tests.storage_world import DIRECTORY, World


def test_an_ack_waits_for_the_sync() -> None:
    """Under `always` nothing is acknowledged or visible before the sync thread has run."""
    world = World()
    acks: list[Exception | None] = []
    result = world.append(b"a")
    world.manager.when_durable(result.sequence, acks.append)
    world.manager.commit()
    assert (acks, world.log.high_watermark) == ([], 0)
    world.settle()
    assert (acks, world.log.high_watermark) == ([None], 1)


@pytest.mark.parametrize("sync", ["os", "interval"])
def test_weaker_policies_ack_at_the_write(sync: str) -> None:
    world = World(sync=sync)
    acks: list[Exception | None] = []
    world.manager.when_durable(world.append(b"a").sequence, acks.append)
    world.manager.commit()
    assert (acks, world.log.high_watermark) == ([None], 1)


def test_many_appends_of_a_turn_share_one_write_and_one_sync() -> None:
    """Group commit: the disk sees two calls for a hundred appends."""
    world = World()
    before = world.disk.steps
    for _ in range(100):
        world.append(b"v")
    world.manager.commit()
    world.settle()
    assert world.disk.steps - before == 2
    assert world.log.high_watermark == 100


@pytest.mark.parametrize("fault", ["sync_error", "short_write"])
def test_a_failing_disk_stops_every_ack(fault: str) -> None:
    """Waiters and later appends learn of it, and the owner is told once."""
    world = World()
    told: list[Exception] = []
    world.manager.on_failure = told.append
    acks: list[Exception | None] = []
    setattr(world.disk, fault, True)
    world.manager.when_durable(world.append(b"a").sequence, acks.append)
    world.manager.commit()
    world.settle()
    assert len(acks) == 1
    assert acks[0] is world.manager.failed is told[0]
    with pytest.raises(KafkaError) as refused:
        world.append(b"b")
    assert refused.value.code == ErrorCode.KAFKA_STORAGE_ERROR


def test_a_full_disk_refuses_appends_and_recovers() -> None:
    """Reads go on; when space returns, so do appends. Nothing that was acknowledged is affected."""
    world = World(flush_bytes=1 << 30)
    world.write(b"kept")
    world.disk.capacity = world.disk.used()
    accepted = 1
    with pytest.raises(KafkaError) as refused:
        for _ in range(1000):
            world.write(b"x" * 1000)
            accepted += 1
    assert refused.value.code == ErrorCode.KAFKA_STORAGE_ERROR
    world.flush()
    assert len(world.values()) == accepted
    world.disk.capacity = 1 << 40
    world.manager.maintain()
    world.settle()
    world.manager.maintain()
    world.write(b"after")
    assert world.values()[-1] == b"after"
    world.manager.close()
    assert check_directory(DIRECTORY, world.disk) == []


def test_retention_without_room_in_the_wal_does_not_stop_what_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new log start is refused like an append; free space is looked at all the same, and checkpoints go on."""
    world = World(LogConfig(retention_ms=1000), flush_bytes=1 << 30)
    world.write(b"old")
    world.flush()
    world.clock.now_ms += 60_000
    add = Wal.add
    monkeypatch.setattr(Wal, "add", _refuse)
    world.disk.capacity = 0
    world.manager._config = dataclasses.replace(world.config, min_free_bytes=1)
    world.manager.maintain()
    monkeypatch.setattr(Wal, "add", add)
    with pytest.raises(KafkaError) as refused:
        world.append(b"new")
    assert refused.value.code == ErrorCode.KAFKA_STORAGE_ERROR
    assert world.log.log_start_offset == 0
    world.disk.capacity = 1 << 40
    world.manager.maintain()
    assert world.log.log_start_offset == 1
    world.write(b"new")


def _refuse(*_: object) -> None:
    raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "the WAL is full")


def test_below_the_reserve_appends_are_refused() -> None:
    world = World()
    world.disk.free = -1
    world.manager.maintain()
    with pytest.raises(KafkaError, match=r"storage\.min\.free"):
        world.append(b"a")
    world.disk.free = 1 << 40
    world.manager.maintain()
    world.append(b"a")


def test_rot_in_a_synced_frame_refuses_to_start() -> None:
    """Durable data is never cut silently: the error names the file and the byte."""
    world = World()
    for number in range(5):
        world.write(b"value %d" % number)
    path, node = next(
        (path, node) for path, node in world.disk.files() if path.suffix == ".wal" and b"value 1" in node.current
    )
    node.current[node.current.index(b"value 1")] ^= 1
    world.disk.kill()
    with pytest.raises(CorruptStorage) as refused:
        world.open()
    assert refused.value.path == path
    assert any("frame" in str(problem) for problem in check_directory(DIRECTORY, world.disk))


def test_rot_in_a_segment_is_found_by_check() -> None:
    world = World()
    world.write(b"precious")
    world.manager.close()
    node = next(node for path, node in world.disk.files() if path.suffix == ".log")
    node.current[-2] ^= 1
    assert any("checksum" in str(problem) for problem in check_directory(DIRECTORY, world.disk))


def test_a_damaged_index_is_rebuilt() -> None:
    """Indexes are derived: reads do not depend on the files."""
    world = World(LogConfig(index_interval_bytes=100))
    for number in range(200):
        world.write(b"value %d" % number)
    expected = world.values()
    world.manager.close()
    for path, node in world.disk.files():
        if path.suffix in (".index", ".timeindex"):
            node.resize(len(node.current) // 2)
    world.open()
    assert world.values() == expected


def test_the_directory_has_one_owner() -> None:
    world = World()
    with pytest.raises(DirectoryLocked):
        world.open()


def test_offsets_by_time_are_exact_to_the_record() -> None:
    """In the tail and in segments alike."""
    world = World(LogConfig(index_interval_bytes=100))
    for number in range(50):
        world.write(b"a", b"b", b"c", time_ms=1000 + number * 10)
    for _ in range(2):
        assert world.log.offset_for_timestamp(0) == (0, 1000, 0)
        assert world.log.offset_for_timestamp(1011) == (4, 1011, 0)
        assert world.log.offset_for_timestamp(1013) == (6, 1020, 0)
        assert world.log.offset_for_timestamp(1492) == (149, 1492, 0)
        assert world.log.offset_for_timestamp(1493) is None
        assert world.log.max_timestamp() == (149, 1492, 0)
        world.flush()


def test_log_append_time_is_stamped_and_survives() -> None:
    world = World(LogConfig(message_timestamp_type="LogAppendTime"))
    assert world.append(b"a", time_ms=5).log_append_time_ms == world.clock.now_ms
    world.manager.commit()
    world.settle()
    world.disk.kill()
    world.open()
    assert world.log.offset_for_timestamp(0) == (0, world.clock.now_ms, 0)


def test_retention_by_time_and_size_moves_the_start() -> None:
    world = World(LogConfig(segment_bytes=1000, retention_ms=10_000, retention_bytes=-1))
    world.write(b"x" * 900)
    world.flush()
    world.clock.advance(8000)
    world.write(b"y" * 900)
    world.flush()
    world.clock.advance(5000)
    moved: list[int] = []
    world.log.listeners.add(lambda log: moved.append(log.log_start_offset))
    world.manager.maintain()
    assert (world.log.log_start_offset, moved) == (1, [1])
    with pytest.raises(OffsetOutOfRange):
        world.log.read(0, 100, up_to=100, at_least_one=True)
    world.flush()
    assert len([path for path, _ in world.disk.files() if path.suffix == ".log"]) == 1
    world.log.config = LogConfig(segment_bytes=1000, retention_ms=-1, retention_bytes=500)
    world.write(b"z" * 900)
    world.flush()
    world.manager.maintain()
    assert world.log.log_start_offset == 2


def test_records_without_a_time_have_no_age() -> None:
    """A producer may leave the timestamp out (-1): that is not the year 1969."""
    world = World(LogConfig(retention_ms=1000, segment_ms=1000))
    data = memoryview(build_batch([Record(0, -1, None, b"timeless", [])]))
    world.log.append(data, parse_batches(data), now_ms=world.clock.now_ms)
    world.manager.commit()
    world.settle()
    world.flush()
    world.manager.maintain()
    assert not world.log.segments[-1].sealed
    assert world.values() == [b"timeless"]


def test_deleted_records_stay_deleted_after_a_crash() -> None:
    world = World()
    for _ in range(5):
        world.write(b"v")
    assert world.log.delete_records_before(3) == 3
    assert world.log.delete_records_before(1) == 3
    world.settle()
    world.disk.lose_power()
    world.open()
    assert (world.log.log_start_offset, world.log.log_end_offset) == (3, 5)
    with pytest.raises(OffsetOutOfRange):
        world.log.delete_records_before(6)


def test_idempotence_as_kafka_answers_it() -> None:
    """The oracle's scenario: duplicates, gaps, old and new epochs, before and after a restart."""
    world = World()
    assert world.append(b"a", b"b", producer=(7, 0, 0)).base_offset == 0
    assert world.append(b"c", producer=(7, 0, 2)).base_offset == 2
    for _ in range(2):
        assert world.append(b"a", b"b", producer=(7, 0, 0)).base_offset == 0
        for producer, code in (((7, 0, 5), 45), ((7, 0, 1), 45), ((7, 1, 3), 45)):
            with pytest.raises(KafkaError) as refused:
                world.append(b"x", producer=producer)
            assert refused.value.code == code
        world.manager.close()
        world.open()
    assert world.append(b"d", producer=(7, 1, 0)).base_offset == 3
    with pytest.raises(KafkaError) as refused:
        world.append(b"x", producer=(7, 0, 3))
    assert refused.value.code == ErrorCode.INVALID_PRODUCER_EPOCH


def test_a_deleted_log_is_gone_and_its_name_free() -> None:
    world = World()
    world.write(b"old")
    world.flush()
    old = world.log
    told: list[bool] = []
    old.listeners.add(lambda log: told.append(log.deleted))
    world.manager.delete_log(old)
    world.log = world.manager.create_log(b"n" * 16, "t", 0, LogConfig())
    world.write(b"new")
    world.flush()
    assert (told, world.values()) == ([True], [b"new"])
    world.disk.lose_power()
    world.open()
    assert world.manager.get(b"n" * 16, 0) is not None
    assert world.log.log_end_offset == 0


def test_two_thousand_idle_logs_cost_nothing_to_open() -> None:
    """A clean start reads the checkpoint and opens no file of a partition."""
    world = World()
    for partition in range(2000):
        world.manager.create_log(b"many".ljust(16), "many", partition, LogConfig())
    world.manager.close()
    world.open()
    assert len(list(world.manager.logs())) == 2001


def test_an_append_refused_in_mid_turn_does_not_hold_back_those_before_it() -> None:
    """They were accepted: the WAL writes them in this turn, before their buffers are used again."""
    world = World(flush_bytes=1 << 30)
    world.disk.capacity = world.disk.used()
    accepted = []
    with pytest.raises(KafkaError):
        for number in range(1000):
            world.append(b"x" * 1000, producer=(1, 0, number))
            accepted.append(number)
    world.manager.commit()
    world.settle()
    assert world.log.high_watermark == len(accepted) > 0


@pytest.mark.parametrize("kind", ["CreateTime", "LogAppendTime"])
def test_a_refused_append_leaves_the_batch_as_it_came(kind: str) -> None:
    """A second look at it must not take it for a wrong one, which no producer would send again."""
    world = World(LogConfig(message_timestamp_type=kind), flush_bytes=1 << 30)
    world.write(b"a")
    world.disk.capacity = world.disk.used()
    for _ in range(1000):
        data = memoryview(build_batch([Record(0, 1, None, b"x" * 1000, [])]))
        before = bytes(data)
        try:
            world.log.append(data, parse_batches(data), now_ms=5)
        except KafkaError:
            assert bytes(data) == before
            return
        world.manager.commit()
        world.settle()
    raise AssertionError("never refused")


def test_files_that_retention_dropped_do_not_take_those_of_the_next_topic_of_the_name() -> None:
    """Both have the same path; the checkpoint that removes the old ones comes after the new ones are written."""
    world = World(flush_bytes=1 << 30)
    world.write(b"old")
    world.flush()
    world.log.delete_records_before(1)
    world.manager.delete_log(world.log)
    world.settle()
    world.log = world.manager.create_log(b"n" * 16, "t", 0, world.log_config)
    world.write(b"new")
    world.flush()
    assert world.values() == [b"new"]
    world.manager.close()
    assert check_directory(DIRECTORY, world.disk) == []


def test_writing_inline_waits_for_removals_in_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the thread would remove the directory of a topic after the next one of its name has been written there."""
    monkeypatch.setattr("storage.write_behind.BACKLOG_BYTES", 1000)
    world = World(flush_bytes=1 << 30)
    world.write(b"old")
    world.flush()
    sync, write_behind, _ = world.machine.workers

    def turn() -> None:
        while world.machine.callbacks or sync.jobs:
            while world.machine.callbacks:
                world.machine.callbacks.pop(0)()
            if sync.jobs:
                sync.run_one()

    world.manager.delete_log(world.log)
    turn()
    assert write_behind.jobs
    world.log = world.manager.create_log(b"n" * 16, "t", 0, world.log_config)
    world.append(b"x" * 5000)
    world.manager.commit()
    turn()
    world.flush()
    assert world.values() == [b"x" * 5000]


def test_interval_syncs_once_per_interval_while_records_keep_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync right after each sync would make it `always` in all but name."""
    world = World(sync="interval")
    thread = world.machine.workers[0]
    file = type(world.manager._wal.active.file)
    sync, syncs = file.sync, []

    def produce_meanwhile(synced: object) -> None:
        syncs.append(synced)
        world.append(b"more")
        world.manager.commit()
        sync(synced)

    world.append(b"first")
    world.manager.commit()
    while world.machine.callbacks:
        world.machine.callbacks.pop(0)()
    monkeypatch.setattr(file, "sync", lambda self: produce_meanwhile(self) if len(syncs) < 5 else sync(self))
    thread.run_one()
    assert len(syncs) == 1
    world.settle()
    assert world.manager._wal.synced_sequence == world.manager._wal.written_sequence


@pytest.mark.parametrize(
    "broken",
    [
        "SimulatedFile.sync",
        "SimulatedFile.truncate",
        "SimulatedFileSystem.rename",
        "SimulatedFileSystem.remove_tree",
    ],
)
def test_an_error_nobody_expected_in_a_thread_ends_the_broker(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the thread dies, every ack hangs, and the process lives on."""
    world = World(flush_bytes=1 << 30)
    world.write(b"kept")
    told: list[Exception] = []
    world.manager.on_failure = told.append

    def fail(*_: object, **__: object) -> None:
        raise ValueError("unexpected")

    monkeypatch.setattr(f"tests.simulated_storage.{broken}", fail)
    world.append(b"a")
    world.manager.commit()
    world.manager.checkpoint()
    if broken.endswith("remove_tree"):
        world.manager.delete_log(world.log)
    world.settle()
    assert [type(error) for error in told] == [StorageFailure]
    assert "unexpected" in str(told[0])


def test_an_error_nobody_expected_in_preparing_a_spare_ends_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(flush_bytes=1 << 14, wal_file_bytes=1 << 17)
    told: list[Exception] = []
    world.manager.on_failure = told.append

    def fail(_: object) -> None:
        raise ValueError("unexpected")

    world.manager._wal_files.spares.clear()
    monkeypatch.setattr(type(world.manager._wal_files), "prepare_spare", fail)
    world.write(b"x" * 70_000)
    assert [type(error) for error in told] == [StorageFailure]


def test_a_spare_is_as_long_as_its_mapping_however_short_the_writes_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping beyond the end of its file kills the process at the first look at it."""
    world = World(flush_bytes=1 << 30)
    write = SimulatedFile.write

    def short(self: SimulatedFile, buffers: list[bytes], position: int) -> int:
        data = b"".join(buffers)
        return write(self, [data[: min(len(data), 10_000)]], position)

    files = world.manager._wal_files
    files.close()
    monkeypatch.setattr(SimulatedFile, "write", short)
    files.prepare_spare()
    assert files.spares[0].file.size() == world.config.wal_file_bytes


@pytest.mark.parametrize("filled", [False, True])
def test_only_a_file_that_was_zero_filled_is_recycled(filled: bool) -> None:
    """The blocks of any other one in the page cache are as small as the frames that made them."""
    files = World(flush_bytes=1 << 30).manager._wal_files
    files.close()
    if filled:
        files.prepare_spare()
    for _ in range(3):
        files.recycle(files.take(100))
        assert len(files.spares) == filled


def test_a_spare_that_had_no_room_does_not_refuse_appends_for_ever() -> None:
    """Nothing has changed and nothing can change: the next attempt must be made all the same."""
    world = World(flush_bytes=1 << 30)
    world.flush()
    world.manager._write_behind._spare_failed(OSError(errno.ENOSPC, "no space left"))
    world.manager.maintain()
    world.settle()
    world.manager.maintain()
    world.write(b"a")
    assert world.values() == [b"a"]


@pytest.mark.parametrize("fault", [False, True])
def test_a_failing_callback_does_not_cost_the_others_their_acks(fault: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Acks of one frame share a sync, and nothing else."""
    world = World()
    told: list[Exception] = []
    acks: list[Exception | None] = []
    world.manager.on_failure = told.append
    world.disk.sync_error = fault

    def fail(_: object) -> None:
        raise ValueError("unexpected")

    world.log.listeners.add(fail)
    for callback in (fail, acks.append, fail, acks.append):
        world.manager.when_durable(world.append(b"a").sequence, callback)
    world.manager.commit()
    world.settle()
    assert acks == [world.manager.failed] * 2
    assert len(told) == fault
    assert len([record for record in caplog.records if "failed" in record.message]) == 2 + (not fault)
    assert world.log.high_watermark == 4 * (not fault)


@pytest.mark.parametrize("planned", [False, True])
def test_what_deleted_logs_held_does_not_count_as_a_backlog(planned: bool) -> None:
    """It would grow with every deletion, as long as another log is busy, until the loop does all the writing."""
    world = World(flush_bytes=1 << 30)
    write_behind = world.manager._write_behind
    world.append(b"x" * 5000)
    other = world.manager.create_log(b"n" * 16, "n", 0, world.log_config)
    data = memoryview(build_batch([Record(0, 1, None, b"y" * 5000, [])]))
    other.append(data, parse_batches(data), now_ms=5)
    world.manager.commit()
    while world.machine.callbacks:
        world.machine.callbacks.pop(0)()
    world.machine.workers[0].wait()
    if planned:
        world.manager.checkpoint()
    while world.machine.callbacks:
        world.machine.callbacks.pop(0)()
    assert bool(world.machine.workers[1].jobs) == planned
    world.manager.delete_log(world.log)
    assert 5000 < write_behind._backlog_bytes < 6000
    if planned:
        world.machine.workers[1].run_one()
        while write_behind._round is not None and world.machine.callbacks:
            world.machine.callbacks.pop(0)()
        assert write_behind._backlog_bytes < 1000
    world.settle()
