"""The records of `__consumer_offsets`, in Kafka's own format, so that Kafka's tools can read ours and we can read theirs.

A key is a version number (1: committed offset, 2: classic group, others: consumer groups) and its fields; a value is the
schema's version and its fields; a null value deletes. As Kafka 4.3 does, classic groups are written in version 3, offsets in
version 4 with the topic's id, offsets with a retention of their own (OffsetCommit before v5) in version 1, which has a place
for it.
"""

import struct
from dataclasses import dataclass

from broker.coordinator.consumer_records import ConsumerRecord, decode_consumer_record, encode_consumer_record
from broker.coordinator.group_metadata import GroupMetadata, MemberMetadata
from protocol.codec import decode_data, encode_data
from protocol.messages import GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue

_VERSION = struct.Struct(">h")
_OFFSET_KEY_VERSIONS = (0, 1)
_GROUP_KEY_VERSION = 2
_GROUP_VERSION = 3
_OFFSET_VERSION = 4
_EXPIRING_OFFSET_VERSION = 1
NO_TOPIC_ID = bytes(16)
OFFSETS_TOPIC = "__consumer_offsets"
# As Kafka creates it (offsets.topic.segment.bytes, compression none, compacted).
OFFSETS_TOPIC_CONFIGS: dict[str, str | None] = {
    "cleanup.policy": "compact",
    "compression.type": "producer",
    "segment.bytes": str(100 * 1024 * 1024),
}

KeyValue = tuple[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """One committed offset; leader epoch and expire timestamp are -1 and the topic id is zero when not given."""

    offset: int
    leader_epoch: int
    metadata: str
    commit_timestamp_ms: int
    expire_timestamp_ms: int = -1
    topic_id: bytes = NO_TOPIC_ID

    def belongs_to(self, topic_id: bytes) -> bool:
        """False when it was committed for another topic of the same name, one that has been deleted since."""
        return NO_TOPIC_ID in (self.topic_id, topic_id) or self.topic_id == topic_id


@dataclass(frozen=True, slots=True)
class OffsetRecord:
    """A commit, or with `value` None its deletion."""

    group_id: str
    topic: str
    partition: int
    value: CommittedOffset | None


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """A generation of a group, or with `value` None the group's deletion."""

    group_id: str
    value: GroupMetadata | None


CoordinatorRecord = OffsetRecord | GroupRecord | ConsumerRecord


def encode_record(record: CoordinatorRecord) -> KeyValue:
    """Key and value as they are written to the log."""
    if isinstance(record, OffsetRecord):
        key = OffsetCommitKey(group=record.group_id, topic=record.topic, partition=record.partition)
        version = _OFFSET_KEY_VERSIONS[-1]
        key_bytes = _VERSION.pack(version) + encode_data("OffsetCommitKey", version, key)
        return key_bytes, None if record.value is None else _encode_offset(record.value)
    if not isinstance(record, GroupRecord):
        version, key_bytes, value_bytes = encode_consumer_record(record)
        return _VERSION.pack(version) + key_bytes, value_bytes
    group_key = encode_data("GroupMetadataKey", _GROUP_KEY_VERSION, GroupMetadataKey(group=record.group_id))
    return _VERSION.pack(_GROUP_KEY_VERSION) + group_key, None if record.value is None else _encode_group(record.value)


def decode_record(key: bytes, value: bytes | None) -> CoordinatorRecord | None:
    """The inverse; None for a key of another kind (share and streams groups, and what may come). Raises MalformedMessage."""
    if len(key) < _VERSION.size:
        return None
    (version,) = _VERSION.unpack_from(key)
    if version in _OFFSET_KEY_VERSIONS:
        offset_key: OffsetCommitKey = decode_data("OffsetCommitKey", version, key, _VERSION.size)
        committed = None if value is None else _decode_offset(value)
        return OffsetRecord(offset_key.group, offset_key.topic, offset_key.partition, committed)
    if version == _GROUP_KEY_VERSION:
        group_key: GroupMetadataKey = decode_data("GroupMetadataKey", version, key, _VERSION.size)
        return GroupRecord(group_key.group, None if value is None else _decode_group(value))
    return decode_consumer_record(version, key, _VERSION.size, value)


def _encode_offset(offset: CommittedOffset) -> bytes:
    version = _OFFSET_VERSION if offset.expire_timestamp_ms < 0 else _EXPIRING_OFFSET_VERSION
    value = OffsetCommitValue(
        offset=offset.offset,
        leader_epoch=offset.leader_epoch,
        metadata=offset.metadata,
        commit_timestamp=offset.commit_timestamp_ms,
        expire_timestamp=offset.expire_timestamp_ms,
        topic_id=offset.topic_id,
    )
    return _VERSION.pack(version) + encode_data("OffsetCommitValue", version, value)


def _decode_offset(data: bytes) -> CommittedOffset:
    value: OffsetCommitValue = decode_data("OffsetCommitValue", _VERSION.unpack_from(data)[0], data, _VERSION.size)
    return CommittedOffset(
        offset=value.offset,
        leader_epoch=value.leader_epoch,
        metadata=value.metadata,
        commit_timestamp_ms=value.commit_timestamp,
        expire_timestamp_ms=value.expire_timestamp,
        topic_id=value.topic_id,
    )


def _encode_group(metadata: GroupMetadata) -> bytes:
    value = GroupMetadataValue(
        protocol_type=metadata.protocol_type or "",
        generation=metadata.generation_id,
        protocol=metadata.protocol_name,
        leader=metadata.leader_id,
        current_state_timestamp=metadata.state_timestamp_ms,
        members=[
            GroupMetadataValue.MemberMetadata(
                member_id=member.member_id,
                group_instance_id=member.group_instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                rebalance_timeout=member.rebalance_timeout_ms,
                session_timeout=member.session_timeout_ms,
                subscription=member.subscription,
                assignment=member.assignment,
            )
            for member in metadata.members
        ],
    )
    return _VERSION.pack(_GROUP_VERSION) + encode_data("GroupMetadataValue", _GROUP_VERSION, value)


def _decode_group(data: bytes) -> GroupMetadata:
    version = _VERSION.unpack_from(data)[0]
    value: GroupMetadataValue = decode_data("GroupMetadataValue", version, data, _VERSION.size)
    return GroupMetadata(
        generation_id=value.generation,
        protocol_type=value.protocol_type or None,
        protocol_name=value.protocol,
        leader_id=value.leader,
        state_timestamp_ms=value.current_state_timestamp,
        members=tuple(
            MemberMetadata(
                member_id=member.member_id,
                group_instance_id=member.group_instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                rebalance_timeout_ms=member.rebalance_timeout if version else -1,
                session_timeout_ms=member.session_timeout,
                subscription=member.subscription,
                assignment=member.assignment,
            )
            for member in value.members
        ),
    )
