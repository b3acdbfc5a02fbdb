"""Stretches of a log whose producers lie: what no index can hold counts as failed, and its neighbours are indexed."""

import struct

import pytest

from protocol.crc import crc32c
from protocol.record_batch import BATCH_OVERHEAD, Record, build_batch
from vector.prepare import stretches

TIME = 1_700_000_000_000
RECORDS = 20


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
    (stretch,) = stretches(batches, 0, 3 * RECORDS, "value", "truncate", lambda text: (text, False))
    assert stretch.offsets == [*range(RECORDS), *range(2 * RECORDS, 3 * RECORDS)]
    assert stretch.failed == RECORDS
    assert stretch.next_offset == 3 * RECORDS
