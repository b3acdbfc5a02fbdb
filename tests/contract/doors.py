"""Five ways to ask the same: key 100 by hand, both Python clients, REST, gRPC. Each takes a case and gives a comparable outcome.

A case is asked in the words of `SenselogClient.search_batch`; every door translates it to its own.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from senselog_client import AsyncSenselogClient, SearchError, SenselogClient
from senselog_client.request import build_request, vector_bytes
from senselog_client.result import SearchResult, parse_results
from senselog_client.v1 import vector_search_pb2 as messages
from senselog_client.v1.vector_search_pb2_grpc import VectorSearchStub

from protocol.codec import decode_request
from tests.broker_process import BrokerProcess
from tests.integration.raw import RawConnection

VECTOR_SEARCH = 100
TIMEOUT_S = 60


@dataclass(frozen=True)
class Refusal:
    """An error of the whole request; `message` is empty where a door found it by itself, in words of its own."""

    code: int
    retriable: bool
    message: str


@dataclass(frozen=True)
class Answer:
    """`queries`: hits, cursor and Kafka's error code of each."""

    queries: tuple[tuple[tuple[tuple[Any, ...], ...], bytes | None, int], ...]
    complete: bool
    model: tuple[Any, ...]
    states: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Case:
    """A search of `topic`. `hits`: how many each query finds, None: as many as it may; `code`: Kafka's, of the refusal."""

    name: str
    topic: str
    queries: tuple[Any, ...]
    options: Mapping[str, Any]
    hits: int | None = None
    code: int = 0


Ask = Callable[[BrokerProcess, Case], Any]


def _queries(case: Case) -> list[dict[str, Any]]:
    return [{"text": query} if isinstance(query, str) else dict(query) for query in case.queries]


# Key 100


def _results(found: list[SearchResult]) -> Answer:
    first = found[0]
    return Answer(
        queries=tuple((tuple(_hit(hit) for hit in result), result.cursor, 0) for result in found),
        complete=first.complete,
        model=(first.model, first.dimensions, first.metric, first.generation),
        states=tuple(
            (s.partition, s.log_start_offset, s.high_watermark, s.last_stable_offset, s.indexed_offset, s.failed,
             int(s.searched), int(s.error_code))
            for s in first.freshness
        ),
    )  # fmt: skip


def _hit(hit: Any) -> tuple[Any, ...]:
    vector = None if hit.vector is None else tuple(hit.vector)
    return (
        hit.partition, hit.offset, hit.leader_epoch, hit.timestamp_ms, hit.score, hit.similarity, hit.text_score,
        hit.vector_rank, hit.text_rank, hit.duplicates, hit.truncated, hit.chunk, hit.value_cut, hit.key, hit.value,
        hit.headers, vector,
    )  # fmt: skip


def by_hand(broker: BrokerProcess, case: Case) -> Answer | Refusal:
    """A frame of bytes over a socket, decoded by the server's own codec."""
    encoded = build_request(case.topic, _queries(case), **case.options).encode(version=0)
    request = decode_request(VECTOR_SEARCH, 0, memoryview(bytearray(encoded)))
    with RawConnection(broker.bootstrap) as connection:
        response = connection.call(VECTOR_SEARCH, 0, request)
    try:
        return _results(parse_results(response))
    except SearchError as error:
        return _refusal(error)


def _refusal(error: SearchError) -> Refusal:
    return Refusal(error.code, error.retriable, str(error))


def sync_client(broker: BrokerProcess, case: Case) -> Answer | Refusal:
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
        try:
            return _results(client.search_batch(case.topic, _queries(case), **case.options))
        except SearchError as error:
            return _refusal(error)


async def async_client(broker: BrokerProcess, case: Case) -> Answer | Refusal:
    async with AsyncSenselogClient(bootstrap_servers=broker.bootstrap) as client:
        try:
            return _results(await client.search_batch(case.topic, _queries(case), **case.options))
        except SearchError as error:
            return _refusal(error)


# REST


def _rest_example(example: Any) -> dict[str, Any]:
    if isinstance(example, str):
        return {"text": example}
    if isinstance(example, tuple) and len(example) == 2 and all(isinstance(number, int) for number in example):
        return {"record": {"partition": example[0], "offset": example[1]}}
    return {"vector": [float(number) for number in example]}


def _rest_query(query: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, value in query.items():
        if name in ("positive", "negative"):
            shown[name] = [_rest_example(example) for example in value]
        elif name == "text":
            shown["text"] = value
        else:
            shown |= _rest_example(value)
    return shown


def rest_body(case: Case) -> dict[str, Any]:
    """The case as JSON."""
    options = dict(case.options)
    body: dict[str, Any] = {}
    consistency: dict[str, Any] = {}
    if options.pop("latest", False):
        consistency["level"] = "latest"
    if "max_wait_ms" in options:
        consistency["wait_ms"] = options.pop("max_wait_ms")
    if "min_offsets" in options:
        consistency["min_offsets"] = {str(key): value for key, value in options.pop("min_offsets").items()}
    if options.pop("partial_ok", False):
        consistency["on_timeout"] = "partial"
    if consistency:
        body["consistency"] = consistency
    if "cursor" in options:
        body["cursor"] = base64.b64encode(options.pop("cursor")).decode()
    if "include" in options:
        body["include"] = list(options.pop("include"))
    body |= options
    queries = [_rest_query(query) for query in _queries(case)]
    return body | ({"query": queries[0]} if len(queries) == 1 else {"queries": queries})


def rest(broker: BrokerProcess, case: Case) -> Answer | Refusal:
    response = httpx.post(
        f"http://{broker.http}/v1/topics/{case.topic}/search",
        content=json.dumps(rest_body(case)),
        headers={"content-type": "application/json"},
        timeout=TIMEOUT_S,
    )
    body = response.json()
    if response.status_code != 200:
        error = body["error"]
        own_words = "fields" in error["details"]
        return Refusal(error["details"]["kafka_code"], error["retriable"], "" if own_words else error["message"])
    queries = body.get("batch") or [body]
    return Answer(
        queries=tuple(
            (
                tuple(_rest_hit(hit) for hit in query["results"]),
                None if query["next_cursor"] is None else base64.b64decode(query["next_cursor"]),
                query["error"]["details"]["kafka_code"] if "error" in query else 0,
            )
            for query in queries
        ),
        complete=body["freshness"]["complete"],
        model=(*(body["model"][name] for name in ("name", "dimensions")), body["score"]["metric"], body["model"]["generation"]),
        states=tuple(
            (
                *(state[name] for name in ("partition", "log_start_offset", "high_watermark", "last_stable_offset", "indexed_offset", "failed")),
                int(state["searched"]),
                0 if state["error"] is None else -1,
            )
            for state in body["freshness"]["partitions"]
        ),
    )  # fmt: skip


def _bytes(row: dict[str, Any], name: str) -> bytes | None:
    encoded = row.get(f"{name}_base64")
    if encoded is not None:
        return base64.b64decode(encoded)
    return None if row[name] is None else row[name].encode()


def _rest_hit(hit: dict[str, Any]) -> tuple[Any, ...]:
    return (
        hit["partition"], hit["offset"], hit["leader_epoch"], hit["timestamp"], hit["score"], hit["similarity"],
        hit["text_score"], hit["vector_rank"], hit["text_rank"], hit["duplicates"], hit["embedding_truncated"],
        hit["chunk"], hit["value_truncated"], _bytes(hit, "key"), _bytes(hit, "value"),
        tuple((header["name"], _bytes(header, "value")) for header in hit["headers"]),
        tuple(hit["vector"]) if "vector" in hit else None,
    )  # fmt: skip


# gRPC


def _rpc_point(kind: Any, text: Any = None, vector: Any = None, record: Any = None) -> Any:
    if text is not None:
        return kind(text=text)
    if vector is not None:
        return kind(vector=messages.Vector(values=np.frombuffer(vector_bytes(vector), dtype="<f4").tolist()))
    if record is not None:
        return kind(record=messages.RecordId(partition=record[0], offset=record[1]))
    return kind()


def _rpc_query(query: dict[str, Any]) -> Any:
    if "positive" in query or "negative" in query:
        sides = {
            name: [_rpc_point(messages.Example, **_as_arguments(example)) for example in query.get(name, ())]
            for name in ("positive", "negative")
        }
        return messages.Query(examples=messages.Examples(**sides))
    return _rpc_point(messages.Query, **query)


def _as_arguments(example: Any) -> dict[str, Any]:
    shown = _rest_example(example)
    if "record" in shown:
        return {"record": (shown["record"]["partition"], shown["record"]["offset"])}
    return shown


def rpc_options(case: Case) -> Any:
    """The options in gRPC's words, by way of key 100's, which are the same."""
    request = build_request(case.topic, [], **case.options)
    fields: dict[str, Any] = {
        name: case.options[name]
        for name in ("limit", "min_similarity", "latest", "max_wait_ms", "partial_ok", "max_value_bytes", "exact", "ef", "cursor", "vector_weight")
        if case.options.get(name) is not None
    }  # fmt: skip
    for name, value in (("filter", request.filter), ("collapse", request.collapse)):
        if value is not None:
            fields[name] = value
    for name, value in (("from_timestamp_ms", request.from_timestamp), ("until_timestamp_ms", request.until_timestamp)):
        if value >= 0:
            fields[name] = value
    ranges = []
    for row in request.offset_ranges:
        bounds = {"partition": row.partition, "from_offset": row.from_offset, "until_offset": row.until_offset}
        ranges.append(messages.OffsetRange(**{name: value for name, value in bounds.items() if value >= 0}))
    if "include" in case.options:
        fields["include"] = messages.Include(**dict.fromkeys(case.options["include"], True))
    return messages.SearchOptions(
        mode=request.mode,
        fusion=request.fusion,
        isolation=0 if request.isolation_level else 1,
        partitions=request.partitions or (),
        offset_ranges=ranges,
        min_offsets=[messages.MinOffset(partition=row.partition, offset=row.offset) for row in request.min_offsets],
        **fields,
    )


def rpc(broker: BrokerProcess, case: Case) -> Answer | Refusal:
    queries = [_rpc_query(query) for query in _queries(case)]
    topic, options = messages.Topic(name=case.topic), rpc_options(case)
    with grpc.insecure_channel(broker.grpc) as channel:
        stub = VectorSearchStub(channel)
        try:
            if len(queries) == 1:
                request = messages.SearchRequest(topic=topic, query=queries[0], options=options)
                single = stub.Search(request, timeout=TIMEOUT_S)
                results, answer = [single], single.answer
            else:
                batch = messages.BatchSearchRequest(topic=topic, queries=queries, options=options)
                response = stub.BatchSearch(batch, timeout=TIMEOUT_S)
                results, answer = response.results, response.answer
        except grpc.RpcError as error:
            return rpc_refusal(error)
    model = answer.model
    return Answer(
        queries=tuple(
            (
                tuple(_rpc_hit(hit) for hit in result.hits),
                result.next_cursor if result.HasField("next_cursor") else None,
                result.error.kafka_code if isinstance(result, messages.QueryResult) else 0,
            )
            for result in results
        ),
        complete=answer.complete,
        model=(model.name, model.dimensions, model.metric, model.generation),
        states=tuple(
            (s.partition, s.log_start_offset, s.high_watermark, s.last_stable_offset, s.indexed_offset, s.failed,
             int(s.searched), s.error_code)
            for s in answer.partitions
        ),
    )  # fmt: skip


def rpc_refusal(error: Any) -> Refusal:
    """What the rich error says; raises AssertionError when there is none."""
    status = rpc_status.from_call(error)
    assert status is not None, error
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info), status
    return Refusal(int(info.metadata["kafka_code"]), info.metadata["retriable"] == "true", status.message)


def _given(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def _rpc_hit(hit: Any) -> tuple[Any, ...]:
    return (
        hit.partition, hit.offset, hit.leader_epoch, hit.timestamp_ms, hit.score, _given(hit, "similarity"),
        _given(hit, "text_score"), _given(hit, "vector_rank"), _given(hit, "text_rank"), hit.duplicates,
        hit.embedding_truncated, hit.chunk, hit.value_truncated, _given(hit, "key"), _given(hit, "value"),
        tuple((header.name, _given(header, "value")) for header in hit.headers),
        tuple(hit.vector.values) if hit.HasField("vector") else None,
    )  # fmt: skip


DOORS: dict[str, Ask] = {"sync client": sync_client, "async client": async_client, "REST": rest, "gRPC": rpc}
"""Compared with key 100 by hand."""
