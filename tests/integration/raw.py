"""A Kafka connection by hand: one's own bytes in, frames out."""

import socket
import struct
from types import TracebackType
from typing import Any, Self

from protocol.codec import decode_response, encode_request
from protocol.headers import decode_response_header, encode_request_header
from protocol.messages import CreateTopicsRequest, FetchRequest, Message, ProduceRequest
from protocol.record_batch import Record, build_batch

TIMEOUT_S = 20


def frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


class RawConnection:
    """A socket that speaks frames; `None` from `receive_frame` means that the broker closed it."""

    def __init__(self, bootstrap: str) -> None:
        host, _, port = bootstrap.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        self._correlation_id = 0
        self._waiting: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.socket.close()

    def push(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, key: int, version: int, message: Message) -> bytes:
        """The frame of a request, whose answer `receive` then understands."""
        self._correlation_id += 1
        self._waiting[self._correlation_id] = key, version
        header = encode_request_header(key, version, self._correlation_id, "raw")
        return frame(b"".join([header, *encode_request(key, version, message)]))

    def receive_frame(self) -> bytes | None:
        head = self._exactly(4)
        return None if head is None else self._exactly(struct.unpack(">i", head)[0])

    def receive(self) -> tuple[int, Any]:
        """(correlation id, message) of the next answer; raises ConnectionError when the broker has closed."""
        data = self.receive_frame()
        if data is None:
            raise ConnectionError("closed by the broker")
        correlation_id = struct.unpack_from(">i", data)[0]
        key, version = self._waiting.pop(correlation_id)
        _, position = decode_response_header(key, version, memoryview(data))
        return correlation_id, decode_response(key, version, data, position)

    def call(self, key: int, version: int, message: Message) -> Any:
        self.push(self.request(key, version, message))
        return self.receive()[1]

    def _exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            try:
                piece = self.socket.recv(size - len(data))
            except ConnectionResetError:
                return None
            if not piece:
                return None
            data += piece
        return data

    # Requests that many tests need

    def create_topic(self, name: str, partitions: int = 1, **configs: str) -> None:
        Topic = CreateTopicsRequest.CreatableTopic
        Config = CreateTopicsRequest.CreatableTopicConfig
        rows = [Config(name=key.replace("_", "."), value=value) for key, value in configs.items()]
        topic = Topic(name=name, num_partitions=partitions, replication_factor=1, configs=rows)
        answer = self.call(19, 5, CreateTopicsRequest(topics=[topic], timeout_ms=10_000))
        assert answer.topics[0].error_code == 0, answer

    def produce(self, topic: str, records: bytes | None, partition: int = 0, version: int = 9, acks: int = -1) -> Any:
        """The partition's answer."""
        answer = self.call(0, version, produce_request(topic, records, partition, acks))
        return answer.responses[0].partition_responses[0]

    def fetch(self, topic: str, offset: int, partition: int = 0, version: int = 12, **fields: int) -> Any:
        """The partition's answer."""
        answer = self.call(1, version, fetch_request(topic, offset, partition, **fields))
        return answer.responses[0].partitions[0]


def batch(*values: bytes, **fields: int) -> bytes:
    return bytes(build_batch([Record(i, 1_700_000_000_000, None, value) for i, value in enumerate(values)], **fields))


def produce_request(topic: str, records: bytes | None, partition: int = 0, acks: int = -1) -> ProduceRequest:
    data = ProduceRequest.PartitionProduceData(index=partition, records=records)  # type: ignore[arg-type]
    topic_data = ProduceRequest.TopicProduceData(name=topic, partition_data=[data])
    return ProduceRequest(acks=acks, timeout_ms=10_000, topic_data=[topic_data])


def fetch_request(topic: str, offset: int, partition: int = 0, **fields: int) -> FetchRequest:
    wanted = FetchRequest.FetchPartition(partition=partition, fetch_offset=offset, partition_max_bytes=1 << 20)
    row = FetchRequest.FetchTopic(topic=topic, partitions=[wanted])
    return FetchRequest(**{"max_wait_ms": 0, "min_bytes": 1, "max_bytes": 1 << 24, **fields}, topics=[row])
