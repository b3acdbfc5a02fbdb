"""Start after a crash: the checkpoint, then the WAL. Costs the WAL's tail, not the log.

Replayed batches are not copied: they become the logs' tails, read from the old WAL files until write-behind gets to
them. Nothing is ever appended to a file of an earlier run (an unacknowledged frame behind a torn one would come back).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgpack

from protocol.record_batch import BatchHeader
from storage.aborted_transactions import ENTRY_BYTES, valid_entries
from storage.checkpoint import Checkpoint, restore_log, unpack_log
from storage.clock import Clock
from storage.errors import CorruptStorage
from storage.file_system import FileSystem
from storage.log import LogKey, PartitionLog
from storage.log_services import FileChange, LogServices
from storage.segment import (
    INDEX_ENTRY_BYTES,
    SEGMENT_ENDINGS,
    STAGED_SUFFIX,
    TIME_ENTRY_BYTES,
    Segment,
    read_whole,
)
from storage.segment_scan import rebuild_transactions, scan_segment
from storage.wal_files import WalFile
from storage.wal_frame import CREATE, DELETE, FILE_HEADER_BYTES, Entry, Frame, find_frames, read_frame

_LOG_DIRECTORY = re.compile(r".+-\d+")
NewLog = Callable[[bytes, str, int], PartitionLog]


@dataclass(slots=True)
class ReplayedWal:
    """What the WAL's files held."""

    next_sequence: int
    files: list[WalFile]
    """With frames that are needed, oldest first; `last_sequence` is set."""
    stale: list[WalFile]
    """Unused, or behind a torn frame: to be removed before anything new is written."""
    frames: int
    """How many were behind the checkpoint: 0 after a clean shutdown."""


class Replay:
    """Applies WAL entries to logs."""

    def __init__(
        self, logs: dict[LogKey, PartitionLog], new_log: NewLog, clock: Clock, *, trusted: bool, check: "DirectoryCheck"
    ) -> None:
        self._trusted = trusted
        self._check = check
        self._logs = logs
        self._new_log = new_log
        self._now_ms = clock.time_ms()
        self.touched: dict[PartitionLog, None] = {}
        self.dropped = 0
        """Batches that follow a lost one."""

    def apply(self, entry: Entry, file: WalFile) -> None:
        """Idempotent: what the checkpoint or an earlier entry has brought changes nothing."""
        key = entry.topic_id, entry.partition
        log = self._logs.get(key)
        view = file.mapping.view
        if entry.base_offset >= 0:
            # Entries of a log that was deleted later, before the checkpoint, belong to nobody.
            if log is not None:
                batch = BatchHeader(view, entry.position)
                try:
                    log.replay(batch, file, entry.position, self._now_ms)
                except ValueError as error:
                    if not self._trusted:
                        # storage.sync=os and a power failure: what follows a lost batch is lost with it.
                        self.dropped += 1
                        return
                    raise CorruptStorage(file.path, entry.position, f"{log.directory.name}: {error}") from error
                self.touched[log] = None
            return
        message = msgpack.unpackb(view[entry.position : entry.position + entry.size])
        if entry.base_offset == CREATE:
            if log is None:
                topic, leader_epoch = message
                log = self._logs[key] = self._new_log(entry.topic_id, topic, entry.partition)
                log.leader_epoch = leader_epoch
                if not self._trusted:
                    # Batches of it may be there, but some may have been lost, or it is another topic's of the same name.
                    self._check.set_aside(log.directory)
                self.touched[log] = None
        elif log is not None and entry.base_offset == DELETE:
            del self._logs[key]
            self.touched.pop(log, None)
        elif log is not None:
            log.start_at(message)
            self.touched[log] = None


def replay_wal(
    files: list[WalFile], checkpoint: Checkpoint, apply: Callable[[Entry, WalFile], None], *, trusted: bool
) -> ReplayedWal:
    """Walk the frames in sequence, from `checkpoint.replay_from` on; CorruptStorage if synced frames are missing."""
    if (
        trusted
        and not checkpoint.clean
        and checkpoint.wal_generation
        and all(file.generation.number < checkpoint.wal_generation for file in files)
    ):
        path = files[0].path.parent if files else Path("wal")
        raise CorruptStorage(path, 0, f"WAL file {checkpoint.wal_generation} is missing")
    walk = walk_wal(files, checkpoint.replay_from, apply)
    loss = proven_loss(files, walk)
    if loss is not None:
        raise loss
    stale = [file for file in files if file not in walk.files]
    return ReplayedWal(walk.expected, walk.files, stale, walk.frames)


@dataclass(slots=True)
class WalWalk:
    """How far the frames follow one another."""

    expected: int
    """Sequence of the first frame that is not there."""
    files: list[WalFile]
    stopped_at: int = FILE_HEADER_BYTES
    """Where it should be, in the last of the files."""
    frames: int = 0
    """Applied."""


def walk_wal(files: list[WalFile], replay_from: int, apply: Callable[[Entry, WalFile], None]) -> WalWalk:
    """Apply the frames from `replay_from` on, in sequence, up to the first that is missing or bad."""
    firsts = [(frame.sequence, file) for file in files if (frame := _first_frame(file)) is not None]
    firsts.sort(key=lambda first: first[0])
    walk = WalWalk(replay_from, [])
    for first, file in firsts:
        # Frames that the checkpoint covers may be missing: under `interval` they were never synced.
        if first > max(walk.expected, replay_from) or (walk.files and first < walk.expected):
            break
        walk.expected, walk.stopped_at, applied = _walk(file, first, replay_from, apply)
        walk.files.append(file)
        walk.frames += applied
    walk.expected = max(walk.expected, replay_from)
    return walk


def _first_frame(file: WalFile) -> Frame | None:
    return read_frame(file.mapping.view, FILE_HEADER_BYTES, file.seed)


def _walk(
    file: WalFile, expected: int, replay_from: int, apply: Callable[[Entry, WalFile], None]
) -> tuple[int, int, int]:
    """(next sequence, position of the first bad frame, frames applied)."""
    position = FILE_HEADER_BYTES
    applied = 0
    while (frame := read_frame(file.mapping.view, position, file.seed)) is not None and frame.sequence == expected:
        if frame.sequence >= replay_from:
            applied += 1
            for entry in frame.entries:
                apply(entry, file)
        file.last_sequence = frame.sequence
        position = frame.end
        expected += 1
    file.position = position
    return expected, position, applied


def proven_loss(files: list[WalFile], walk: WalWalk) -> CorruptStorage | None:
    """A frame that knew `walk.expected` to be synced proves that its absence is damage, not the torn end of the log."""
    walked = walk.files
    for file in files:
        start = FILE_HEADER_BYTES
        if file in walked:
            if file is not walked[-1]:
                continue
            start = walk.stopped_at
        # Frames written under storage.sync=os claim nothing.
        for frame in find_frames(file.mapping.view, start, file.seed):
            if frame.synced_sequence >= walk.expected:
                at = walked[-1] if walked else file
                reason = f"frame {walk.expected} is not readable, but frame {frame.sequence} says it was synced"
                return CorruptStorage(at.path, walk.stopped_at, reason)
    return None


def restore_logs(checkpoint: Checkpoint, logs: dict[LogKey, PartitionLog], new_log: NewLog) -> None:
    """Logs as the checkpoint describes them; no file is opened."""
    for packed in checkpoint.states:
        state = unpack_log(packed)
        log = new_log(state.topic_id, state.topic, state.partition)
        restore_log(log, state, packed)
        if not checkpoint.synced:
            log.dirty_segments = dict.fromkeys(log.segments)
        logs[log.key] = log


class DirectoryCheck:
    """Makes the partition directories agree with the logs: cuts what was never checkpointed, refuses what is missing."""

    def __init__(self, file_system: FileSystem, directory: Path, services: LogServices, *, trusted: bool) -> None:
        self._file_system = file_system
        self._directory = directory
        self._services = services
        self._trusted = trusted
        """False after a power failure under storage.sync=os: the files may hold more or less than the checkpoint says."""
        self.orphans: list[Path] = []
        """Directories that were set aside."""
        self.cut_bytes = 0
        """Of segments, behind the last whole batch or what the checkpoint names."""

    def drop_removed(self, logs: dict[LogKey, PartitionLog]) -> None:
        """Logs whose deletion was lost with the WAL, but whose directory is gone."""
        for log in list(logs.values()):
            if log.segments and not self._file_system.exists(log.directory):
                del logs[log.key]

    def remove_orphans(self, logs: dict[LogKey, PartitionLog]) -> None:
        """Directories of logs that do not exist (any more)."""
        known = {log.directory.name for log in logs.values()}
        for name, size in self._file_system.list_directory(self._directory).items():
            if size < 0 and name not in known and _LOG_DIRECTORY.fullmatch(name):
                path = self._directory / name
                if self._trusted:
                    self._file_system.remove_tree(path)
                else:
                    self.set_aside(path)

    def set_aside(self, path: Path) -> None:
        """A directory whose log was lost with the WAL, though not its data: leave that to a person."""
        if self._file_system.exists(path):
            suffix = self._file_system.random_bytes(4).hex()
            self._file_system.rename(path, path.with_name(f"{path.name}.{suffix}.orphan"))
            self.orphans.append(path)

    def check(self, log: PartitionLog) -> None:
        """CorruptStorage if a segment is gone or too short."""
        present = self._file_system.list_directory(log.directory)
        for segment in log.segments:
            self._find_staged(log, segment, present)
        if not self._trusted:
            self._rescan(log, present)
        wanted: set[str] = set()
        for segment in log.segments:
            expected_sizes = (
                (".log", segment.size),
                (".index", segment.index_count * INDEX_ENTRY_BYTES),
                (".timeindex", segment.time_count * TIME_ENTRY_BYTES),
                (".txnindex", segment.aborted_count * ENTRY_BYTES),
            )
            for ending, size in expected_sizes:
                name = segment.file_name(ending)
                # Under its final name a staged segment's file still has what it replaces.
                wanted |= {name, segment.name + ending}
                self._cut(log.directory / name, present.get(name, 0), size, required=ending == ".log")
        self._load_aborted(log)
        self._tidy(log, {name: size for name, size in present.items() if name not in wanted})

    def _find_staged(self, log: PartitionLog, segment: Segment, present: dict[str, int]) -> None:
        """Compaction's files may not have got their final names yet; if the log has, it was killed before the others."""
        segment.locate(present)
        if segment.staged:
            log.stage(segment)
            return
        for ending in SEGMENT_ENDINGS[1:] if segment.revision else ():
            staged, final = segment.staged_name(ending), segment.name + ending
            if staged in present:
                self._file_system.rename(log.directory / staged, log.directory / final)
                present[final] = present.pop(staged)

    def _tidy(self, log: PartitionLog, unknown: dict[str, int]) -> None:
        """Files that the checkpoint does not name: those of older offsets, or compaction's, one that was synced may still name."""
        newest = log.segments[-1].name if log.segments else f"{log.tail.start_offset:020d}"
        for name, size in unknown.items():
            if name.endswith(STAGED_SUFFIX) or (name.endswith(SEGMENT_ENDINGS) and name < newest):
                self._services.file_changes.append(FileChange(log, log.directory / name))
            elif name.endswith(SEGMENT_ENDINGS):
                self.cut_bytes += size if name.endswith(".log") else 0
                self._file_system.remove(log.directory / name)

    def _load_aborted(self, log: PartitionLog) -> None:
        older = b""
        for segment in log.segments:
            if segment.aborted_count:
                size = segment.aborted_count * ENTRY_BYTES
                entries = read_whole(self._file_system, segment.path(".txnindex"), size)
                if len(entries) != size or not valid_entries(entries, segment.base_offset, segment.end_offset):
                    rebuild_transactions(self._file_system, log)
                    self._services.changed[log] = None
                    return
                older += entries
        log.aborted.prepend(older)

    def _cut(self, path: Path, size: int, expected: int, *, required: bool) -> None:
        if size < expected and required:
            raise CorruptStorage(path, size, f"the segment should have {expected} bytes")
        if size > expected:
            self.cut_bytes += (size - expected) if required else 0
            file = self._file_system.open(path)
            try:
                file.truncate(expected)
            finally:
                file.close()

    def _rescan(self, log: PartitionLog, present: dict[str, int]) -> None:
        """Like Kafka after an unclean shutdown: keep the batches whose checksums are right, up to the first wrong one."""
        checkpointed_end = log.log_end_offset
        saved = log.segments[-1] if log.segments else None
        # What compaction made was synced before any checkpoint named it.
        kept = log.segments if saved is not None and saved.revision else log.segments[:-1]
        end_offset = log.log_end_offset
        if saved is not None:
            end_offset = saved.end_offset if saved.revision else saved.base_offset
        names = sorted(name for name in present if name.endswith(".log") and int(name[:-4]) >= end_offset)
        log.segments = kept
        for name in names:
            if int(name[:-4]) != end_offset:
                break
            segment = Segment(log.directory, end_offset)
            if saved is not None and saved.base_offset == end_offset:
                segment.aborted_count = saved.aborted_count
            scan_segment(self._file_system, segment, present[name], log)
            if segment.size == 0:
                break
            log.segments.append(segment)
            log.dirty_segments[segment] = None
            whole = segment.size == present[name]
            end_offset = segment.end_offset
            if not whole:
                break
            segment.sealed = True
        if log.segments:
            log.segments[-1].sealed = log.segments[-1].revision != 0
        log.high_watermark = log.log_end_offset = log.tail.end_offset = end_offset
        log.epochs.drop_from(end_offset)
        log.producers.drop_from(end_offset)
        log.cleaned_offset = min(log.cleaned_offset, end_offset)
        if end_offset < checkpointed_end:
            rebuild_transactions(self._file_system, log)
        self._services.changed[log] = None
