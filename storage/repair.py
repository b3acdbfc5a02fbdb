"""`senselog check --repair`: what keeps a broker from starting is set aside, never deleted, and the rest starts without it.

Planning reads, executing writes. A log that misses an older segment begins behind it; one whose newest segment is short
ends with its last whole batch; the WAL ends before its first unreadable frame. The checkpoint is then marked as of no
boot of the machine, so that the next start trusts nothing it has not read, as after a power failure under storage.sync=os.
"""

from dataclasses import dataclass, field
from pathlib import Path

from storage.checkpoint import (
    REPAIRED_BOOT,
    Checkpoint,
    LogState,
    pack_state,
    read_checkpoint,
    unpack_log,
    write_checkpoint,
)
from storage.errors import CorruptStorage
from storage.file_system import FileSystem, OsFileSystem
from storage.leader_epochs import LeaderEpochs
from storage.log_manager import LOCK_NAME, WAL_DIRECTORY
from storage.recovery import proven_loss, walk_wal
from storage.segment import SEGMENT_ENDINGS, Segment
from storage.wal_files import DAMAGED_SUFFIX, SUFFIX, WalFile
from storage.wal_frame import FILE_HEADER_BYTES, decode_file_header, find_frames

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SetAside:
    """Rename a file, or copy it and keep what is whole."""

    path: Path
    reason: str
    keep: bool = False
    """A copy is set aside; recovery or `cut_at` goes on with the file itself."""
    cut_at: int = -1
    """From this byte on the file is overwritten with zeros; -1: not."""

    def __str__(self) -> str:
        done = f"cut at byte {self.cut_at}, a copy" if self.cut_at >= 0 else "a copy" if self.keep else "the file"
        return f"{self.path}: {self.reason}; {done} is set aside as *{DAMAGED_SUFFIX}"


@dataclass(slots=True)
class Repair:
    """What to do, in order; nothing if no step is named."""

    checkpoint: Checkpoint
    steps: list[SetAside] = field(default_factory=list)
    directories: list[Path] = field(default_factory=list)
    """Of logs that are kept: they must exist."""
    unsound: bool = False
    """The next start must not trust the checkpoint, even if there is nothing to set aside."""

    @property
    def needed(self) -> bool:
        """Whether the broker would refuse to start."""
        return self.unsound or bool(self.steps)


def repair_directory(directory: Path, file_system: FileSystem | None = None) -> list[SetAside] | None:
    """Plan and execute; None if the broker starts without. DirectoryLocked; CorruptStorage if the checkpoint is lost."""
    file_system = file_system or OsFileSystem()
    lock = file_system.lock(directory / LOCK_NAME)
    try:
        repair = plan_repair(directory, file_system)
        if not repair.needed:
            return None
        execute_repair(directory, repair, file_system)
        return repair.steps
    finally:
        lock.close()


def plan_repair(directory: Path, file_system: FileSystem) -> Repair:
    """Reads only. CorruptStorage if the checkpoint is damaged: without it nobody knows which log a file belongs to."""
    checkpoint = read_checkpoint(file_system, directory)
    if checkpoint is None:
        raise CorruptStorage(directory / "checkpoint", 0, "there is no checkpoint, and it cannot be made up")
    repair = Repair(checkpoint)
    states = [_plan_log(directory, unpack_log(packed), repair, file_system) for packed in checkpoint.states]
    checkpoint.states = [pack_state(state) for state in states]
    _plan_wal(directory / WAL_DIRECTORY, repair, file_system)
    return repair


def execute_repair(directory: Path, repair: Repair, file_system: FileSystem) -> None:
    """Can be interrupted and planned again at any point: nothing is overwritten before its copy is on the disk."""
    for step in repair.steps:
        aside = step.path.with_name(f"{step.path.name}.{file_system.random_bytes(4).hex()}{DAMAGED_SUFFIX}")
        if step.keep:
            _copy(file_system, step.path, aside)
        else:
            file_system.rename(step.path, aside)
        file_system.sync_directory(step.path.parent)
    for path in repair.directories:
        file_system.make_directory(path)
    checkpoint = repair.checkpoint
    checkpoint.number += 1
    checkpoint.boot_id, checkpoint.clean = REPAIRED_BOOT, False
    # Of a broker under storage.sync=os: what this checkpoint names may be in the page cache only.
    file_system.sync_all(directory)
    write_checkpoint(file_system, directory, checkpoint, sync=True)
    for step in repair.steps:
        if step.cut_at >= 0:
            _erase(file_system, step.path, step.cut_at)


def _plan_log(directory: Path, state: LogState, repair: Repair, file_system: FileSystem) -> LogState:
    log_directory = directory / f"{state.topic}-{state.partition}"
    present = file_system.list_directory(log_directory)
    segments = [Segment.restore(log_directory, packed) for packed in state.segments]
    for segment in segments:
        segment.locate(present)
    bad = [index for index, segment in enumerate(segments) if present.get(segment.file_name(".log"), 0) < segment.size]
    if not bad:
        return state
    repair.unsound = True
    repair.directories.append(log_directory)
    older = [index for index in bad if index < len(segments) - 1]
    if older:
        first = older[-1] + 1
        for segment in segments[:first]:
            reason = f"the log begins at offset {segments[first].base_offset} now"
            repair.steps += [
                SetAside(segment.path(ending), reason)
                for ending in SEGMENT_ENDINGS
                if segment.file_name(ending) in present
            ]
        state.segments = state.segments[first:]
        state.log_start_offset = max(state.log_start_offset, segments[first].base_offset)
        epochs = LeaderEpochs([(epoch, offset) for epoch, offset in state.epochs])
        epochs.drop_below(state.log_start_offset)
        state.epochs = [list(entry) for entry in epochs.entries()]
    last = segments[-1]
    if bad[-1] == len(segments) - 1 and last.file_name(".log") in present:
        size = present[last.file_name(".log")]
        repair.steps.append(
            SetAside(last.path(".log"), f"{size} of {last.size} bytes are left; the log ends with them", keep=True)
        )
    return state


def _plan_wal(directory: Path, repair: Repair, file_system: FileSystem) -> None:
    files: list[WalFile] = []
    try:
        for name, size in sorted(file_system.list_directory(directory).items()):
            if not name.endswith(SUFFIX):
                continue
            file = file_system.open(directory / name)
            generation = decode_file_header(file.read(0, FILE_HEADER_BYTES))
            if generation is None:
                file.close()
                repair.steps.append(SetAside(directory / name, "the header of this WAL file is not valid"))
            else:
                files.append(WalFile(directory / name, file, file.map(size), generation, size))
        _plan_frames(files, repair)
    finally:
        for wal_file in files:
            wal_file.close()


def _plan_frames(files: list[WalFile], repair: Repair) -> None:
    checkpoint = repair.checkpoint
    newest = max((file.generation.number for file in files), default=0)
    if not checkpoint.clean and newest < checkpoint.wal_generation:
        repair.unsound = True
    walk = walk_wal(files, checkpoint.replay_from, lambda _entry, _file: None)
    loss = proven_loss(files, walk)
    if loss is None:
        return
    reason = f"frame {walk.expected} is not readable, and what follows it cannot be used"
    for file in files:
        if walk.files and file is walk.files[-1]:
            repair.steps.append(SetAside(file.path, reason, keep=True, cut_at=walk.stopped_at))
        elif file not in walk.files and next(find_frames(file.mapping.view, FILE_HEADER_BYTES, file.seed), None):
            repair.steps.append(SetAside(file.path, reason))


def _copy(file_system: FileSystem, source: Path, target: Path) -> None:
    original, copy = file_system.open(source), file_system.open(target, create=True)
    try:
        size = original.size()
        position = 0
        while position < size:
            position += copy.write([original.read(position, min(_CHUNK_BYTES, size - position))], position)
        copy.sync()
    finally:
        original.close()
        copy.close()


def _erase(file_system: FileSystem, path: Path, position: int) -> None:
    file = file_system.open(path)
    try:
        size = file.size()
        while position < size:
            position += file.write([bytes(min(_CHUNK_BYTES, size - position))], position)
        file.sync()
    finally:
        file.close()
