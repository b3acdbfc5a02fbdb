"""Produce by hand: the two messages that a broker handles most often, for the versions that current clients speak.

The decoder takes the shapes that clients send (no transactional id, short names, no tags) and leaves every other one to
the generic decoder; the encoder takes responses without errors likewise. A property test holds both byte-equal to it.
"""

import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from protocol.decoder import Decode
from protocol.encoder import Encode
from protocol.errors import ErrorCode
from protocol.messages import Message, ProduceRequest, ProduceResponse
from protocol.wire import Buffer, long_varint, unsigned_varint

FLEXIBLE_VERSIONS = range(9, 14)
FIRST_WITH_TOPIC_IDS = 13
_FIRST_WITH_LEADERS = 10

_START = struct.Struct(">xhiB").unpack_from  # null transactional id, acks, timeout, topics
_PARTITION = struct.Struct(">iB").unpack_from  # index, first byte of the records' length
_RESPONSE_PARTITION = struct.Struct(">ihqqqBBx").pack
_RESPONSE_END = struct.Struct(">ix").pack
_FAILURE = struct.Struct(">hq")  # error code, base offset
_OFFSETS_BYTES, _TAIL_BYTES = 24, 9
_UUID_BYTES = 16
_ZERO_UUID = bytes(_UUID_BYTES)


def decoder(version: int, generic: Decode) -> Decode:
    """The request decoder of a flexible version; `generic` decodes what is unusual."""
    by_id = version >= FIRST_WITH_TOPIC_IDS
    new: Any = object.__new__
    topic_class = ProduceRequest.TopicProduceData

    def decode(data: memoryview, start: int, end: int) -> tuple[Message, int]:
        acks, timeout_ms, topic_count = _START(data, start)
        if data[start] or not 0 < topic_count < 0x80:
            return generic(data, start, end)
        position = start + 8
        topics = []
        while topic_count > 1:  # a while loop of one round takes 0.03 µs, a for loop over a range 0.1
            topic_count -= 1
            topic = new(topic_class)
            if by_id:
                name_end = position + _UUID_BYTES
                topic.name = ""
                topic.topic_id = data[position:name_end].tobytes()
            else:
                length = data[position]
                name_end = position + length
                if not 0 < length < 0x80:
                    return generic(data, start, end)
                topic.name = str(data[position + 1 : name_end], "utf-8", "replace")
                topic.topic_id = _ZERO_UUID
            position = _partitions(topic, data, name_end)
            if not position:
                return generic(data, start, end)
            topics.append(topic)
        if data[position]:
            return generic(data, start, end)
        request = new(ProduceRequest)
        request.transactional_id = None
        request.acks = acks
        request.timeout_ms = timeout_ms
        request.topic_data = topics
        return request, position + 1

    return decode


def _partitions(topic: Any, data: memoryview, position: int) -> int:
    """Reads a topic's partitions and the end of the topic; returns the next position, or 0 if something is unusual."""
    new: Any = object.__new__
    partition_class = ProduceRequest.PartitionProduceData
    count = data[position]
    if not 0 < count < 0x80:
        return 0
    position += 1
    topic.partition_data = partitions = []
    while count > 1:
        count -= 1
        partition = new(partition_class)
        partition.index, size = _PARTITION(data, position)
        position += 5
        if size > 0x7F:
            if data[position] < 0x80:
                size += (data[position] - 1) << 7
                position += 1
            else:
                size, position = long_varint(size, data, position)
        records_end = position + size - 1
        if not size or data[records_end]:  # null records, or tags behind them
            return 0
        partition.records = data[position:records_end]
        partitions.append(partition)
        position = records_end + 1
    return 0 if data[position] else position + 1


def encoder(version: int, generic: Encode) -> Encode:
    """The response encoder of a flexible version; `generic` encodes responses with errors, throttling or leaders."""
    by_id = version >= FIRST_WITH_TOPIC_IDS
    with_leaders = version >= _FIRST_WITH_LEADERS

    def encode(message: Any) -> list[Buffer]:
        parts = [unsigned_varint(len(message.responses) + 1)]
        if with_leaders and message.node_endpoints:
            return generic(message)
        for topic in message.responses:
            if by_id:
                parts.append(topic.topic_id)
            else:
                name = topic.name.encode()
                parts += (unsigned_varint(len(name) + 1), name)
            parts.append(unsigned_varint(len(topic.partition_responses) + 1))
            for partition in topic.partition_responses:
                if partition.record_errors or partition.error_message is not None:
                    return generic(message)
                if with_leaders:
                    leader = partition.current_leader
                    if leader.leader_id != -1 or leader.leader_epoch != -1:
                        return generic(message)
                parts.append(
                    _RESPONSE_PARTITION(
                        partition.index,
                        partition.error_code,
                        partition.base_offset,
                        partition.log_append_time_ms,
                        partition.log_start_offset,
                        1,
                        0,
                    )
                )
            parts.append(b"\x00")
        parts.append(_RESPONSE_END(message.throttle_time_ms))
        return [b"".join(parts)]

    return encode


Answer: TypeAlias = Callable[[int, int, int, int], bytes]
"""A whole response frame by correlation id, base offset, log append time in ms and log start offset."""


def answer_encoder(encode: Encode, name: str, topic_id: bytes, partition: int) -> Answer:
    """Encodes responses to requests of one partition that went well, by filling in what differs between them."""
    row = ProduceResponse.PartitionProduceResponse(index=partition)
    topic = ProduceResponse.TopicProduceResponse(name=name, topic_id=topic_id, partition_responses=[row])
    body = b"".join(encode(ProduceResponse(responses=[topic])))
    head, tail = b"\0" + body[: -_OFFSETS_BYTES - _TAIL_BYTES], body[-_TAIL_BYTES:]
    layout = struct.Struct(f">ii{len(head)}sqqq{len(tail)}s")
    pack, size = layout.pack, layout.size - 4

    def answer(correlation_id: int, base_offset: int, log_append_time_ms: int, log_start_offset: int) -> bytes:
        return pack(size, correlation_id, head, base_offset, log_append_time_ms, log_start_offset, tail)

    return answer


def failed_answer(answer: bytes) -> bytes:
    """The same response frame for a batch that could not be made durable."""
    failed = bytearray(answer)
    position = len(failed) - _TAIL_BYTES - _OFFSETS_BYTES - 2
    _FAILURE.pack_into(failed, position, ErrorCode.KAFKA_STORAGE_ERROR, -1)
    return bytes(failed)
