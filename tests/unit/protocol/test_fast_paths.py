"""Produce and Fetch by hand, held equal to the compiled codec, for every version and for damaged bytes too."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import codec
from protocol.api_keys import ApiKey
from protocol.errors import MalformedMessage
from protocol.messages import FetchRequest, FetchResponse, ProduceRequest, ProduceResponse
from tests.unit.protocol.generated import messages

CASES = [(ApiKey.PRODUCE, version) for version in range(9, 14)] + [(ApiKey.FETCH, version) for version in range(12, 19)]
cases = pytest.mark.parametrize(("key", "version"), CASES, ids=[f"{key.name}-v{version}" for key, version in CASES])
some = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def generic_request(key: ApiKey, version: int) -> Any:
    return codec._compiled_decoder(f"{key.message_name}Request", version)


def outcome(decode: Callable[[], Any]) -> Any:
    try:
        return decode()
    except MalformedMessage:
        return MalformedMessage


def assert_decoded_alike(key: ApiKey, version: int, data: bytes) -> None:
    expected = outcome(lambda: codec._decode(generic_request(key, version), data, 0))
    assert outcome(lambda: codec.decode_request(key, version, data)) == expected


@cases
@some
@given(data=st.data())
def test_requests_are_decoded_as_by_the_compiled_codec(data: st.DataObject, key: ApiKey, version: int) -> None:
    message = data.draw(messages(key, version, "Request"))
    encoded = bytearray(b"".join(codec.encode_request(key, version, message)))
    assert_decoded_alike(key, version, bytes(encoded))
    assert_decoded_alike(key, version, bytes(encoded[: data.draw(st.integers(0, len(encoded)))]))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    assert_decoded_alike(key, version, bytes(encoded))


@cases
@some
@given(data=st.data())
def test_responses_are_encoded_as_by_the_compiled_codec(data: st.DataObject, key: ApiKey, version: int) -> None:
    message = data.draw(messages(key, version, "Response"))
    generic = codec._compiled_encoder(f"{key.message_name}Response", version)
    assert b"".join(codec.encode_response(key, version, message)) == b"".join(generic(message))


def usual_produce(record_bytes: int, partitions: int = 1) -> tuple[ProduceRequest, ProduceResponse]:
    request_data, response_data = ProduceRequest.PartitionProduceData, ProduceResponse.PartitionProduceResponse
    request = ProduceRequest(
        acks=-1,
        timeout_ms=30_000,
        topic_data=[
            ProduceRequest.TopicProduceData(
                name="topic",
                topic_id=bytes(range(16)),
                partition_data=[request_data(index=i, records=b"r" * record_bytes) for i in range(partitions)],
            )
        ],
    )
    response = ProduceResponse(
        responses=[
            ProduceResponse.TopicProduceResponse(
                name="topic",
                topic_id=bytes(range(16)),
                partition_responses=[response_data(index=i, base_offset=10 * i) for i in range(partitions)],
            )
        ]
    )
    return request, response


@pytest.mark.parametrize("version", range(9, 14))
@pytest.mark.parametrize(
    ("record_bytes", "partitions"),
    [(0, 1), (126, 1), (127, 2), (16_382, 1), (16_383, 2), (20_000, 1), (2_100_000, 1), (70, 126), (10, 3000)],
)
def test_the_usual_produce_of_all_sizes(version: int, record_bytes: int, partitions: int) -> None:
    request, response = usual_produce(record_bytes, partitions)
    encoded = b"".join(codec.encode_request(ApiKey.PRODUCE, version, request))
    assert_decoded_alike(ApiKey.PRODUCE, version, encoded)
    records = codec.decode_request(ApiKey.PRODUCE, version, encoded).topic_data[0].partition_data[-1].records
    assert records == b"r" * record_bytes
    generic = codec._compiled_encoder("ProduceResponse", version)
    assert codec.encode_response(ApiKey.PRODUCE, version, response) == generic(response)


@pytest.mark.parametrize("version", range(12, 19))
@pytest.mark.parametrize("partitions", [1, 2, 127, 128, 3000])
def test_the_usual_fetch(version: int, partitions: int) -> None:
    topic = FetchRequest.FetchTopic(
        topic="topic",
        topic_id=bytes(range(16)),
        partitions=[FetchRequest.FetchPartition(partition=i, fetch_offset=i) for i in range(partitions)],
    )
    request = FetchRequest(max_wait_ms=500, min_bytes=1, session_id=5, session_epoch=2, topics=[topic], rack_id="r")
    encoded = b"".join(codec.encode_request(ApiKey.FETCH, version, request))
    assert_decoded_alike(ApiKey.FETCH, version, encoded)
    data = [
        FetchResponse.PartitionData(
            partition_index=i,
            high_watermark=9,
            aborted_transactions=None if i % 2 else [],
            records=[None, b"", b"abc", [b"abc", memoryview(b"def")], memoryview(b"x" * 300)][i % 5],
        )
        for i in range(partitions)
    ]
    topic_response = FetchResponse.FetchableTopicResponse(topic="topic", topic_id=bytes(range(16)), partitions=data)
    response = FetchResponse(session_id=5, responses=[topic_response])
    generic = codec._compiled_encoder("FetchResponse", version)
    assert codec.encode_response(ApiKey.FETCH, version, response) == generic(response)
