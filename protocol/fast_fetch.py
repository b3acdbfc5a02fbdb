"""Fetch by hand, for the versions that current clients speak.

As in `protocol.fast_produce`: the usual shapes here, everything else by the generic codec, byte-equal by a property test.
"""

import struct
from typing import Any

from protocol.decoder import Decode
from protocol.encoder import Encode
from protocol.messages import FetchRequest, Message
from protocol.wire import Buffer, long_varint, record_buffers, unsigned_varint

FLEXIBLE_VERSIONS = range(12, 19)
_FIRST_WITH_TOPIC_IDS = 13
_FIRST_WITHOUT_REPLICA_ID = 15
_FIRST_WITH_ENDPOINTS = 16

# [replica id], max wait, min bytes, max bytes, isolation level, session id, session epoch, topics
_START = struct.Struct(">iiibiiB")
_START_WITH_REPLICA_ID = struct.Struct(">iiiibiiB")
# partition, leader epoch, fetch offset, last fetched epoch, log start offset, max bytes, tags
_PARTITION = struct.Struct(">iiqiqiB")
_RESPONSE_START = struct.Struct(">ihi").pack
# partition, error, high watermark, last stable offset, log start offset, aborted transactions, preferred replica
_RESPONSE_PARTITION = struct.Struct(">ihqqqBi").pack
_UUID_BYTES = 16
_ZERO_UUID = bytes(_UUID_BYTES)
_NO_REPLICA = -1
_LAST_OFFSET = 2**63 - 1  # the default of the partition's high watermark


def decoder(version: int, generic: Decode) -> Decode:
    """The request decoder of a flexible version; `generic` decodes what is unusual."""
    by_id = version >= _FIRST_WITH_TOPIC_IDS
    start_struct = _START if version >= _FIRST_WITHOUT_REPLICA_ID else _START_WITH_REPLICA_ID
    read_start, start_size = start_struct.unpack_from, start_struct.size
    with_replica_id = version < _FIRST_WITHOUT_REPLICA_ID
    new: Any = object.__new__

    def decode(data: memoryview, start: int, end: int) -> tuple[Message, int]:
        fields = read_start(data, start)
        topic_count = fields[-1]
        position = start + start_size
        if not 0 < topic_count < 0x80:
            return generic(data, start, end)
        topics = []
        for _ in range(topic_count - 1):
            topic = new(FetchRequest.FetchTopic)
            if by_id:
                name_end = position + _UUID_BYTES
                topic.topic = ""
                topic.topic_id = data[position:name_end].tobytes()
            else:
                length = data[position]
                name_end = position + length
                if not 0 < length < 0x80:
                    return generic(data, start, end)
                topic.topic = str(data[position + 1 : name_end], "utf-8", "replace")
                topic.topic_id = _ZERO_UUID
            position = _partitions(topic, data, name_end)
            if not position:
                return generic(data, start, end)
            topics.append(topic)
        rack_length = data[position + 1]
        rack_end = position + 1 + rack_length
        if data[position] != 1 or not 0 < rack_length < 0x80 or data[rack_end]:
            return generic(data, start, end)
        request = new(FetchRequest)
        request.cluster_id = None
        request.replica_id = _NO_REPLICA
        request.replica_state = FetchRequest.ReplicaState()
        if with_replica_id:
            request.replica_id = fields[0]
            fields = fields[1:]
        request.max_wait_ms, request.min_bytes, request.max_bytes, request.isolation_level = fields[:4]
        request.session_id, request.session_epoch = fields[4:6]
        request.topics = topics
        request.forgotten_topics_data = []
        request.rack_id = str(data[position + 2 : rack_end], "utf-8", "replace") if rack_length > 1 else ""
        return request, rack_end + 1

    return decode


def _partitions(topic: Any, data: memoryview, position: int) -> int:
    """Reads a topic's partitions and the end of the topic; returns the next position, or 0 if something is unusual."""
    new: Any = object.__new__
    partition_class = FetchRequest.FetchPartition
    count = data[position]
    position += 1
    if count > 0x7F:
        count, position = long_varint(count, data, position)
    if not 0 < count <= len(data) - position:
        return 0
    topic.partitions = partitions = []
    for _ in range(count - 1):
        partition = new(partition_class)
        (
            partition.partition,
            partition.current_leader_epoch,
            partition.fetch_offset,
            partition.last_fetched_epoch,
            partition.log_start_offset,
            partition.partition_max_bytes,
            tags,
        ) = _PARTITION.unpack_from(data, position)
        if tags:
            return 0
        partition.replica_directory_id = _ZERO_UUID
        partition.high_watermark = _LAST_OFFSET
        partitions.append(partition)
        position += _PARTITION.size
    return 0 if data[position] else position + 1


def encoder(version: int, generic: Encode) -> Encode:
    """The response encoder of a flexible version; `generic` encodes what is unusual."""
    by_id = version >= _FIRST_WITH_TOPIC_IDS
    with_endpoints = version >= _FIRST_WITH_ENDPOINTS

    def encode(message: Any) -> list[Buffer]:
        if with_endpoints and message.node_endpoints:
            return generic(message)
        start = _RESPONSE_START(message.throttle_time_ms, message.error_code, message.session_id)
        parts: list[Buffer] = [start, unsigned_varint(len(message.responses) + 1)]
        out: list[Buffer] = []
        for topic in message.responses:
            if by_id:
                parts.append(topic.topic_id)
            else:
                name = topic.topic.encode()
                parts += (unsigned_varint(len(name) + 1), name)
            parts.append(unsigned_varint(len(topic.partitions) + 1))
            for partition in topic.partitions:
                if partition.aborted_transactions or _has_tags(partition):
                    return generic(message)
                parts.append(
                    _RESPONSE_PARTITION(
                        partition.partition_index,
                        partition.error_code,
                        partition.high_watermark,
                        partition.last_stable_offset,
                        partition.log_start_offset,
                        0 if partition.aborted_transactions is None else 1,
                        partition.preferred_read_replica,
                    )
                )
                if partition.records is None:
                    parts.append(b"\x00\x00")
                    continue
                size, buffers = record_buffers(partition.records)
                parts.append(unsigned_varint(size + 1))
                if size:
                    out.append(b"".join(parts))
                    out += buffers
                    parts.clear()
                parts.append(b"\x00")
            parts.append(b"\x00")
        parts.append(b"\x00")
        out.append(b"".join(parts))
        return out

    return encode


def _has_tags(partition: Any) -> bool:
    """Whether one of the tagged fields differs from its default."""
    epoch, leader, snapshot = partition.diverging_epoch, partition.current_leader, partition.snapshot_id
    return bool(
        epoch.end_offset != -1
        or epoch.epoch != -1
        or leader.leader_id != -1
        or leader.leader_epoch != -1
        or snapshot.end_offset != -1
        or snapshot.epoch != -1
    )
