"""fsck: every invariant of a data directory, without changing anything. `senselog check DIR`, and after every storage test."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protocol.record_batch import BatchHeader, crc_matches, read_marker
from storage.aborted_transactions import ENTRY_BYTES, AbortedTransactions, valid_entries
from storage.checkpoint import Checkpoint, LogState, read_checkpoint, unpack_log
from storage.errors import CorruptStorage
from storage.file_system import FileSystem, OsFileSystem
from storage.log_manager import LOCK_NAME, WAL_DIRECTORY
from storage.producer_state import ProducerState
from storage.recovery import replay_wal
from storage.segment import BATCH_HEADER_BYTES, Segment, read_whole
from storage.wal_files import WalFile, WalFiles
from storage.wal_frame import CREATE, DELETE, Entry


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken invariant."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def check_directory(path: Path, file_system: FileSystem | None = None) -> list[Problem]:
    """All problems found, none for a healthy directory. Raises DirectoryLocked while a broker runs in it."""
    file_system = file_system or OsFileSystem()
    if not file_system.exists(path):
        return [Problem(path, "there is no such directory")]
    lock = file_system.lock(path / LOCK_NAME)
    try:
        return _Check(path, file_system).run()
    finally:
        lock.close()


class _Transactions:
    """Follows one log's batches: which transactions are open, and which have been aborted where."""

    def __init__(self, first_offset: int) -> None:
        self._first_offset = first_offset
        self._open: dict[int, int] = {}
        self.aborted: dict[int, tuple[int, int]] = {}
        """Marker's offset -> (producer id, first offset), of transactions with records in the log."""
        self.abort_markers: set[int] = set()

    def follow(self, batch: BatchHeader, data: memoryview) -> None:
        if batch.producer_id < 0 or not batch.transactional:
            return
        if not batch.control:
            self._open.setdefault(batch.producer_id, batch.base_offset)
            return
        marker = read_marker(data)
        first_offset = self._open.pop(batch.producer_id, None)
        if marker is not None and not marker.commit:
            self.abort_markers.add(batch.base_offset)
            if first_offset is not None:
                self.aborted[batch.base_offset] = batch.producer_id, first_offset

    def differences(self, recorded: dict[int, int]) -> Iterator[str]:
        """What a checkpoint says of open transactions, beside what the log holds; retention may have taken their beginnings."""
        for producer_id in self._open.keys() | recorded.keys():
            found, first = self._open.get(producer_id), recorded.get(producer_id)
            cut = first is not None and first < self._first_offset
            if found != first and not cut:
                yield f"producer {producer_id} has a transaction open from {found}, the checkpoint says {first}"


class _Check:
    def __init__(self, directory: Path, file_system: FileSystem) -> None:
        self._directory = directory
        self._file_system = file_system
        self._problems: list[Problem] = []
        self._ends: dict[tuple[bytes, int], int] = {}
        """Next offset of every log, as far as the WAL has been walked."""

    def run(self) -> list[Problem]:
        """Checkpoint, segments, then the WAL behind them."""
        try:
            checkpoint = read_checkpoint(self._file_system, self._directory)
            if checkpoint is None:
                self._add(self._directory / "checkpoint", "there is no checkpoint")
                return self._problems
            for packed in checkpoint.states:
                self._check_log(unpack_log(packed))
            self._check_wal(checkpoint)
        except CorruptStorage as error:
            self._add(error.path, f"byte {error.position}: {error.reason}")
        return self._problems

    def _add(self, path: Path, message: str) -> None:
        self._problems.append(Problem(path, message))

    def _check_log(self, state: LogState) -> None:
        directory = self._directory / f"{state.topic}-{state.partition}"
        self._ends[state.topic_id, state.partition] = state.end_offset
        transactions = _Transactions(state.segments[0][0] if state.segments else state.end_offset)
        expected = None
        present = self._file_system.list_directory(directory)
        for packed in state.segments:
            segment = Segment.restore(directory, packed)
            segment.locate(present)
            if expected is not None and segment.base_offset != expected:
                self._add(segment.path(".log"), f"begins at offset {segment.base_offset}, not {expected}")
            expected = segment.end_offset
            self._check_segment(segment, transactions)
        if expected is not None and expected != state.end_offset:
            self._add(directory, f"the segments end at offset {expected}, the checkpoint at {state.end_offset}")
        if not 0 <= state.cleaned_offset <= state.end_offset:
            self._add(directory, f"compacted up to offset {state.cleaned_offset}, but ends at {state.end_offset}")
        if state.log_start_offset < 0 or (state.segments and state.segments[0][0] > state.log_start_offset):
            self._add(directory, f"the log starts at offset {state.log_start_offset}, before its first segment")
        if state.epochs != sorted(state.epochs) or any(epoch > state.leader_epoch for epoch, _ in state.epochs):
            self._add(directory, f"leader epochs {state.epochs} are not ascending up to {state.leader_epoch}")
        for producer_id, _, _, batches, *_ in state.producers:
            if any(batch[2] >= state.end_offset for batch in batches):
                self._add(directory, f"producer {producer_id} wrote batches that the log does not have")
        recorded = ProducerState()
        recorded.restore(state.producers)
        for message in transactions.differences(recorded.open_transactions):
            self._add(directory, message)

    def _check_segment(self, segment: Segment, transactions: "_Transactions") -> None:
        path = segment.path(".log")
        if not self._file_system.exists(path):
            if segment.size:
                self._add(path, "the file is missing")
            return
        file = self._file_system.open(path)
        try:
            if file.size() < segment.size:
                self._add(path, f"has {file.size()} bytes, not {segment.size}")
                return
            log = memoryview(file.read(0, segment.size))
        finally:
            file.close()
        self._check_batches(segment, log, transactions)
        self._check_aborted(segment, transactions)
        counts = segment.index_count, segment.time_count
        segment.load_indexes(self._file_system, log)
        self._check_indexes(segment, log, counts)

    def _check_batches(self, segment: Segment, log: memoryview, transactions: "_Transactions") -> None:
        path = segment.path(".log")
        position, expected, largest = 0, segment.base_offset, -1
        while position + BATCH_HEADER_BYTES <= len(log):
            batch = BatchHeader(log, position)
            if batch.magic != 2 or not BATCH_HEADER_BYTES <= batch.size <= len(log) - position:
                break
            # Compaction leaves gaps, but nothing behind the end of a segment's last batch.
            if batch.base_offset < expected or (batch.base_offset > expected and not segment.revision):
                self._add(path, f"byte {position}: offset {batch.base_offset}, not {expected}")
            if not crc_matches(log, batch):
                self._add(path, f"byte {position}: the checksum of the batch at offset {batch.base_offset} is wrong")
            else:
                transactions.follow(batch, log[position : position + batch.size])
            expected, largest = batch.last_offset + 1, max(largest, batch.max_timestamp)
            position += batch.size
        if position != segment.size:
            self._add(path, f"byte {position}: no batch, but the segment has {segment.size} bytes")
        elif expected != segment.end_offset:
            self._add(path, f"ends at offset {expected}, not {segment.end_offset}")
        elif largest != segment.max_timestamp:
            self._add(path, f"its largest timestamp is {largest}, not {segment.max_timestamp}")

    def _check_aborted(self, segment: Segment, transactions: "_Transactions") -> None:
        """The `.txnindex` names exactly the transactions that markers in this segment abort."""
        path, size = segment.path(".txnindex"), segment.aborted_count * ENTRY_BYTES
        entries = read_whole(self._file_system, path, size)
        if len(entries) != size or not valid_entries(entries, segment.base_offset, segment.end_offset):
            self._add(path, "the index of aborted transactions is damaged (it will be rebuilt)")
            return
        listed = {entry.last_offset: entry for entry in AbortedTransactions(entries)}
        for offset, (producer_id, first_offset) in transactions.aborted.items():
            if segment.base_offset <= offset:
                entry = listed.get(offset)
                if entry is None or entry.producer_id != producer_id or entry.first_offset > first_offset:
                    self._add(path, f"misses the transaction of producer {producer_id} that offset {offset} aborts")
        for offset in listed.keys() - transactions.abort_markers:
            self._add(path, f"names offset {offset}, where no transaction is aborted")

    def _check_indexes(self, segment: Segment, log: memoryview, counts: tuple[int, int]) -> None:
        assert segment.offsets is not None
        if segment.saved_index_count != counts[0] or segment.saved_time_count != counts[1]:
            self._add(segment.path(".index"), "the index is damaged (it will be rebuilt)")
            return
        for relative_offset, position in zip(segment.offsets, segment.positions, strict=True):
            batch = BatchHeader(log, position) if position + BATCH_HEADER_BYTES <= len(log) else None
            if batch is None or batch.last_offset - segment.base_offset != relative_offset:
                self._add(
                    segment.path(".index"), f"offset {segment.base_offset + relative_offset} is not at byte {position}"
                )
        if list(segment.timestamps) != sorted(set(segment.timestamps)):
            self._add(segment.path(".timeindex"), "the timestamps do not ascend")

    def _check_wal(self, checkpoint: Checkpoint) -> None:
        trusted = checkpoint.boot_id in ("", self._file_system.boot_id())
        wal = WalFiles(self._file_system, self._directory / WAL_DIRECTORY, 0, durable=False)
        files = wal.open_existing(tidy=False, trusted=trusted)
        try:
            replay_wal(files, checkpoint, self._check_entry, trusted=trusted)
        finally:
            for file in files:
                file.close()

    def _check_entry(self, entry: Entry, file: WalFile) -> None:
        key = entry.topic_id, entry.partition
        if entry.base_offset == CREATE:
            self._ends.setdefault(key, 0)
        elif entry.base_offset == DELETE:
            self._ends.pop(key, None)
        elif entry.base_offset >= 0 and key in self._ends:
            batch = BatchHeader(file.mapping.view, entry.position)
            if batch.base_offset > self._ends[key]:
                self._add(file.path, f"byte {entry.position}: offset {batch.base_offset} follows {self._ends[key]}")
            self._ends[key] = max(self._ends[key], batch.last_offset + 1)
