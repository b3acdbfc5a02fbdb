"""broker.recompression: the codec changes, the records do not."""

import pytest

from broker.recompression import recompressed
from protocol.compression import Compression
from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import BatchHeader, parse_batches
from protocol.records import Record, build_batch, iterate_records

RECORDS = [Record(i, 1000 + i, b"k%d" % i, b"value" * i, [("h", b"x")]) for i in range(10)]


@pytest.mark.parametrize("target", list(Compression))
@pytest.mark.parametrize("source", list(Compression))
def test_records_and_header_stay_as_they_were(source: Compression, target: Compression) -> None:
    before = memoryview(build_batch(RECORDS, codec=source, producer_id=7, producer_epoch=1, base_sequence=5))
    after = recompressed(before, BatchHeader(before), target)
    (header,) = parse_batches(after)  # checks length and checksum
    assert header.compression == target
    assert list(iterate_records(after)) == list(iterate_records(before))
    assert (header.producer_id, header.producer_epoch, header.base_sequence, header.max_timestamp) == (7, 1, 5, 1009)


def test_records_that_are_not_what_the_header_says_are_refused() -> None:
    batch = memoryview(build_batch(RECORDS))
    batch[-1] ^= 0xFF
    batch[70] ^= 0xFF
    with pytest.raises(KafkaError) as caught:
        recompressed(batch, BatchHeader(batch), Compression.GZIP)
    assert caught.value.code in (ErrorCode.INVALID_RECORD, ErrorCode.CORRUPT_MESSAGE)
