"""A stretch of the log, decoded: which texts it holds, and what became of the other records. Pure but for the model's `fit`."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from protocol.errors import KafkaError
from protocol.record_batch import BatchHeader, Record, iterate_records, walk_batches
from vector.embed.port import Float32
from vector.extract import content_hash, extract_text
from vector.index.settings import Run
from vector.request import EMBEDDING_TRUNCATED

# A run is embedded and appended as a whole, so it bounds how stale the index is while it catches up, and what a crash repeats.
RUN_RECORDS_MAX = 512
RUN_CHARACTERS_MAX = 256 * 1024
_TIME_END = 2**63

Fit = Callable[[str], tuple[str, bool]]


@dataclass(slots=True)
class Stretch:
    """Records [first, `next_offset`) of a partition, ready to be embedded; `texts` by content hash, in order of appearance."""

    offsets: list[int] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    texts: dict[bytes, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    next_offset: int = 0
    characters: int = 0

    @property
    def full(self) -> bool:
        return (
            len(self.offsets) + self.skipped.total() >= RUN_RECORDS_MAX or self.characters >= RUN_CHARACTERS_MAX
        )  # fmt: skip

    def add(self, record: Record, text: str, cut: bool) -> None:
        content = content_hash(text)
        self.offsets.append(record.offset)
        self.timestamps_ms.append(record.timestamp_ms)
        self.hashes.append(content)
        self.flags.append(EMBEDDING_TRUNCATED if cut else 0)
        if content not in self.texts:
            self.texts[content] = text
            self.characters += len(text)

    def to_run(self, vectors: dict[bytes, Float32], dimensions: int) -> Run:
        """The run to append; records whose text has no vector count as failed."""
        rows = [row for row, content in enumerate(self.hashes) if content in vectors]
        hashes = [self.hashes[row] for row in rows]
        matrix = np.empty((len(rows), dimensions), dtype=np.float32)
        for row, content in enumerate(hashes):
            matrix[row] = vectors[content]
        return Run(
            offsets=np.asarray([self.offsets[row] for row in rows], dtype=np.int64),
            timestamps_ms=np.asarray([self.timestamps_ms[row] for row in rows], dtype=np.int64),
            hashes=hashes,
            vectors=matrix,
            flags=np.asarray([self.flags[row] for row in rows], dtype=np.uint8),
            skipped=self.skipped,
            failed=self.failed + len(self.hashes) - len(rows),
            next_offset=self.next_offset,
        )


def stretches(
    batches: memoryview, first: int, next_offset: int, field_name: str, long_text: str, fit: Fit
) -> Iterator[Stretch]:
    """The records of whole batches from offset `first` up to `next_offset`, in bounded stretches; the last one ends there, even
    when it is empty. Control batches hold no records. A batch that cannot be decoded counts as failed, with all its records."""
    stretch = Stretch()
    for header in walk_batches(batches):
        if header.control or header.last_offset < first:
            continue
        try:
            records = list(iterate_records(batches[header.position : header.position + header.size]))
        except KafkaError:
            # Produce checked the batch's CRC, not what is inside; every reader fails on it alike.
            stretch.failed += header.record_count
            stretch.next_offset = header.last_offset + 1
            continue
        if not _in_order(records, header):
            stretch.failed += header.record_count
            stretch.next_offset = header.last_offset + 1
            continue
        for record in records:
            if first <= record.offset < next_offset:
                _take(stretch, record, field_name, long_text, fit)
                stretch.next_offset = record.offset + 1
                if stretch.full:
                    yield stretch
                    stretch = Stretch()
    stretch.next_offset = next_offset
    yield stretch


def _in_order(records: Iterable[Record], header: BatchHeader) -> bool:
    """Whether offsets rise within the batch's and times are int64: a producer may have written others into a large batch."""
    last = header.base_offset - 1
    for record in records:
        if not last < record.offset <= header.last_offset or not -_TIME_END <= record.timestamp_ms < _TIME_END:
            return False
        last = record.offset
    return True


def _take(stretch: Stretch, record: Record, field_name: str, long_text: str, fit: Fit) -> None:
    text, reason = extract_text(record, field_name)
    if text is None:
        stretch.skipped[reason or "empty"] += 1
        return
    fitted, cut = fit(text)
    if cut and long_text == "skip":
        stretch.skipped["too_long"] += 1
    else:
        stretch.add(record, fitted, cut)
