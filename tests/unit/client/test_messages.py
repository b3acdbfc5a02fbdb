"""The client's own encoding of key 100 is the server's, byte for byte."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from senselog_client.messages import VectorSearchRequest, VectorSearchResponse
from senselog_client.request import build_request

from protocol import codec, messages
from protocol.api_keys import ApiKey

KEY = ApiKey.VECTOR_SEARCH

int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(max_size=20)
data = st.binary(max_size=40)
doubles = st.floats(allow_nan=False)
points = st.fixed_dictionaries(
    {"text": st.none() | text, "vector": st.none() | data, "partition": int32, "offset": int64}
)


def _client_request(fields: dict) -> VectorSearchRequest:
    kind = VectorSearchRequest
    query = kind.SearchQuery
    queries = [
        query(
            **item["point"],
            positive=[query.PositiveExample(**point) for point in item["positive"]],
            negative=[query.NegativeExample(**point) for point in item["negative"]],
        )
        for item in fields["queries"]
    ]
    ranges = [kind.OffsetRange(partition=a, from_offset=b, until_offset=c) for a, b, c in fields["ranges"]]
    minimums = [kind.MinOffset(partition=a, offset=b) for a, b in fields["min_offsets"]]
    return kind(version=0, queries=queries, offset_ranges=ranges, min_offsets=minimums, **fields["plain"])


def _server_request(fields: dict) -> messages.Message:
    kind = messages.VectorSearchRequest
    queries = [
        kind.Query(
            **item["point"],
            positive=[kind.Example(**point) for point in item["positive"]],
            negative=[kind.Example(**point) for point in item["negative"]],
        )
        for item in fields["queries"]
    ]
    ranges = [kind.OffsetRange(partition=a, from_offset=b, until_offset=c) for a, b, c in fields["ranges"]]
    minimums = [kind.MinOffset(partition=a, offset=b) for a, b in fields["min_offsets"]]
    plain = fields["plain"] | {"topic_id": fields["plain"]["topic_id"].bytes}
    return kind(queries=queries, offset_ranges=ranges, min_offsets=minimums, **plain)


requests = st.fixed_dictionaries(
    {
        "queries": st.lists(
            st.fixed_dictionaries(
                {"point": points, "positive": st.lists(points, max_size=2), "negative": st.lists(points, max_size=2)}
            ),
            max_size=3,
        ),
        "ranges": st.lists(st.tuples(int32, int64, int64), max_size=3),
        "min_offsets": st.lists(st.tuples(int32, int64), max_size=3),
        "plain": st.fixed_dictionaries(
            {
                "topic_name": st.none() | text,
                "topic_id": st.uuids(),
                "mode": st.integers(-128, 127),
                "limit": int32,
                "min_similarity": doubles,
                "partitions": st.none() | st.lists(int32, max_size=4),
                "from_timestamp": int64,
                "until_timestamp": int64,
                "filter": st.none() | text,
                "collapse": st.none() | text,
                "latest": st.booleans(),
                "max_wait_ms": int32,
                "partial_ok": st.booleans(),
                "isolation_level": st.integers(-128, 127),
                "include": st.integers(-(2**15), 2**15 - 1),
                "max_value_bytes": int32,
                "exact": st.booleans(),
                "ef": int32,
                "cursor": st.none() | data,
                "timeout_ms": int32,
            }
        ),
    }
)


@given(requests)
def test_a_request_has_the_bytes_of_the_servers_codec(fields: dict) -> None:
    encoded = bytes(_client_request(fields).encode(version=0))
    assert encoded == b"".join(bytes(part) for part in codec.encode_request(KEY, 0, _server_request(fields)))
    codec.decode_request(KEY, 0, memoryview(encoded))


hits = st.fixed_dictionaries(
    {
        "partition": int32,
        "offset": int64,
        "leader_epoch": int32,
        "timestamp": int64,
        "score": doubles,
        "similarity": doubles,
        "text_score": doubles,
        "vector_rank": int32,
        "text_rank": int32,
        "duplicates": int64,
        "flags": st.integers(0, 127),
        "key": st.none() | data,
        "value": st.none() | data,
        "vector": st.none() | data,
    }
)
states = st.fixed_dictionaries(
    {
        "partition": int32,
        "error_code": st.integers(-1, 133),
        "log_start_offset": int64,
        "high_watermark": int64,
        "last_stable_offset": int64,
        "indexed_offset": int64,
        "lag_ms": int64,
        "failed": int64,
        "searched": st.booleans(),
    }
)


@given(
    st.lists(hits, max_size=3),
    st.lists(states, max_size=3),
    st.none() | text,
    st.lists(st.tuples(text, st.none() | data), max_size=3),
)
def test_a_response_of_the_server_reads_back_field_by_field(
    hits: list, states: list, model: str, headers: list
) -> None:
    kind = messages.VectorSearchResponse
    names = _nested_names(kind)
    topic_id = uuid.uuid4()
    response = kind(
        topic_id=topic_id.bytes,
        model=model,
        dimensions=384,
        complete=True,
        embed_micros=7,
        results=[
            names["results"](
                hits=[
                    names["hits"](**hit, headers=[names["headers"](name=n, value=v) for n, v in headers])
                    for hit in hits
                ]
            )
        ],
        partition_states=[names["partition_states"](**state) for state in states],
    )
    encoded = b"".join(bytes(part) for part in codec.encode_response(KEY, 0, response))
    decoded = VectorSearchResponse.decode(encoded, version=0)
    assert (decoded.topic_id, decoded.model, decoded.dimensions, decoded.embed_micros) == (topic_id, model, 384, 7)
    for hit, found in zip(hits, decoded.results[0].hits, strict=True):
        assert {name: getattr(found, name) for name in hit} == hit
        assert [(header.name, header.value) for header in found.headers] == headers
    for state, found in zip(states, decoded.partition_states, strict=True):
        assert {name: getattr(found, name) for name in state} == state


def _nested_names(kind: type) -> dict[str, type]:
    """The server names its nested classes itself; the wire does not."""
    return {
        "results": kind.Result,
        "hits": kind.Hit,
        "headers": kind.Header,
        "partition_states": kind.PartitionState,
    }


def test_filters_become_fields_and_the_rest_travels_as_json() -> None:
    request = build_request(
        "logs",
        [{"text": "x"}],
        filter={"partition": 0, "min_offset": 1000, "max_offset": 5000, "timestamp": {"gt": 9}, "key": {"eq": "a"}},
    )
    assert request.partitions == [0]
    assert [(r.partition, r.from_offset, r.until_offset) for r in request.offset_ranges] == [(-1, 1000, 5001)]
    assert (request.from_timestamp, request.until_timestamp) == (10, -1)
    assert request.filter == '{"key": {"eq": "a"}}'


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limits": 3}, "no option 'limits'"),
        ({"mode": "fuzzy"}, "mode: 'fuzzy'"),
        ({"include": ["values"]}, "include: 'values'"),
        ({"filter": {"offset": {"from": 1}}}, "filter.offset: unknown bound 'from'"),
        ({"filter": {"max_offset": -2}}, "filter.max_offset: -2"),
        ({"filter": {"min_offset": -1}}, "filter.min_offset: -1"),
        ({"filter": {"timestamp": {"lt": -1}}}, "filter.timestamp.lt: -1"),
        ({"filter": {"offset": {"lte": -2}}}, "filter.offset.lte: -2"),
        ({"filter": {"offsets": {"0": {"gt": -2}}}}, "filter.offsets.0.gt: -2"),
    ],
)
def test_names_and_bounds_that_do_not_exist_are_refused(options: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        build_request("logs", [{"text": "x"}], **options)


def test_of_two_bounds_on_one_side_the_narrower_holds() -> None:
    """The later one replaced the other, so records outside the filter were hits."""
    for bounds in ({"gte": 10, "gt": 4, "lt": 20, "lte": 30}, {"gt": 4, "gte": 10, "lte": 30, "lt": 20}):
        request = build_request("logs", [{"text": "x"}], filter={"offset": bounds, "timestamp": bounds})
        assert [(one.from_offset, one.until_offset) for one in request.offset_ranges] == [(10, 20)]
        assert (request.from_timestamp, request.until_timestamp) == (10, 20)
