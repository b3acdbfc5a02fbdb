"""An index is administered alike over REST and gRPC: the same effects, the same documents, the same refusals."""

from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest
from senselog_client.v1 import vector_search_pb2 as messages
from senselog_client.v1.vector_search_pb2_grpc import VectorSearchStub

from tests.broker_process import BrokerProcess
from tests.contract.doors import rpc_refusal

MODEL = "hashing:16"


def rest(broker: BrokerProcess, method: str, path: str, body: Any = None) -> httpx.Response:
    return httpx.request(method, f"http://{broker.http}/v1{path}", json=body, timeout=60)


def over_rest(broker: BrokerProcess, command: str, topic: str) -> tuple[str, int]:
    response = rest(broker, "POST", f"/topics/{topic}/vector/{command}", {} if command == "reembed" else None)
    body = response.json()
    return (
        ("", 0) if response.status_code == 200 else (body["error"]["message"], body["error"]["details"]["kafka_code"])
    )


def over_rpc(broker: BrokerProcess, command: str, topic: str) -> tuple[str, int]:
    name = {"cutover": "CutOver", "rollback": "RollBack"}.get(command, command.capitalize())
    kind = messages.ReembedRequest if command == "reembed" else messages.IndexRequest
    with grpc.insecure_channel(broker.grpc) as channel:
        try:
            status = getattr(VectorSearchStub(channel), name)(kind(topic=topic), timeout=60)
        except grpc.RpcError as error:
            refusal = rpc_refusal(error)
            return refusal.message, refusal.code
        assert status.topic == topic
        return "", 0


Door = Callable[[BrokerProcess, str, str], tuple[str, int]]


@pytest.fixture(params=[over_rest, over_rpc], ids=["REST", "gRPC"])
def door(request: pytest.FixtureRequest) -> Door:
    asked: Door = request.param
    return asked


@pytest.fixture
def topic(broker: BrokerProcess, request: pytest.FixtureRequest) -> str:
    """Of its own for each test."""
    name = f"admin-{abs(hash(request.node.name))}"
    config = {"vector.enabled": True, "vector.embedding.model": MODEL}
    rest(broker, "POST", "/topics", {"name": name, "configs": config}).raise_for_status()
    records = [{"value": f"line {number}"} for number in range(20)] + [{"value_base64": "/w=="}]
    rest(broker, "POST", f"/topics/{name}/records", {"records": records}).raise_for_status()
    question = {"query": "line 7", "consistency": {"level": "latest", "wait_ms": 30_000}}
    rest(broker, "POST", f"/topics/{name}/search", question).raise_for_status()
    return name


def state(broker: BrokerProcess, topic: str) -> Any:
    return rest(broker, "GET", f"/topics/{topic}/vector").json()


def test_pause_and_resume(broker: BrokerProcess, topic: str, door: Door) -> None:
    assert door(broker, "pause", topic) == ("", 0)
    assert state(broker, topic)["state"] == "paused"
    rest(broker, "POST", f"/topics/{topic}/records", {"records": [{"value": "later"}]}).raise_for_status()
    found = rest(broker, "POST", f"/topics/{topic}/search", {"query": "line 7"})
    assert found.status_code == 200  # searches go on
    assert door(broker, "resume", topic) == ("", 0)
    question = {"query": "later", "limit": 1, "consistency": {"level": "latest", "wait_ms": 30_000}}
    assert rest(broker, "POST", f"/topics/{topic}/search", question).json()["results"][0]["value"] == "later"


def test_the_next_generation(broker: BrokerProcess, topic: str, door: Door) -> None:
    before = state(broker, topic)["generation"]
    assert door(broker, "reembed", topic) == ("", 0)
    for _ in range(600):
        if (after := state(broker, topic))["generation"] > before and after["state"] == "green":
            break
        httpx.get(f"http://{broker.http}/healthz")
    else:
        pytest.fail(f"generation {before} is still live: {after}")
    question = {"query": "line 7", "limit": 1, "consistency": {"level": "latest", "wait_ms": 30_000}}
    assert rest(broker, "POST", f"/topics/{topic}/search", question).json()["results"][0]["value"] == "line 7"


COMMANDS = ("retry", "pause", "resume", "reembed", "cutover", "rollback")


@pytest.mark.parametrize("command", COMMANDS)
def test_both_doors_refuse_alike(broker: BrokerProcess, command: str) -> None:
    for name, code in (("nowhere", 3), ("plain", 40)):
        message, found = over_rest(broker, command, name)
        assert (message, found) == over_rpc(broker, command, name)
        assert found == code


@pytest.mark.parametrize("command", ["cutover", "rollback"])
def test_what_there_is_nothing_for_is_refused_alike(broker: BrokerProcess, topic: str, command: str) -> None:
    refused = over_rest(broker, command, topic)
    assert refused == over_rpc(broker, command, topic)
    assert refused[1] == 42


def test_failures_are_listed_alike(broker: BrokerProcess, topic: str) -> None:
    found = rest(broker, "GET", f"/topics/{topic}/vector/failures?limit=1").json()
    with grpc.insecure_channel(broker.grpc) as channel:
        stub = VectorSearchStub(channel)
        listed = stub.ListFailures(messages.ListFailuresRequest(topic=topic, limit=1), timeout=30)
    assert listed.total == found["total"] == len(found["failures"]) == len(listed.failures)
    for document, message in zip(found["failures"], listed.failures, strict=True):
        assert all(getattr(message, name) == document[name] for name in ("partition", "offset", "reason", "generation"))
    assert (found["next"], listed.HasField("next")) == (None, False)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "after_offset=1", "generation=0", "partition=9", "colour=red"]
)
def test_bad_pages_are_refused(broker: BrokerProcess, topic: str, query: str) -> None:
    response = rest(broker, "GET", f"/topics/{topic}/vector/failures?{query}")
    assert response.status_code == (404 if query == "partition=9" else 400), response.text


def test_texts_are_embedded_alike(broker: BrokerProcess, topic: str) -> None:
    texts = ["disk full", "login failed"]
    by_topic = rest(broker, "POST", "/embed", {"texts": texts, "topic": topic}).json()
    by_model = rest(broker, "POST", "/embed", {"texts": texts, "model": MODEL}).json()
    with grpc.insecure_channel(broker.grpc) as channel:
        answer = VectorSearchStub(channel).Embed(messages.EmbedRequest(texts=texts, topic=topic), timeout=30)
    assert by_topic == by_model
    assert (by_topic["model"], len(by_topic["vectors"][0])) == (MODEL, 16)
    assert [list(vector.values) for vector in answer.vectors] == by_topic["vectors"]
    found = rest(broker, "POST", f"/topics/{topic}/search", {"query": {"vector": by_topic["vectors"][0]}})
    assert found.status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"texts": []}, 42),
        ({"texts": ["x"]}, 42),
        ({"texts": [], "model": MODEL}, 44),
        ({"texts": ["x"] * 65, "model": MODEL}, 44),
        ({"texts": [" "], "model": MODEL}, 42),
        ({"texts": ["x"], "model": "nonsense"}, 42),
        ({"texts": ["x"], "topic": "nowhere"}, 3),
    ],
)
def test_what_cannot_be_embedded_is_refused_alike(broker: BrokerProcess, body: dict[str, Any], code: int) -> None:
    error = rest(broker, "POST", "/embed", body).json()["error"]
    with grpc.insecure_channel(broker.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        VectorSearchStub(channel).Embed(messages.EmbedRequest(**body), timeout=30)
    refusal = rpc_refusal(caught.value)
    assert refusal.code == error["details"]["kafka_code"] == code
    assert refusal.message == error["message"]
