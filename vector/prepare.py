"""A stretch of the log, decoded: which texts it holds, and what became of the other records. Pure but for the model's `split`."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from protocol.errors import KafkaError
from protocol.record_batch import BatchHeader, Record, iterate_records, walk_batches
from vector.arrays import Float32
from vector.embed.pieces import PIECES_MAX
from vector.extract import content_hash, extract_text, last_header, read_vector, vector_hash
from vector.filter.record_fields import VECTOR_HEADER, RecordFields, record_fields
from vector.index.fields import fields_of
from vector.index.settings import Run
from vector.request import CHUNK, EMBEDDING_TRUNCATED

# A run is embedded and appended as a whole, so it bounds how stale the index is while it catches up, and what a crash repeats.
RUN_RECORDS_MAX = 512
RUN_CHARACTERS_MAX = 256 * 1024
_TIME_END = 2**63


@dataclass(frozen=True, slots=True)
class Extraction:
    """What of a record is indexed. `texts` False: only vectors that producers sent; `split` is the model's (vector.embed.port)."""

    field: str
    long_text: str
    dimensions: int
    texts: bool
    split: Callable[[str, int], tuple[list[str], bool]]


@dataclass(frozen=True, slots=True)
class Failure:
    """A record that could not be indexed, or, where a batch cannot be decoded, `records` of them from this offset on."""

    offset: int
    reason: str
    records: int = 1


@dataclass(slots=True)
class Stretch:
    """Records [first, `next_offset`) of a partition, ready to be embedded: a row for each piece of a text and for each vector that
    was sent. `texts` and `vectors` (float32[d]) by content hash, in order of appearance."""

    offsets: list[int] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    fields: dict[int, RecordFields] = field(default_factory=dict)
    """By offset; what filters may ask for."""
    texts: dict[bytes, str] = field(default_factory=dict)
    vectors: dict[bytes, Float32] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    next_offset: int = 0
    characters: int = 0

    @property
    def full(self) -> bool:
        return (
            len(self.offsets) + self.skipped.total() + len(self.failures) >= RUN_RECORDS_MAX
            or self.characters >= RUN_CHARACTERS_MAX
        )

    def add(self, record: Record, content: bytes, flags: int) -> None:
        self.offsets.append(record.offset)
        if record.offset not in self.fields:
            self.fields[record.offset] = record_fields(record.key, record.value, record.headers)
        self.timestamps_ms.append(record.timestamp_ms)
        self.hashes.append(content)
        self.flags.append(flags)

    def add_text(self, record: Record, text: str, flags: int) -> None:
        content = content_hash(text)
        self.add(record, content, flags)
        if content not in self.texts:
            self.texts[content] = text
            self.characters += len(text)

    def refused(self, reasons: Mapping[bytes, str]) -> list[Failure]:
        """Every failure, in order of offsets, when these contents have no vector for these reasons."""
        failed: dict[int, str] = {}
        for offset, content in zip(self.offsets, self.hashes, strict=True):
            if content in reasons:
                failed.setdefault(offset, reasons[content])
        found = [Failure(offset, reason) for offset, reason in failed.items()]
        return sorted([*self.failures, *found], key=lambda failure: failure.offset)

    def to_run(self, vectors: Mapping[bytes, Float32], dimensions: int) -> Run:
        """The run to append; a record one of whose contents has no vector counts as failed, with all its pieces."""
        failed = {offset for offset, content in zip(self.offsets, self.hashes, strict=True) if content not in vectors}
        rows = [row for row, offset in enumerate(self.offsets) if offset not in failed]
        hashes = [self.hashes[row] for row in rows]
        matrix = np.empty((len(rows), dimensions), dtype=np.float32)
        for row, content in enumerate(hashes):
            matrix[row] = vectors[content]
        offsets = [self.offsets[row] for row in rows]
        return Run(
            offsets=np.asarray(offsets, dtype=np.int64),
            timestamps_ms=np.asarray([self.timestamps_ms[row] for row in rows], dtype=np.int64),
            hashes=hashes,
            vectors=matrix,
            flags=np.asarray([self.flags[row] for row in rows], dtype=np.uint8),
            skipped=self.skipped,
            failed=len(failed) + sum(failure.records for failure in self.failures),
            next_offset=self.next_offset,
            fields=fields_of([self.fields[offset] for offset in dict.fromkeys(offsets)]),
            texts=self.texts,
        )


def stretches(batches: memoryview, first: int, next_offset: int, extraction: Extraction) -> Iterator[Stretch]:
    """The records of whole batches from offset `first` up to `next_offset`, in bounded stretches; the last one ends there, even
    when it is empty. Control batches hold no records. A batch that cannot be decoded counts as failed, with all its records."""
    stretch = Stretch()
    for header in walk_batches(batches):
        if header.control or header.last_offset < first:
            continue
        try:
            records = list(iterate_records(batches[header.position : header.position + header.size]))
        except KafkaError as error:
            # Produce checked the batch's CRC, not what is inside; every reader fails on it alike.
            _give_up(stretch, header, f"its batch cannot be decoded: {error.message}")
            continue
        if not _in_order(records, header):
            _give_up(stretch, header, "its batch holds offsets or times that cannot be")
            continue
        for record in records:
            if first <= record.offset < next_offset:
                _take(stretch, record, extraction)
                stretch.next_offset = record.offset + 1
                if stretch.full:
                    yield stretch
                    stretch = Stretch()
    stretch.next_offset = next_offset
    yield stretch


def _give_up(stretch: Stretch, header: BatchHeader, reason: str) -> None:
    stretch.failures.append(Failure(header.base_offset, reason, header.record_count))
    stretch.next_offset = header.last_offset + 1


def _in_order(records: Iterable[Record], header: BatchHeader) -> bool:
    """Whether offsets rise within the batch's and times are int64: a producer may have written others into a large batch."""
    last = header.base_offset - 1
    for record in records:
        if not last < record.offset <= header.last_offset or not -_TIME_END <= record.timestamp_ms < _TIME_END:
            return False
        last = record.offset
    return True


def _take(stretch: Stretch, record: Record, extraction: Extraction) -> None:
    sent = last_header(record.headers, VECTOR_HEADER)
    if sent is not None:
        _take_vector(stretch, record, sent, extraction.dimensions)
        return
    if not extraction.texts:
        stretch.skipped["no_vector" if record.value is not None else "tombstone"] += 1
        return
    text, reason = extract_text(record, extraction.field)
    if text is None:
        stretch.skipped[reason or "empty"] += 1
        return
    pieces, complete = extraction.split(text, PIECES_MAX if extraction.long_text == "chunk" else 1)
    if not complete and extraction.long_text == "skip":
        stretch.skipped["too_long"] += 1
        return
    flags = (CHUNK if len(pieces) > 1 else 0) | (0 if complete else EMBEDDING_TRUNCATED)
    for piece in dict.fromkeys(pieces):
        stretch.add_text(record, piece, flags)


def _take_vector(stretch: Stretch, record: Record, sent: bytes, dimensions: int) -> None:
    try:
        vector = read_vector(sent, dimensions)
    except ValueError as error:
        stretch.failures.append(Failure(record.offset, str(error)))
        return
    content = vector_hash(sent)
    stretch.add(record, content, 0)
    stretch.vectors[content] = vector
