"""Records over REST: produce them as JSON, read them from an offset or a time. The Produce and Fetch handlers do the work."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from kafka.partitioner import murmur2
from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from broker.gateways.body import Offset, PartitionId, Strict
from broker.gateways.data import bytes_of, json_data, milliseconds
from broker.gateways.documents import NO_PARAMETERS, errors
from broker.gateways.errors import error_body, kafka_error_response
from broker.gateways.in_process import InProcessClient, check
from broker.gateways.topics import Administration, TopicPath
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import FetchRequest, FetchResponse, ListOffsetsRequest, ProduceRequest
from protocol.record_batch import Record, build_batch, iterate_records, walk_batches

if TYPE_CHECKING:
    from broker.services import Services

PRODUCE_VERSION, FETCH_VERSION, LIST_OFFSETS_VERSION = 12, 12, 7  # the last ones that name topics
RECORDS_MAX = 10_000
"""Of one request in either direction: a tenth of a second of JSON."""
KEY_BYTES_MAX = 65_536
"""Of a key that chooses the partition: its hash, in Python, takes 0.4 ms for 1 KB."""
BATCH_BYTES = 512 * 1024
"""Records beyond that go into the next batch: below max.message.bytes, which is 1 MB unless the topic says otherwise."""
READ_BYTES_MAX = 8 * 1024 * 1024
WAIT_MS_MAX = 30_000
_PRODUCE_TIMEOUT_MS = 30_000


class HeaderBody(Strict):
    """A record's header."""

    name: str
    value: JsonValue = None
    value_base64: str | None = None

    @model_validator(mode="after")
    def _encodable(self) -> "HeaderBody":
        self.pair()
        return self

    def pair(self) -> tuple[str, bytes | None]:
        """As a record holds it. Raises ValueError."""
        bytes_of(self.name, None)
        return self.name, bytes_of(self.value, self.value_base64)


class RecordBody(Strict):
    """A record. A text is stored as it is, any other JSON value as JSON; bytes are given in base64; null is Kafka's null."""

    partition: PartitionId | None = Field(
        None, description="by the key's murmur2 hash, as Kafka's clients do, if left out"
    )
    key: JsonValue = None
    key_base64: str | None = None
    value: JsonValue = None
    value_base64: str | None = None
    headers: list[HeaderBody] = Field([])
    timestamp: int | str | None = Field(None, description="milliseconds since 1970, or ISO 8601; now, if left out")

    @field_validator("timestamp")
    @classmethod
    def _milliseconds(cls, value: int | str | None) -> int | None:
        return None if value is None else milliseconds(value)

    @model_validator(mode="after")
    def _encodable(self) -> "RecordBody":
        for name in ("key", "value"):
            try:
                bytes_of(getattr(self, name), getattr(self, f"{name}_base64"))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return self

    def record(self, now_ms: int) -> Record:
        """As the log keeps it."""
        key, value = bytes_of(self.key, self.key_base64), bytes_of(self.value, self.value_base64)
        timestamp = self.timestamp if isinstance(self.timestamp, int) else now_ms
        return Record(0, timestamp, key, value, [header.pair() for header in self.headers])


class ProduceBody(Strict):
    """Records to append, in this order within each partition."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "records": [
                        {
                            "key": "db-7",
                            "value": "connection refused",
                            "headers": [{"name": "level", "value": "error"}],
                        },
                        {"value": {"service": "pay", "message": "card declined"}, "partition": 0},
                    ]
                }
            ]
        }
    )
    records: list[RecordBody] = Field(min_length=1, max_length=RECORDS_MAX)


class Place(BaseModel):
    partition: int
    offset: int


class ProducedRecords(BaseModel):
    records: list[Place] = Field(description="where each record is, in the order of the request")


class ReadParameters(BaseModel):
    """Where to read."""

    model_config = ConfigDict(extra="forbid")

    partition: PartitionId = 0
    offset: Literal["earliest", "latest"] | Offset = Field("earliest", description="an offset, earliest or latest")
    timestamp: str | None = Field(
        None,
        description="from the first record of this time or later: milliseconds since 1970, or ISO 8601",
        examples=["1704067200000"],
    )
    limit: int = Field(100, ge=1, le=RECORDS_MAX, description="records")
    max_bytes: int = Field(
        1024 * 1024, ge=1, le=READ_BYTES_MAX, description="of batches, as in Kafka: one is always read"
    )
    wait_ms: int = Field(0, ge=0, le=WAIT_MS_MAX, description="how long to wait for a record if there is none")
    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed"

    @field_validator("timestamp")
    @classmethod
    def _milliseconds(cls, value: str | None) -> str | None:
        return None if value is None else str(milliseconds(int(value) if value.isdecimal() else value))

    @model_validator(mode="after")
    def _one(self) -> "ReadParameters":
        if self.timestamp is not None and "offset" in self.model_fields_set:
            raise ValueError("give offset or timestamp, not both")
        return self


class ReadHeader(BaseModel):
    name: str
    value: str | None
    value_base64: str | None = None


class ReadRecord(BaseModel):
    """Bytes that are no UTF-8 stand in `key_base64` and `value_base64`."""

    offset: int
    timestamp: int
    key: str | None
    value: str | None
    key_base64: str | None = None
    value_base64: str | None = None
    headers: list[ReadHeader]


class ReadRecords(BaseModel):
    topic: str
    partition: int
    log_start_offset: int
    high_watermark: int
    last_stable_offset: int
    next_offset: int = Field(description="where to go on reading")
    records: list[ReadRecord]


def record_routes(services: "Services") -> APIRouter:
    """`/v1/topics/{topic}/records`."""
    router = APIRouter(tags=["records"])
    turns = itertools.count()  # records without a key go to one partition per request, in turn

    @router.post(
        "/v1/topics/{topic}/records",
        status_code=201,
        summary="Produce records",
        description="Answered when all are durable. On an error `details.records` says for each record where it is, or why not.",
        response_model=ProducedRecords,
        responses=errors(404, 409, 504),
        dependencies=[NO_PARAMETERS],
    )
    async def produce(request: Request, topic: TopicPath, body: ProduceBody) -> JSONResponse:
        client = InProcessClient.of(services, request)
        (found,) = await Administration(client).metadata(topic)
        placed = _place(body.records, len(found.partitions), next(turns), services.clock.time_ms())
        outcomes = await _Appending(client, topic).run(placed)
        return _produced(outcomes)

    @router.get(
        "/v1/topics/{topic}/records",
        summary="Read a partition's records from an offset or a time",
        response_model=ReadRecords,
        responses=errors(404),
    )
    async def read(request: Request, topic: TopicPath, where: Annotated[ReadParameters, Query()]) -> JSONResponse:
        return JSONResponse(await _read(InProcessClient.of(services, request), topic, where))

    return router


# Producing

_Placed: TypeAlias = dict[int, list[tuple[int, Record]]]
"""By partition: the records, each with its position in the request."""
_Outcomes: TypeAlias = dict[int, "tuple[int, int] | KafkaError"]
"""By position in the request: (partition, offset), or why there is none."""


def _place(bodies: list[RecordBody], partitions: int, turn: int, now_ms: int) -> _Placed:
    placed: _Placed = {}
    for position, body in enumerate(bodies):
        record = body.record(now_ms)
        if body.partition is not None:
            partition = body.partition
        elif record.key is None:
            partition = turn % partitions
        elif len(record.key) > KEY_BYTES_MAX:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"records.{position}.key: {len(record.key)} bytes are above the limit of {KEY_BYTES_MAX} for a key that "
                "chooses the partition",
            )
        else:
            partition = (murmur2(record.key) & 0x7FFFFFFF) % partitions
        placed.setdefault(partition, []).append((position, record))
    return placed


@dataclass(slots=True)
class _Chunk:
    """Records of one partition that become one batch."""

    partition: int
    positions: list[int] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    size: int = 0


def _chunks(placed: _Placed) -> Iterator[_Chunk]:
    for partition, entries in placed.items():
        chunk = _Chunk(partition)
        for position, record in entries:
            size = len(record.key or b"") + len(record.value or b"")
            size += sum(len(name) + len(value or b"") for name, value in record.headers)
            if chunk.records and chunk.size + size > BATCH_BYTES:
                yield chunk
                chunk = _Chunk(partition)
            chunk.positions.append(position)
            chunk.records.append(record)
            chunk.size += size
        yield chunk


class _Appending:
    """The batches of one request: after one that failed, its partition gets no more, so that the order holds."""

    def __init__(self, client: InProcessClient, topic: str) -> None:
        self._client = client
        self._topic = topic
        self._failed: dict[int, KafkaError] = {}
        self._outcomes: _Outcomes = {}

    async def run(self, placed: _Placed) -> _Outcomes:
        for chunk in _chunks(placed):
            error = self._failed.get(chunk.partition)
            if error is not None:
                self._outcomes |= dict.fromkeys(chunk.positions, error)
                continue
            try:
                base_offset = await self._append(chunk)
            except KafkaError as failure:
                self._failed[chunk.partition] = failure
                self._outcomes |= dict.fromkeys(chunk.positions, failure)
            else:
                places = ((chunk.partition, base_offset + delta) for delta in range(len(chunk.records)))
                self._outcomes |= dict(zip(chunk.positions, places, strict=True))
        return self._outcomes

    async def _append(self, chunk: _Chunk) -> int:
        batch = memoryview(build_batch(chunk.records))
        row = ProduceRequest.PartitionProduceData(index=chunk.partition, records=batch)
        topic = ProduceRequest.TopicProduceData(name=self._topic, partition_data=[row])
        request = ProduceRequest(acks=-1, timeout_ms=_PRODUCE_TIMEOUT_MS, topic_data=[topic])
        response = await self._client.send(ApiKey.PRODUCE, PRODUCE_VERSION, request)
        answer = response.responses[0].partition_responses[0]
        if answer.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            raise KafkaError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"topic {self._topic!r} has no partition {chunk.partition}"
            )
        check(answer.error_code, answer.error_message)
        return int(answer.base_offset)


def _produced(outcomes: _Outcomes) -> JSONResponse:
    rows: list[dict[str, Any]] = []
    first: KafkaError | None = None
    for position in range(len(outcomes)):
        outcome = outcomes[position]
        if isinstance(outcome, KafkaError):
            first = first or outcome
            rows.append({"error": error_body(outcome)})
        else:
            rows.append({"partition": outcome[0], "offset": outcome[1]})
    if first is not None:
        return kafka_error_response(first, records=rows)
    return JSONResponse({"records": rows}, 201)


# Reading


async def _read(client: InProcessClient, topic: str, where: ReadParameters) -> dict[str, Any]:
    (found,) = await Administration(client).metadata(topic)
    if where.partition >= len(found.partitions):
        raise KafkaError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            f"topic {topic!r} has no partition {where.partition}, it has {len(found.partitions)}",
        )
    offset = await _start(client, topic, where)
    partition = FetchRequest.FetchPartition(
        partition=where.partition, fetch_offset=offset, partition_max_bytes=where.max_bytes
    )
    request = FetchRequest(
        max_wait_ms=where.wait_ms,
        min_bytes=1,
        max_bytes=where.max_bytes,
        isolation_level=int(where.isolation == "read_committed"),
        topics=[FetchRequest.FetchTopic(topic=topic, partitions=[partition])],
    )
    response = await client.send(ApiKey.FETCH, FETCH_VERSION, request)
    check(response.error_code)
    data = response.responses[0].partitions[0]
    if data.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
        raise KafkaError(
            ErrorCode.OFFSET_OUT_OF_RANGE, f"offset: {offset} lies outside of what partition {where.partition} holds"
        )
    check(data.error_code)
    next_offset, records = _decode(data, offset, where.limit)
    return {
        "topic": topic,
        "partition": where.partition,
        "log_start_offset": data.log_start_offset,
        "high_watermark": data.high_watermark,
        "last_stable_offset": data.last_stable_offset,
        "next_offset": next_offset,
        "records": [_shown(record) for record in records],
    }


async def _start(client: InProcessClient, topic: str, where: ReadParameters) -> int:
    if where.timestamp is None and not isinstance(where.offset, str):
        return where.offset
    isolation_level = int(where.isolation == "read_committed")
    times = [-1] if where.offset == "latest" else [-2]
    if where.timestamp is not None:
        times = [int(where.timestamp), -1]  # the end, when no record is as late
    for timestamp in times:
        row = ListOffsetsRequest.ListOffsetsPartition(
            partition_index=where.partition, timestamp=timestamp, current_leader_epoch=-1
        )
        asked = ListOffsetsRequest.ListOffsetsTopic(name=topic, partitions=[row])
        request = ListOffsetsRequest(replica_id=-1, isolation_level=isolation_level, topics=[asked])
        found = (await client.send(ApiKey.LIST_OFFSETS, LIST_OFFSETS_VERSION, request)).topics[0].partitions[0]
        check(found.error_code)
        if found.offset >= 0:
            break
    return int(found.offset)


def _decode(data: FetchResponse.PartitionData, offset: int, limit: int) -> tuple[int, list[Record]]:
    """(where to go on, the records from `offset` on), as a consumer sees them: no markers, no aborted transactions."""
    buffers = data.records if isinstance(data.records, list | tuple) else [data.records or b""]
    batches = memoryview(b"".join(buffers))
    aborted = sorted((row.first_offset, row.producer_id) for row in data.aborted_transactions or ())
    open_aborted: set[int] = set()
    records: list[Record] = []
    next_offset = offset
    for header in walk_batches(batches):
        while aborted and aborted[0][0] <= header.last_offset:
            open_aborted.add(aborted.pop(0)[1])
        if header.control:
            open_aborted.discard(header.producer_id)
        elif not (header.transactional and header.producer_id in open_aborted):
            for record in iterate_records(batches[header.position : header.position + header.size]):
                if record.offset < offset:
                    continue
                if len(records) == limit:
                    return next_offset, records
                records.append(record)
                next_offset = record.offset + 1
        next_offset = header.last_offset + 1
    return next_offset, records


def _shown(record: Record) -> dict[str, Any]:
    return {
        "offset": record.offset,
        "timestamp": record.timestamp_ms,
        **json_data("key", record.key),
        **json_data("value", record.value),
        "headers": [{"name": name, **json_data("value", value)} for name, value in record.headers],
    }
