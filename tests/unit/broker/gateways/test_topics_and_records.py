"""Topics and records over REST are those of the Kafka handlers: the same checks, the same records, the same errors."""

import base64
import random
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.partitioner import murmur2

from broker.gateways.data import bytes_of, json_data
from broker.gateways.records import BATCH_BYTES
from broker.gateways.rest import build_app
from protocol.api_keys import ApiKey
from protocol.messages import MetadataRequest
from protocol.record_batch import Record, build_batch
from tests.unit.broker.core import Core, batch


class Door(Core):
    """Handlers behind REST; the disk is settled while a request waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.app = build_app(self.services)

    async def ask_rest(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        self.services.logs.commit, commit = self._commit_and_settle, self.services.logs.commit
        try:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://broker") as client:
                return await client.request(method, path, **arguments)
        finally:
            self.services.logs.commit = commit

    def _commit_and_settle(self) -> None:
        type(self.services.logs).commit(self.services.logs)
        self.machine.settle(random.Random(0))


@pytest.fixture
def door() -> Door:
    return Door()


async def made(door: Door, name: str = "logs", **body: Any) -> None:
    response = await door.ask_rest("POST", "/v1/topics", json={"name": name, **body})
    assert response.status_code == 201, response.text


async def test_a_topic_lives_and_dies(door: Door) -> None:
    response = await door.ask_rest(
        "POST", "/v1/topics", json={"name": "logs", "partitions": 3, "configs": {"vector.enabled": True}}
    )
    assert (response.status_code, response.json()["partitions"]) == (201, 3)
    assert response.json()["configs"] == {"vector.enabled": "true"}
    (row,) = (await door.ask_rest("GET", "/v1/topics")).json()["topics"]
    assert (row["name"], row["partitions"], row["vector_enabled"], row["internal"]) == ("logs", 3, True, False)
    described = (await door.ask_rest("GET", "/v1/topics/logs")).json()
    assert described["topic_id"] == row["topic_id"] == response.json()["topic_id"]
    assert described["configs"] == {"vector.enabled": "true"}
    assert [partition["high_watermark"] for partition in described["partitions"]] == [0, 0, 0]
    assert (await door.ask_rest("DELETE", "/v1/topics/logs")).status_code == 204
    assert (await door.ask_rest("GET", "/v1/topics")).json() == {"topics": []}
    assert (await door.ask_rest("DELETE", "/v1/topics/logs")).status_code == 404


async def test_configs_are_changed_one_by_one(door: Door) -> None:
    await made(door, configs={"retention.ms": 1000, "max.message.bytes": 2000})
    response = await door.ask_rest(
        "POST", "/v1/topics/logs/config", json={"configs": {"retention.ms": 5000, "max.message.bytes": None}}
    )
    configs = response.json()["configs"]
    assert (configs["retention.ms"]["value"], configs["retention.ms"]["source"]) == ("5000", "TOPIC")
    assert configs["max.message.bytes"]["source"] == "DEFAULT"
    assert configs == (await door.ask_rest("GET", "/v1/topics/logs/config")).json()["configs"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "", {"name": "logs"}, 409, "TOPIC_ALREADY_EXISTS"),
        ("POST", "", {"name": "no/slash"}, 400, "INVALID_TOPIC"),
        ("POST", "", {"name": "x", "partitions": 0}, 400, "INVALID_PARTITIONS"),
        ("POST", "", {"name": "x", "configs": {"no.such.key": 1}}, 400, "INVALID_CONFIG"),
        ("POST", "", {"name": "x", "surprise": 1}, 400, "INVALID_ARGUMENT"),
        ("GET", "/nowhere", None, 404, "UNKNOWN_TOPIC"),
        ("GET", "/nowhere/config", None, 404, "UNKNOWN_TOPIC"),
        ("GET", "/nowhere/records", None, 404, "UNKNOWN_TOPIC"),
        ("GET", "/logs?x=1", None, 400, "INVALID_ARGUMENT"),
        ("GET", "/logs/records?x=1", None, 400, "INVALID_ARGUMENT"),
        ("GET", "/logs/records?partition=7", None, 404, "UNKNOWN_TOPIC"),
        ("GET", "/logs/records?offset=9", None, 400, "OFFSET_OUT_OF_RANGE"),
        ("GET", "/logs/records?offset=1&timestamp=5", None, 400, "INVALID_ARGUMENT"),
        ("GET", "/logs/records?timestamp=yesterday", None, 400, "INVALID_ARGUMENT"),
        ("GET", "/logs/records?limit=0", None, 400, "INVALID_ARGUMENT"),
        ("POST", "/nowhere/config", {"configs": {"retention.ms": 1}}, 404, "UNKNOWN_TOPIC"),
        ("POST", "/logs/config", {"configs": {"retention.ms": "long"}}, 400, "INVALID_CONFIG"),
        ("POST", "/logs/config", {"configs": {}}, 400, "INVALID_ARGUMENT"),
        ("POST", "/nowhere/records", {"records": [{"value": "x"}]}, 404, "UNKNOWN_TOPIC"),
        ("POST", "/logs/records", {"records": []}, 400, "INVALID_ARGUMENT"),
        ("POST", "/logs/records", {"records": [{"value": "x", "partition": 7}]}, 404, "UNKNOWN_TOPIC"),
        ("POST", "/logs/records", {"records": [{"value": "x" * 2_000_000}]}, 413, "MESSAGE_TOO_LARGE"),
        ("POST", "/logs/records", {"records": [{"key": "k" * 70_000}]}, 400, "INVALID_ARGUMENT"),
        ("POST", "/logs/records", {"records": [{"value": "a", "value_base64": "YQ=="}]}, 400, "INVALID_ARGUMENT"),
        ("POST", "/logs/records", {"records": [{"value_base64": "?"}]}, 400, "INVALID_ARGUMENT"),
        ("POST", "/logs/records", {"records": [{"value": "x", "timestamp": -1}]}, 400, "INVALID_ARGUMENT"),
    ],
)  # fmt: skip
async def test_refusals(door: Door, method: str, path: str, body: Any, status: int, code: str) -> None:
    await made(door)
    response = await door.ask_rest(method, f"/v1/topics{path}", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code), response.text


async def test_records_go_where_kafkas_clients_put_them(door: Door) -> None:
    await made(door, partitions=5)
    keys = [f"key-{number}" for number in range(40)]
    body = {"records": [{"key": key, "value": key} for key in keys]}
    response = await door.ask_rest("POST", "/v1/topics/logs/records", json=body)
    assert response.status_code == 201, response.text
    places = response.json()["records"]
    assert [place["partition"] for place in places] == [(murmur2(key.encode()) & 0x7FFFFFFF) % 5 for key in keys]
    for key, place in zip(keys, places, strict=True):
        path = f"/v1/topics/logs/records?partition={place['partition']}&offset={place['offset']}&limit=1"
        (record,) = (await door.ask_rest("GET", path)).json()["records"]
        assert (record["offset"], record["key"]) == (place["offset"], key)


async def test_what_is_produced_is_read_back(door: Door) -> None:
    await made(door)
    records = [
        {"key": "k", "value": "täxt", "headers": [{"name": "h", "value": "v"}], "timestamp": 1000},
        {"value": {"a": [1, None]}, "timestamp": "1970-01-01T00:00:02Z"},
        {"key": "tombstone", "value": None, "timestamp": 3000},
        {"value_base64": base64.b64encode(b"\xff\x00").decode(), "timestamp": 4000},
    ]
    response = await door.ask_rest("POST", "/v1/topics/logs/records", json={"records": records})
    assert response.json()["records"] == [{"partition": 0, "offset": offset} for offset in range(4)]
    answer = (await door.ask_rest("GET", "/v1/topics/logs/records")).json()
    text, document, tombstone, binary = answer["records"]
    assert (text["key"], text["value"], text["headers"]) == ("k", "täxt", [{"name": "h", "value": "v"}])
    assert (document["value"], document["timestamp"]) == ('{"a": [1, null]}', 2000)
    assert (tombstone["key"], tombstone["value"]) == ("tombstone", None)
    assert (binary["value"], binary["value_base64"]) == (None, "/wA=")
    assert (answer["next_offset"], answer["high_watermark"]) == (4, 4)
    since = (await door.ask_rest("GET", "/v1/topics/logs/records?timestamp=2500")).json()
    assert [record["offset"] for record in since["records"]] == [2, 3]
    after = (await door.ask_rest("GET", "/v1/topics/logs/records?timestamp=9999")).json()
    assert (after["records"], after["next_offset"]) == ([], 4)


async def test_pages_follow_one_another_without_gap_or_repeat(door: Door) -> None:
    await made(door)
    for start in range(0, 30, 10):
        records = [{"value": str(number)} for number in range(start, start + 10)]
        await door.ask_rest("POST", "/v1/topics/logs/records", json={"records": records})
    seen, offset = [], 0
    while True:
        page = (await door.ask_rest("GET", f"/v1/topics/logs/records?offset={offset}&limit=7")).json()
        if not page["records"]:
            break
        seen += [int(record["value"]) for record in page["records"]]
        offset = page["next_offset"]
    assert seen == list(range(30))


async def test_more_than_a_batch_holds_keeps_its_order(door: Door) -> None:
    await made(door)
    size = BATCH_BYTES // 3
    body = {"records": [{"value": f"{number}{'x' * size}"} for number in range(8)]}
    response = await door.ask_rest("POST", "/v1/topics/logs/records", json=body)
    assert [place["offset"] for place in response.json()["records"]] == list(range(8))
    log = door.topics.get("logs").partition(0)
    assert log.high_watermark == 8


async def test_a_failure_says_what_became_of_each_record(door: Door) -> None:
    await made(door)
    body = {"records": [{"value": "good"}, {"value": "x", "partition": 9}, {"value": "also good"}]}
    response = await door.ask_rest("POST", "/v1/topics/logs/records", json=body)
    first, second, third = response.json()["error"]["details"]["records"]
    assert (response.status_code, first, third) == (404, {"partition": 0, "offset": 0}, {"partition": 0, "offset": 1})
    assert second["error"]["code"] == "UNKNOWN_TOPIC"


async def test_aborted_records_and_markers_are_not_shown(door: Door) -> None:
    """What a fetch carries for a consumer to leave out is left out here."""
    from broker.gateways.records import _decode
    from protocol.messages import FetchResponse
    from protocol.record_batch import build_marker, patch_batch

    def at(offset: int, data: bytes | bytearray) -> bytes:
        patched = bytearray(data)
        patch_batch(patched, 0, offset, len(patched) - 12, 0)
        return bytes(patched)

    transactional = {"producer_id": 5, "producer_epoch": 0, "base_sequence": 0, "attributes": 0x10}
    marker = build_marker(commit=False, producer_id=5, producer_epoch=0, coordinator_epoch=0, timestamp_ms=1)
    records = b"".join(
        [
            at(0, batch(b"plain")),
            at(1, bytes(build_batch([Record(0, 1, None, b"aborted")], **transactional))),
            at(2, batch(b"plain too")),
            at(3, marker),
            at(4, bytes(build_batch([Record(0, 1, None, b"committed")], **transactional))),
        ]
    )
    data = FetchResponse.PartitionData(
        records=records, aborted_transactions=[FetchResponse.AbortedTransaction(producer_id=5, first_offset=1)]
    )
    next_offset, found = _decode(data, 0, 100)
    assert [record.value for record in found] == [b"plain", b"plain too", b"committed"]
    assert next_offset == 5


async def test_reading_creates_no_topic(door: Door) -> None:
    await door.ask_rest("GET", "/v1/topics/ghost/records")
    await door.ask_rest("POST", "/v1/topics/ghost/records", json={"records": [{"value": "x"}]})
    answer = door.ask(ApiKey.METADATA, 12, MetadataRequest(topics=None))
    assert answer.topics == []


@given(st.none() | st.binary(max_size=50))
@settings(max_examples=100, deadline=None)
def test_bytes_survive_json(data: bytes | None) -> None:
    shown = json_data("value", data)
    assert bytes_of(shown["value"] if "value_base64" not in shown else None, shown.get("value_base64")) == data
