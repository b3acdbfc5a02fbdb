"""Pre-encoded requests for the raw loads, and the checks of their answers."""

import struct
import time
from collections.abc import Callable

from protocol.api_keys import ApiKey
from protocol.codec import decode_response, encode_request
from protocol.messages import FetchRequest, ProduceRequest
from protocol.records import Record, build_batch

PRODUCE_VERSION = 9
FETCH_VERSION = 12
CLIENT_ID = b"bench"
TIMESTAMP_MS = int(time.time() * 1000)  # an old time would fall to retention


def frame(key: ApiKey, version: int, body: list[bytes]) -> bytes:
    """A whole flexible request (header v2) with its length prefix; correlation id 1."""
    payload = struct.pack(">hhih", key, version, 1, len(CLIENT_ID)) + CLIENT_ID + b"\0" + b"".join(body)
    return struct.pack(">i", len(payload)) + payload


def produce_frame(topic: str, partition: int, batch: bytes, *, acks: int = -1) -> bytes:
    """A Produce v9 request of one record batch."""
    request = ProduceRequest(
        transactional_id=None,
        acks=acks,
        timeout_ms=30_000,
        topic_data=[
            ProduceRequest.TopicProduceData(
                name=topic,
                partition_data=[ProduceRequest.PartitionProduceData(index=partition, records=memoryview(batch))],
            )
        ],
    )
    return frame(
        ApiKey.PRODUCE,
        PRODUCE_VERSION,
        [bytes(part) for part in encode_request(ApiKey.PRODUCE, PRODUCE_VERSION, request)],
    )


def record_batch(records: int, value_bytes: int) -> bytes:
    """An uncompressed batch of `records` records with incompressible-looking values of `value_bytes` bytes."""
    value = bytes(range(256)) * (value_bytes // 256 + 1)
    return bytes(build_batch([Record(0, TIMESTAMP_MS, None, value[:value_bytes])] * records))


def fetch_frame(topic: str, partition: int, offset: int, max_bytes: int) -> bytes:
    """A Fetch v12 request of one partition, sessionless, answered at once."""
    request = FetchRequest(
        replica_id=-1,
        max_wait_ms=0,
        min_bytes=0,
        max_bytes=max_bytes,
        session_epoch=-1,
        topics=[
            FetchRequest.FetchTopic(
                topic=topic,
                partitions=[
                    FetchRequest.FetchPartition(partition=partition, fetch_offset=offset, partition_max_bytes=max_bytes)
                ],
            )
        ],
    )
    return frame(
        ApiKey.FETCH, FETCH_VERSION, [bytes(part) for part in encode_request(ApiKey.FETCH, FETCH_VERSION, request)]
    )


def check_produce() -> Callable[[memoryview], None]:
    """A check for answers to one `produce_frame`: decodes the first one, then holds the others to its error-code position."""
    position = 0

    def check(response: memoryview) -> None:
        nonlocal position
        if not position:
            answer = decode_response(ApiKey.PRODUCE, PRODUCE_VERSION, response, 5)
            (topic,) = answer.responses
            (partition,) = topic.partition_responses
            if partition.error_code:
                raise RuntimeError(f"produce refused with error {partition.error_code}")
            # header 5, array 1, name 1 + n, array 1, index 4
            position = 5 + 1 + 1 + len(topic.name.encode()) + 1 + 4
        if response[position] or response[position + 1]:
            raise RuntimeError(f"produce refused with error {int.from_bytes(response[position : position + 2], 'big')}")

    return check


def check_fetch(bytes_min: int) -> Callable[[memoryview], None]:
    """A check for answers to one `fetch_frame`: no error, and at least `bytes_min` bytes of records."""

    def check(response: memoryview) -> None:
        # header 5, throttle 4, error 2
        if response[9] or response[10]:
            raise RuntimeError(f"fetch refused with error {int.from_bytes(response[9:11], 'big')}")
        if len(response) < bytes_min:
            answer = decode_response(ApiKey.FETCH, FETCH_VERSION, response, 5)
            raise RuntimeError(
                f"fetch answered {len(response)} bytes, wanted {bytes_min}: {answer.responses[0].partitions[0].error_code}"
            )

    return check
