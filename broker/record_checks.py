"""Which batches have their records checked, and how: small ones wholly, of large ones only how the payload begins.

Kafka checks every record. Here that costs 1.5 microseconds for each, several times what the rest of a large batch costs, so
large batches are taken as their header describes them; readers (consumers, the indexer) then meet what is wrong.
"""

from protocol.batch_header import CODEC_MASK
from protocol.compression import ExpandsTooFar, decompress, opening_fits
from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import BATCH_OVERHEAD, BatchHeader, Compression
from protocol.record_walk import walk_compressed, walk_plain

# A plain batch is walked if it has few records or few bytes.
WALKED_RECORDS_MAX = 8
WALKED_BYTES_MAX = 512
# A compressed one if it has few records and few bytes, and does not expand to many.
WALKED_COMPRESSED_RECORDS_MAX = 16
WALKED_COMPRESSED_BYTES_MAX = 2048
WALKED_PAYLOAD_BYTES_MAX = 64 * 1024


def record_times(records: memoryview, batch: BatchHeader) -> tuple[int, int] | None:
    """(earliest, latest) timestamp in ms among the records at the start of `records`; None if they were not walked.

    Raises KafkaError, with Kafka's codes: INVALID_RECORD for records that do not fit the header's count, UNKNOWN_SERVER_ERROR
    for a payload that does not fit its codec.
    """
    codec = batch.attributes & CODEC_MASK
    count, size = batch.record_count, batch.size
    if not codec:
        if count > WALKED_RECORDS_MAX and size > WALKED_BYTES_MAX:
            return None
        earliest, latest = walk_plain(records[BATCH_OVERHEAD:size], count)
    else:
        payload = records[BATCH_OVERHEAD:size]
        if not payload and codec == Compression.ZSTD:
            raise KafkaError(ErrorCode.INVALID_RECORD)  # an empty stream, not a damaged one as for the other codecs
        if codec > Compression.ZSTD or not opening_fits(codec, payload):
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
        if count > WALKED_COMPRESSED_RECORDS_MAX or size > WALKED_COMPRESSED_BYTES_MAX:
            return None
        try:
            plain = decompress(codec, payload, WALKED_PAYLOAD_BYTES_MAX)
        except ExpandsTooFar:
            return None
        except KafkaError:
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR) from None
        earliest, latest = walk_compressed(plain, count)
    if batch.log_append_time:
        return batch.max_timestamp, batch.max_timestamp
    return batch.base_timestamp + earliest, batch.base_timestamp + latest
