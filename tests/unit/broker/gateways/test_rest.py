"""REST's contract: what reaches the search service, what comes back, and how every refusal looks."""

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from broker.bounded_log import BoundedLog
from broker.gateways.limit import MAX_BODY_BYTES
from broker.gateways.rest import build_app
from broker.metrics import Metrics
from broker.security.access import Access
from protocol.errors import ErrorCode, KafkaError
from tests.simulated_storage import ManualClock
from tests.unit.broker.admin import security_of
from vector.request import Hit, PartitionState, QueryResult, SearchRequest, SearchResponse, VectorsNotEnabled

SEARCH = "/v1/topics/logs/search"
SEED = {
    "query": "database connection errors",
    "k": 10,
    "filter": {"partition": 0, "min_offset": 1000, "max_offset": 5000},
}


def hit(**fields: Any) -> Hit:
    default = {"partition": 0, "offset": 42, "leader_epoch": 0, "timestamp_ms": 5, "score": 0.5, "similarity": 0.5}
    return Hit(**{**default, "duplicates": 0, "flags": 0, "headers": (("level", b"error"),), **fields})


def state(**fields: Any) -> PartitionState:
    offsets = {"log_start_offset": 0, "high_watermark": 10, "last_stable_offset": 10, "indexed_offset": 10}
    return PartitionState(**{"partition": 0, **offsets, "lag_ms": 0, "failed": 0, "searched": True, **fields})


def answer(*results: QueryResult, states: list[PartitionState] | None = None) -> SearchResponse:
    return SearchResponse(
        topic="logs",
        topic_id=bytes(16),
        model="m",
        dimensions=2,
        metric="cosine",
        generation=1,
        complete=True,
        embed_micros=1,
        wait_micros=2,
        search_micros=3,
        read_micros=4,
        results=list(results or [QueryResult([])]),
        partitions=states or [],
    )


class FakeSearch:
    """Remembers the requests; answers or raises what a test put in."""

    def __init__(self) -> None:
        self.requests: list[SearchRequest] = []
        self.response = answer()
        self.error: Exception | None = None
        self.readiness = "loading"

    async def search(self, request: SearchRequest, access: Access) -> Any:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return self.response

    async def status(self, topic: str, access: Access) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return {"topic": topic, "state": "ready"}


@pytest.fixture
def search() -> FakeSearch:
    return FakeSearch()


@pytest.fixture
def services(search: FakeSearch) -> Any:
    refusals = BoundedLog(ManualClock().monotonic)
    return SimpleNamespace(
        search=search,
        metrics=Metrics(),
        logs=SimpleNamespace(failed=None),
        refusals=refusals,
        security=security_of(),
    )


@pytest.fixture
async def client(services: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=build_app(services), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://broker") as client:
        yield client


async def test_the_seeds_body_reaches_the_service_whole(client: httpx.AsyncClient, search: FakeSearch) -> None:
    response = await client.post(SEARCH, json=SEED)
    assert response.status_code == 200
    (request,) = search.requests
    assert request.topic == "logs"
    assert [query.text for query in request.queries] == ["database connection errors"]
    assert request.limit == 10
    assert request.partitions == (0,)
    assert request.offset_ranges == {-1: (1000, 5001)}


async def test_every_field_reaches_the_service(client: httpx.AsyncClient, search: FakeSearch) -> None:
    body = {
        "query": {"vector": [1.0, 2.0]},
        "limit": 7,
        "min_similarity": 0.25,
        "filter": {
            "partitions": [0, 2],
            "offset": {"gte": 5},
            "offsets": {"2": {"gt": 10, "lte": 20}},
            "timestamp": {"gte": "1970-01-01T00:00:01Z", "lt": 5000},
        },
        "consistency": {"level": "latest", "min_offsets": {"0": 9}, "wait_ms": 300, "on_timeout": "partial"},
        "include": ["value"],
        "max_value_bytes": 64,
        "exact": True,
        "ef": 200,
        "timeout_ms": 900,
    }
    assert (await client.post(SEARCH, json=body)).status_code == 200
    (request,) = search.requests
    assert request.queries[0].vector.tolist() == [1.0, 2.0]
    assert (request.limit, request.min_similarity, request.partitions) == (7, 0.25, (0, 2))
    assert request.offset_ranges == {-1: (5, -1), 2: (11, 21)}
    assert (request.from_timestamp, request.until_timestamp) == (1000, 5000)
    assert (request.min_offsets, request.latest, request.max_wait_ms, request.partial_ok) == ({0: 9}, True, 300, True)
    assert (request.max_value_bytes, request.exact, request.ef, request.timeout_ms) == (64, True, 200, 900)


async def test_a_hit_comes_back_with_all_it_has(client: httpx.AsyncClient, search: FakeSearch) -> None:
    search.response = answer(
        QueryResult([hit(value=b"text"), hit(value=b"\xff", offset=43)]), states=[state(indexed_offset=8)]
    )
    body = (await client.post(SEARCH, json=SEED)).json()
    first, second = body["results"]
    assert (first["topic"], first["partition"], first["offset"], first["value"]) == ("logs", 0, 42, "text")
    assert (first["score"], first["similarity"], first["text_score"]) == (0.5, 0.5, None)
    assert first["headers"] == [{"name": "level", "value": "error"}]
    assert (second["value"], second["value_base64"]) == (None, "/w==")
    assert body["count"] == 2
    assert body["freshness"]["complete"] is True
    assert body["freshness"]["lag_records"] == 2
    assert body["freshness"]["partitions"][0]["indexed_offset"] == 8
    assert body["model"] == {"name": "m", "dimensions": 2, "generation": 1}


async def test_a_batch_is_answered_query_by_query(client: httpx.AsyncClient, search: FakeSearch) -> None:
    search.response = answer(QueryResult([hit()]), QueryResult([hit()]))
    body = (await client.post(SEARCH, json={"queries": ["a", {"text": "b"}]})).json()
    assert [query.text for query in search.requests[0].queries] == ["a", "b"]
    assert [len(result["results"]) for result in body["batch"]] == [1, 1]
    assert "results" not in body


async def test_a_failed_query_of_a_batch_does_not_hide_the_others(
    client: httpx.AsyncClient, search: FakeSearch
) -> None:
    gone = KafkaError(ErrorCode.RESOURCE_NOT_FOUND, "no record 0@7")
    search.response = answer(QueryResult([hit()]), QueryResult([], error=gone))
    body = (await client.post(SEARCH, json={"queries": ["a", {"record": {"partition": 0, "offset": 7}}]})).json()
    assert body["batch"][1]["error"]["message"] == "no record 0@7"
    assert body["batch"][0]["count"] == 1
    search.response = answer(QueryResult([], error=gone))
    response = await client.post(SEARCH, json={"query": {"record": {"partition": 0, "offset": 7}}})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "NOT_FOUND")


async def test_modes_and_their_weights_travel(client: httpx.AsyncClient, search: FakeSearch) -> None:
    await client.post(SEARCH, json={"query": "x", "mode": "hybrid", "fusion": "weighted", "vector_weight": 0.25})
    await client.post(SEARCH, json={"query": "x", "mode": "text"})
    asked = [(one.mode, one.fusion, one.vector_weight) for one in search.requests]
    assert asked == [("hybrid", "weighted", 0.25), ("text", "rrf", 0.5)]
    for bad in ({"mode": "words"}, {"fusion": "sum"}, {"vector_weight": 2}, {"vector_weight": "1"}):
        assert (await client.post(SEARCH, json={"query": "x", **bad})).status_code == 400


async def test_collapse_and_cursor_travel(client: httpx.AsyncClient, search: FakeSearch) -> None:
    for given in ("text", "header:a b", {"header": "a b"}, "$.a", {"path": "$.a"}):
        await client.post(SEARCH, json={"query": "x", "collapse": given, "cursor": "AAE="})
    assert [one.collapse for one in search.requests] == ["text", "header:a b", "header:a b", "$.a", "$.a"]
    assert search.requests[0].cursor == b"\x00\x01"
    for bad in ({"collapse": "level"}, {"collapse": {"head": "a"}}, {"collapse": 1}, {"cursor": "!"}):
        response = await client.post(SEARCH, json={"query": "x", **bad})
        assert response.status_code == 400
        assert response.json()["error"]["message"].startswith(next(iter(bad)))


async def test_conditions_travel_as_they_are_and_are_refused_by_place(
    client: httpx.AsyncClient, search: FakeSearch
) -> None:
    conditions: dict[str, Any] = {"key": {"prefix": "a"}, "must_not": [{"path": "$.env", "eq": None}]}
    await client.post(SEARCH, json={"query": "x", "filter": {"partition": 1, **conditions}})
    assert json.loads(search.requests[0].filter or "") == conditions
    bad = {"must": [{"path": "$.a", "eq": 1}, {"path": "level", "eq": 1}]}
    response = await client.post(SEARCH, json={"query": "x", "filter": bad})
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("filter.must[1].path: ")


async def test_ranges_that_do_not_meet_leave_nothing_in_that_partition(
    client: httpx.AsyncClient, search: FakeSearch
) -> None:
    conditions = {"max_offset": 10, "offsets": {"0": {"gte": 20}}}
    await client.post(SEARCH, json={"query": "x", "filter": conditions})
    assert search.requests[0].offset_ranges == {-1: (-1, 11), 0: (20, 20)}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": "x", "filtr": {}}, "filtr"),
        ({"query": "x", "filter": {"min_ofset": 1}}, "filter.min_ofset"),
        ({"query": "x", "filter": {"offset": {"from": 1}}}, "filter.offset.from"),
        ({"query": {"txt": "x"}}, "query.txt"),
        ({"query": {}}, "query"),
        ({"query": 5}, "query"),
        ({"query": "x", "queries": ["y"]}, ""),
        ({}, ""),
        ({"query": "x", "k": "10"}, "k"),
        ({"query": "x", "k": 1, "limit": 1}, ""),
        ({"query": "x", "filter": {"partition": 0, "partitions": [1]}}, "filter"),
        ({"query": "x", "filter": {"timestamp": {"gte": "yesterday"}}}, "filter.timestamp.gte"),
        ({"query": "x", "filter": {"timestamp": {"lt": -1}}}, "filter.timestamp.lt"),
        ({"query": "x", "filter": {"timestamp": {"lte": "1969-12-31"}}}, "filter.timestamp.lte"),
        ({"query": "x", "filter": {"max_offset": -2}}, "filter.max_offset"),
        ({"query": "x", "filter": {"offsets": {"first": {}}}}, "filter.offsets"),
        ({"query": "x", "include": ["everything"]}, "include.0"),
        ({"query": "x", "consistency": {"wait": 5}}, "consistency.wait"),
        ([], ""),
    ],
    ids=json.dumps,
)
async def test_what_is_no_search_is_400_and_named(
    client: httpx.AsyncClient, search: FakeSearch, body: Any, field: str
) -> None:
    response = await client.post(SEARCH, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["retriable"]) == (400, "INVALID_ARGUMENT", False)
    assert error["details"]["fields"][0]["field"] == field
    assert error["message"].startswith(field)
    assert search.requests == []


@pytest.mark.parametrize(("method", "path"), [("POST", SEARCH), ("GET", "/v1/topics/logs/vector")])
async def test_a_query_parameter_is_not_ignored(
    client: httpx.AsyncClient, search: FakeSearch, method: str, path: str
) -> None:
    response = await client.request(method, f"{path}?k=3", json=SEED if method == "POST" else None)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_ARGUMENT")
    assert "'k'" in response.json()["error"]["message"]
    assert search.requests == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e300"])
async def test_a_vector_that_is_not_finite_is_422(client: httpx.AsyncClient, number: str) -> None:
    content = f'{{"query": {{"vector": [1.0, {number}]}}}}'
    response = await client.post(SEARCH, content=content, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (422, "NON_FINITE_VECTOR")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"query": "x"'])
async def test_what_is_no_json_is_400(client: httpx.AsyncClient, content: bytes) -> None:
    response = await client.post(SEARCH, content=content, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_ARGUMENT")


async def test_a_form_is_not_read_as_json(client: httpx.AsyncClient, search: FakeSearch) -> None:
    response = await client.post(SEARCH, content=json.dumps(SEED), headers={"content-type": "text/plain"})
    assert response.status_code == 400
    assert "Content-Type: application/json" in response.json()["error"]["message"]
    assert search.requests == []


@pytest.mark.parametrize(
    ("code", "status", "name", "retriable"),
    [
        (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, 404, "UNKNOWN_TOPIC", False),
        (ErrorCode.REQUEST_TIMED_OUT, 504, "TIMEOUT", True),
        (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, 503, "INDEX_LOADING", True),
        (ErrorCode.COORDINATOR_NOT_AVAILABLE, 503, "EMBEDDER_UNAVAILABLE", True),
        (ErrorCode.INVALID_CONFIG, 400, "INVALID_CONFIG", False),
        (ErrorCode.INVALID_REQUEST, 400, "INVALID_ARGUMENT", False),
        (ErrorCode.POLICY_VIOLATION, 400, "OVER_LIMIT", False),
        (ErrorCode.KAFKA_STORAGE_ERROR, 503, "STORAGE_ERROR", True),
        (ErrorCode.OFFSET_NOT_AVAILABLE, 504, "FRESHNESS_TIMEOUT", True),
        (ErrorCode.THROTTLING_QUOTA_EXCEEDED, 429, "THROTTLED", True),
        (ErrorCode.RESOURCE_NOT_FOUND, 404, "NOT_FOUND", False),
    ],
)
@pytest.mark.parametrize("path", [SEARCH, "/v1/topics/logs/vector"])
async def test_each_kafka_error_has_its_status(
    client: httpx.AsyncClient, search: FakeSearch, path: str, code: ErrorCode, status: int, name: str, retriable: bool
) -> None:
    search.error = KafkaError(code, "the reason")
    response = await (client.post(path, json=SEED) if path == SEARCH else client.get(path))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["message"]) == (status, name, "the reason")
    assert error["retriable"] is retriable
    assert ("retry-after" in response.headers) is (status in (429, 503))


async def test_a_topic_without_vectors_is_409(client: httpx.AsyncClient, search: FakeSearch) -> None:
    search.error = VectorsNotEnabled("logs")
    response = await client.post(SEARCH, json=SEED)
    assert (response.status_code, response.json()["error"]["code"]) == (409, "VECTOR_DISABLED")


async def test_a_vector_of_the_wrong_length_is_422(client: httpx.AsyncClient, search: FakeSearch) -> None:
    search.error = KafkaError(ErrorCode.INVALID_REQUEST, "vector: has 2 dimensions, the index has 384")
    response = await client.post(SEARCH, json={"query": {"vector": [1.0, 2.0]}})
    assert (response.status_code, response.json()["error"]["code"]) == (422, "DIMENSION_MISMATCH")


async def test_an_unexpected_failure_is_500_without_its_inside(client: httpx.AsyncClient, search: FakeSearch) -> None:
    search.error = ValueError("secret path")
    response = await client.post(SEARCH, json=SEED)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "INTERNAL"
    assert "secret" not in response.text


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_without_end_is_413(client: httpx.AsyncClient, search: FakeSearch, declared: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // (1 << 20) + 1):
            yield b" " * (1 << 20)

    content = b" " * (MAX_BODY_BYTES + 1) if declared else chunks()
    response = await client.post(SEARCH, content=content, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (413, "TOO_LARGE")
    assert search.requests == []


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v2", 404), ("GET", SEARCH, 405), ("PUT", "/healthz", 405)]
)
async def test_unknown_paths_and_methods_have_the_same_shape(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"code", "message", "retriable", "details"}


async def test_status_health_and_metrics(client: httpx.AsyncClient, services: Any) -> None:
    assert (await client.get("/v1/topics/logs/vector")).json() == {"topic": "logs", "state": "ready"}
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "search": "loading"})
    metrics = await client.get("/metrics")
    assert "senselog_connections 0.0" in metrics.text
    services.logs.failed = OSError(28, "No space left on device")
    response = await client.get("/healthz")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "STORAGE_ERROR")


async def test_the_documentation_needs_no_other_host(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    assert "http://" not in page
    assert "https://" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert asset in page
        assert (await client.get(f"/docs/assets/{asset}")).status_code == 200


async def test_openapi_knows_every_field(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert {"/v1/topics/{topic}/search", "/v1/topics/{topic}/vector", "/healthz", "/readyz", "/metrics"} <= set(
        document["paths"]
    )
    fields = document["components"]["schemas"]["SearchBody"]["properties"]
    assert {"query", "queries", "k", "limit", "filter", "consistency", "exact", "ef", "timeout_ms"} <= set(fields)
    assert document["components"]["schemas"]["SearchBody"]["additionalProperties"] is False


async def test_a_vector_without_direction_is_no_dimension_mismatch(
    client: httpx.AsyncClient, search: FakeSearch
) -> None:
    search.error = KafkaError(ErrorCode.INVALID_REQUEST, "vector: all components are zero, cosine has no direction")
    response = await client.post(SEARCH, json={"query": {"vector": [0.0, 0.0]}})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_ARGUMENT")
