"""What only gRPC has: deadlines, rich errors, health, reflection."""

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from senselog_client.v1 import vector_search_pb2 as messages
from senselog_client.v1.vector_search_pb2_grpc import VectorSearchStub

from tests.broker_process import BrokerProcess
from tests.contract.cases import PARTITIONS, PER_PARTITION, TOPIC

SERVICE = "senselog.v1.VectorSearch"


def search(broker: BrokerProcess, timeout: float | None = 30, **fields: object) -> messages.SearchResponse:
    request = messages.SearchRequest(topic=messages.Topic(name=TOPIC), query=messages.Query(text="disk"))
    request.MergeFrom(messages.SearchRequest(**fields))
    with grpc.insecure_channel(broker.grpc) as channel:
        return VectorSearchStub(channel).Search(request, timeout=timeout)


def test_the_deadline_is_the_timeout(broker: BrokerProcess) -> None:
    """A search that waits for what never comes ends with its call's deadline, not with its own wait."""
    options = messages.SearchOptions(min_offsets=[messages.MinOffset(offset=10_000)], max_wait_ms=60_000)
    with pytest.raises(grpc.RpcError) as caught:
        search(broker, timeout=0.5, options=options)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert search(broker, timeout=None).hits  # and the broker is well


@pytest.mark.parametrize(
    ("fields", "code", "reason", "field"),
    [
        ({"topic": messages.Topic(name="nowhere")}, grpc.StatusCode.NOT_FOUND, "UNKNOWN_TOPIC", None),
        ({"topic": messages.Topic(name="plain")}, grpc.StatusCode.FAILED_PRECONDITION, "VECTOR_DISABLED", None),
        ({"topic": messages.Topic(id=b"short")}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "topic.id"),
        ({"options": messages.SearchOptions(limit=0)}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "limit"),
        ({"options": messages.SearchOptions(mode=9)}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "mode"),
        ({"options": messages.SearchOptions(from_timestamp_ms=-2)}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "from_timestamp_ms"),
        ({"query": messages.Query(vector=messages.Vector(values=[1, 2]))}, grpc.StatusCode.INVALID_ARGUMENT, "DIMENSION_MISMATCH", "vector"),
    ],
)  # fmt: skip
def test_an_error_says_all_that_rest_says(
    broker: BrokerProcess, fields: dict[str, object], code: grpc.StatusCode, reason: str, field: str | None
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        search(broker, **fields)
    assert caught.value.code() is code
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (reason, "senselog")
    bad = error_details_pb2.BadRequest()
    named = [one.field for detail in status.details[1:] if detail.Unpack(bad) for one in bad.field_violations]
    assert named == ([field] if field else [])


def test_what_may_be_tried_again_says_when(broker: BrokerProcess) -> None:
    options = messages.SearchOptions(min_offsets=[messages.MinOffset(offset=10_000)])
    with pytest.raises(grpc.RpcError) as caught:
        search(broker, options=options)
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in rpc_status.from_call(caught.value).details)
    assert retry.retry_delay.seconds == 1


def test_a_batch_needs_queries(broker: BrokerProcess) -> None:
    with grpc.insecure_channel(broker.grpc) as channel, pytest.raises(grpc.RpcError, match="queries: at least one"):
        VectorSearchStub(channel).BatchSearch(messages.BatchSearchRequest(topic=messages.Topic(name=TOPIC)), timeout=30)


def test_the_status_is_that_of_rest(broker: BrokerProcess) -> None:
    with grpc.insecure_channel(broker.grpc) as channel:
        stub = VectorSearchStub(channel)
        status = stub.GetIndexStatus(messages.GetIndexStatusRequest(topic=TOPIC), timeout=30)
        assert (status.state, status.enabled, status.model.dimensions) == ("green", True, 64)
        assert [row.offsets.indexed_offset for row in status.partitions] == [PER_PARTITION] * PARTITIONS
        assert [(one.state, one.restarts, one.HasField("address")) for one in status.workers] == [("running", 0, False)]
        assert {row.worker for row in status.partitions} == {0}
        plain = stub.GetIndexStatus(messages.GetIndexStatusRequest(topic="plain"), timeout=30)
        assert (plain.state, plain.enabled) == ("disabled", False)


def test_health_and_reflection(broker: BrokerProcess) -> None:
    with grpc.insecure_channel(broker.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        ]
        listed, file = stub.ServerReflectionInfo(iter(requests), timeout=30)
        assert SERVICE in [service.name for service in listed.list_services_response.service]
        assert b"BatchSearch" in file.file_descriptor_response.file_descriptor_proto[0]
