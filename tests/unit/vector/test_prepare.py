"""Stretches of a log whose producers lie: what no index can hold counts as failed, and its neighbours are indexed."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.crc import crc32c
from protocol.record_batch import BATCH_OVERHEAD, Record, build_batch
from vector.embed.hashing import HashingEmbedder
from vector.embed.pieces import PIECES_MAX, cut_at_characters
from vector.filter.record_fields import VECTOR_HEADER
from vector.prepare import Extraction, Stretch, stretches
from vector.request import CHUNK, EMBEDDING_TRUNCATED

TIME = 1_700_000_000_000
RECORDS = 20
DIMENSIONS = 4
WINDOW = 100


class Narrow(HashingEmbedder):
    """Reads a hundred characters."""

    max_tokens = WINDOW


def extraction(long_text: str = "truncate", *, texts: bool = True, field: str = "value") -> Extraction:
    return Extraction(field, long_text, DIMENSIONS, texts, Narrow("hashing:4", DIMENSIONS).split)


def prepared(records: list[Record], how: Extraction) -> Stretch:
    (stretch,) = stretches(memoryview(bytes(build_batch(records))), 0, len(records), how)
    return stretch


def sound(base_offset: int) -> bytearray:
    records = [Record(0, TIME, None, b"line %d" % number) for number in range(RECORDS)]
    return build_batch(records, base_offset=base_offset)


def with_base_timestamp(batch: bytearray, timestamp_ms: int) -> bytearray:
    struct.pack_into(">q", batch, 27, timestamp_ms)
    return resealed(batch)


def with_first_offset_delta(batch: bytearray, byte: int) -> bytearray:
    batch[BATCH_OVERHEAD + 3] = byte  # behind length, attributes and time
    return resealed(batch)


def resealed(batch: bytearray) -> bytearray:
    struct.pack_into(">I", batch, 17, crc32c(bytes(batch[21:])))
    return batch


def timestamps_grow(batch: bytearray) -> bytearray:
    batch[BATCH_OVERHEAD + 2] = 2  # the first record is 1 ms after the base
    return with_base_timestamp(batch, 2**63 - 1)


@pytest.mark.parametrize(
    "lie",
    [timestamps_grow, lambda batch: with_first_offset_delta(batch, 4), lambda batch: with_first_offset_delta(batch, 1)],
    ids=["time beyond int64", "offset of another record", "offset below the batch's"],
)
def test_batches_that_no_index_can_hold(lie) -> None:  # type: ignore[no-untyped-def]
    batches = memoryview(bytes(sound(0) + lie(sound(RECORDS)) + sound(2 * RECORDS)))
    (stretch,) = stretches(batches, 0, 3 * RECORDS, extraction())
    assert stretch.offsets == [*range(RECORDS), *range(2 * RECORDS, 3 * RECORDS)]
    assert [(failure.offset, failure.records) for failure in stretch.failures] == [(RECORDS, RECORDS)]
    assert stretch.to_run({}, DIMENSIONS).failed == 3 * RECORDS
    assert stretch.next_offset == 3 * RECORDS


@given(st.integers(1, 300), st.sampled_from(["", " ", "\n", "   "]), st.integers(30, 300), st.integers(1, 20))
def test_pieces_cover_a_text_and_overlap(words: int, between: str, characters: int, pieces_max: int) -> None:
    """What stands at a cut is whole in one of its neighbours; only what is said to be left out is left out."""
    text = between.join(f"{number:05d}" for number in range(words))
    pieces, complete = cut_at_characters(text, characters, pieces_max)
    assert len(pieces) <= pieces_max
    assert all(piece.strip() and len(piece) <= characters for piece in pieces)
    reached = 0
    for piece in pieces:
        begin = text.rindex(piece) if text.endswith(piece) else text.index(piece)
        assert not text[reached:begin].strip()
        reached = begin + len(piece)
    assert complete is (not text[reached:].strip())


def test_a_long_text_becomes_pieces_of_one_record() -> None:
    long = " ".join(f"word{number}" for number in range(100)).encode()
    records = [Record(0, TIME, None, b"short"), Record(1, TIME, None, long)]
    stretch = prepared(records, extraction("chunk"))
    assert stretch.offsets[0] == 0
    assert set(stretch.offsets[1:]) == {1}
    assert len(stretch.offsets) > 5
    assert stretch.flags == [0, *[CHUNK] * (len(stretch.offsets) - 1)]
    vectors = {content: np.ones(DIMENSIONS, np.float32) for content in stretch.texts}
    run = stretch.to_run(vectors, DIMENSIONS)
    assert (len(run.offsets), run.failed) == (len(stretch.offsets), 0)


def test_a_record_with_one_refused_piece_is_failed_as_a_whole_and_once() -> None:
    long = " ".join(f"word{number}" for number in range(100)).encode()
    stretch = prepared([Record(0, TIME, None, b"short"), Record(1, TIME, None, long)], extraction("chunk"))
    contents = list(stretch.texts)
    vectors = {content: np.ones(DIMENSIONS, np.float32) for content in contents[:-1]}
    run = stretch.to_run(vectors, DIMENSIONS)
    assert run.offsets.tolist() == [0]
    assert run.failed == 1
    (failure,) = stretch.refused({contents[-1]: "refused"})
    assert (failure.offset, failure.reason) == (1, "refused")


def test_what_is_cut_or_skipped_is_never_cut_or_skipped_silently() -> None:
    """Ollama cut 180 KB to 2048 tokens and answered 200 OK (its PR 17543)."""
    records = [Record(0, TIME, None, b"word " * 1000)]
    assert prepared(records, extraction("truncate")).flags == [EMBEDDING_TRUNCATED]
    assert prepared(records, extraction("skip")).skipped == {"too_long": 1}


def test_a_text_of_ten_megabytes_is_bounded_and_flagged() -> None:
    records = [Record(0, TIME, None, b" ".join(b"%d" % number for number in range(1_500_000)))]
    stretch = prepared(records, extraction("chunk"))
    assert len(stretch.offsets) == PIECES_MAX
    assert set(stretch.flags) == {CHUNK | EMBEDDING_TRUNCATED}


def vector_record(offset: int, data: bytes, value: bytes | None = b"text") -> Record:
    return Record(offset, TIME, None, value, [(VECTOR_HEADER, data)])


def test_vectors_that_producers_send_are_used_as_they_are_or_fail_with_their_reason() -> None:
    """A vector of another length, NaN or zero would be searched, or rank first (spiceai 11621, qdrant 2530)."""
    good = np.array([1, 2, 3, 4], "<f4")
    records = [
        vector_record(0, good.tobytes()),
        vector_record(1, good[:3].tobytes()),
        vector_record(2, np.array([1, np.nan, 0, 0], "<f4").tobytes()),
        vector_record(3, np.zeros(4, "<f4").tobytes()),
        vector_record(4, b"abc"),
        vector_record(5, good.tobytes(), value=None),
        Record(6, TIME, None, b"only text"),
        Record(7, TIME, None, None),
    ]
    stretch = prepared(records, extraction(texts=False))
    assert stretch.offsets == [0, 5]
    run = stretch.to_run(stretch.vectors, DIMENSIONS)
    assert np.array_equal(run.vectors, np.vstack([good, good]))
    assert [failure.offset for failure in stretch.failures] == [1, 2, 3, 4]
    reasons = [failure.reason for failure in stretch.failures]
    assert "12 bytes, expected 16" in reasons[0]
    assert "NaN" in reasons[1]
    assert "zero" in reasons[2]
    assert stretch.skipped == {"no_vector": 1, "tombstone": 1}
    with_model = prepared(records, extraction())
    assert with_model.offsets == [0, 5, 6]
    assert list(with_model.texts.values()) == ["only text"]
