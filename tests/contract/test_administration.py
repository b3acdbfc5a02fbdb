"""An index is administered over gRPC: effects and refusals."""

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


def test_pause_and_resume(broker: BrokerProcess, topic: str) -> None:
    assert over_rpc(broker, "pause", topic) == ("", 0)
    assert state(broker, topic)["state"] == "paused"
    rest(broker, "POST", f"/topics/{topic}/records", {"records": [{"value": "later"}]}).raise_for_status()
    found = rest(broker, "POST", f"/topics/{topic}/search", {"query": "line 7"})
    assert found.status_code == 200  # searches go on
    assert over_rpc(broker, "resume", topic) == ("", 0)
    question = {"query": "later", "limit": 1, "consistency": {"level": "latest", "wait_ms": 30_000}}
    assert rest(broker, "POST", f"/topics/{topic}/search", question).json()["results"][0]["value"] == "later"


def test_the_next_generation(broker: BrokerProcess, topic: str) -> None:
    before = state(broker, topic)["generation"]
    assert over_rpc(broker, "reembed", topic) == ("", 0)
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
def test_topics_without_an_index_are_refused(broker: BrokerProcess, command: str) -> None:
    assert over_rpc(broker, command, "nowhere")[1] == 3
    assert over_rpc(broker, command, "plain")[1] == 40


@pytest.mark.parametrize("command", ["cutover", "rollback"])
def test_what_there_is_nothing_for_is_refused(broker: BrokerProcess, topic: str, command: str) -> None:
    assert over_rpc(broker, command, topic)[1] == 42


def test_failures_are_listed(broker: BrokerProcess, topic: str) -> None:
    with grpc.insecure_channel(broker.grpc) as channel:
        listed = VectorSearchStub(channel).ListFailures(messages.ListFailuresRequest(topic=topic, limit=1), timeout=30)
        assert listed.total == len(listed.failures) == state(broker, topic)["failed"]
        assert not listed.HasField("next")
        with pytest.raises(grpc.RpcError, match="limit: 0"):
            VectorSearchStub(channel).ListFailures(messages.ListFailuresRequest(topic=topic, limit=0), timeout=30)


def test_texts_are_embedded(broker: BrokerProcess, topic: str) -> None:
    texts = ["disk full", "login failed"]
    with grpc.insecure_channel(broker.grpc) as channel:
        stub = VectorSearchStub(channel)
        by_topic = stub.Embed(messages.EmbedRequest(texts=texts, topic=topic), timeout=30)
        by_model = stub.Embed(messages.EmbedRequest(texts=texts, model=MODEL), timeout=30)
    assert (by_topic.model, by_topic.vectors) == (MODEL, by_model.vectors)
    assert [len(vector.values) for vector in by_topic.vectors] == [16, 16]
    found = rest(broker, "POST", f"/topics/{topic}/search", {"query": {"vector": list(by_topic.vectors[0].values)}})
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
def test_what_cannot_be_embedded_is_refused(broker: BrokerProcess, body: dict[str, Any], code: int) -> None:
    with grpc.insecure_channel(broker.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        VectorSearchStub(channel).Embed(messages.EmbedRequest(**body), timeout=30)
    assert rpc_refusal(caught.value).code == code
