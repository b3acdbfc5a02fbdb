"""The records of consumer groups (KIP-848) in `__consumer_offsets`: one value per key, a null value deletes.

Key versions are Kafka's: 3 group, 5 member, 6 target epoch, 7 target, 8 current assignment, 16 regular expression; 4 is what
Kafka before 4.1 wrote of the topics, which nobody needs any more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from broker.coordinator.assignment import Assignment, Epochs, assignment_of
from broker.coordinator.consumer_member import ClassicSupport, CurrentAssignment, MemberAccount, MemberState
from protocol.codec import decode_data, encode_data
from protocol.messages import (
    ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupMemberMetadataValue,
    ConsumerGroupMetadataValue,
    ConsumerGroupRegularExpressionValue,
    ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupTargetAssignmentMetadataValue,
    Message,
    message_class,
)

_VALUE_VERSION = b"\0\0"
_Current = ConsumerGroupCurrentMemberAssignmentValue
_Target = ConsumerGroupTargetAssignmentMemberValue
_Member = ConsumerGroupMemberMetadataValue


@dataclass(frozen=True, slots=True)
class GroupEpoch:
    """Grows with every reason to assign anew; `metadata_hash` stands for the topics that the last one saw."""

    epoch: int
    metadata_hash: int = 0


@dataclass(frozen=True, slots=True)
class TargetEpoch:
    """The group epoch that the target assignment is for, and when it was computed (wall clock, ms)."""

    epoch: int
    computed_ms: int = 0


@dataclass(frozen=True, slots=True)
class ResolvedRegex:
    """The topics that a subscribed pattern matches; `version` counts changes of the topics, `resolved_ms` is wall clock."""

    topics: frozenset[str]
    version: int
    resolved_ms: int


@dataclass(frozen=True, slots=True)
class GroupEpochRecord:
    group_id: str
    value: GroupEpoch | None


@dataclass(frozen=True, slots=True)
class MemberRecord:
    group_id: str
    member_id: str
    value: MemberAccount | None


@dataclass(frozen=True, slots=True)
class TargetEpochRecord:
    group_id: str
    value: TargetEpoch | None


@dataclass(frozen=True, slots=True)
class TargetRecord:
    group_id: str
    member_id: str
    value: Assignment | None


@dataclass(frozen=True, slots=True)
class CurrentRecord:
    group_id: str
    member_id: str
    value: CurrentAssignment | None


@dataclass(frozen=True, slots=True)
class RegexRecord:
    group_id: str
    regex: str
    value: ResolvedRegex | None


ConsumerRecord = GroupEpochRecord | MemberRecord | TargetEpochRecord | TargetRecord | CurrentRecord | RegexRecord


class _Kind(NamedTuple):
    """How one kind of record is written: its messages' stem, the second part of its key, its value."""

    record: Callable[..., ConsumerRecord]
    message: str
    key_part: str | None
    to_message: Callable[[Any], Message]
    from_message: Callable[[Any], Any]


def encode_consumer_record(record: ConsumerRecord) -> tuple[int, bytes, bytes | None]:
    """The key's version, the rest of the key, and the value."""
    version, kind = _BY_TYPE[type(record)]
    fields = {"group_id": record.group_id}
    if kind.key_part is not None:
        fields["regular_expression" if kind.key_part == "regex" else "member_id"] = getattr(record, kind.key_part)
    key = encode_data(f"{kind.message}Key", 0, message_class(f"{kind.message}Key")(**fields))
    if record.value is None:
        return version, key, None
    return version, key, _VALUE_VERSION + encode_data(f"{kind.message}Value", 0, kind.to_message(record.value))


def decode_consumer_record(version: int, key: bytes, key_position: int, value: bytes | None) -> ConsumerRecord | None:
    """The inverse; None for a key version of another kind. Raises MalformedMessage."""
    kind = _KINDS.get(version)
    if kind is None:
        return None
    names: Any = decode_data(f"{kind.message}Key", 0, key, key_position)
    parts = [names.group_id]
    if kind.key_part is not None:
        parts.append(names.regular_expression if kind.key_part == "regex" else names.member_id)
    if value is None:
        return kind.record(*parts, None)
    message = decode_data(f"{kind.message}Value", int.from_bytes(value[:2]), value, len(_VALUE_VERSION))
    return kind.record(*parts, kind.from_message(message))


def _member_message(account: MemberAccount) -> Message:
    classic = None
    if account.classic is not None:
        classic = _Member.ClassicMemberMetadata(
            session_timeout_ms=account.classic.session_timeout_ms,
            supported_protocols=[
                _Member.ClassicProtocol(name=name, metadata=data) for name, data in account.classic.protocols
            ],
        )
    return _Member(
        instance_id=account.group_instance_id,
        rack_id=account.rack_id,
        client_id=account.client_id,
        client_host=account.client_host,
        subscribed_topic_names=sorted(account.topic_names),
        subscribed_topic_regex=account.topic_regex,
        rebalance_timeout_ms=account.rebalance_timeout_ms,
        server_assignor=account.server_assignor,
        classic_member_metadata=classic,
    )


def _member(message: ConsumerGroupMemberMetadataValue) -> MemberAccount:
    classic = message.classic_member_metadata
    return MemberAccount(
        group_instance_id=message.instance_id,
        rack_id=message.rack_id,
        client_id=message.client_id,
        client_host=message.client_host,
        topic_names=frozenset(message.subscribed_topic_names),
        topic_regex=message.subscribed_topic_regex or "",
        rebalance_timeout_ms=message.rebalance_timeout_ms,
        server_assignor=message.server_assignor,
        classic=None
        if classic is None
        else ClassicSupport(
            classic.session_timeout_ms,
            tuple((protocol.name, protocol.metadata) for protocol in classic.supported_protocols),
        ),
    )


def _target_message(assignment: Assignment) -> Message:
    return _Target(
        topic_partitions=[
            _Target.TopicPartition(topic_id=topic_id, partitions=sorted(partitions))
            for topic_id, partitions in assignment.items()
        ]
    )


def _current_message(current: CurrentAssignment) -> Message:
    return _Current(
        member_epoch=current.epoch,
        previous_member_epoch=current.previous_epoch,
        state=current.state,
        assigned_partitions=_with_epochs(current.assigned),
        partitions_pending_revocation=_with_epochs(current.revoking),
    )


def _with_epochs(epochs: Epochs) -> list[ConsumerGroupCurrentMemberAssignmentValue.TopicPartitions]:
    return [
        _Current.TopicPartitions(
            topic_id=topic_id, partitions=list(partitions), assignment_epochs=list(partitions.values())
        )
        for topic_id, partitions in epochs.items()
    ]


def _current(message: ConsumerGroupCurrentMemberAssignmentValue) -> CurrentAssignment:
    known = message.state in set(MemberState)
    return CurrentAssignment(
        epoch=message.member_epoch,
        previous_epoch=message.previous_member_epoch,
        state=MemberState(message.state) if known else MemberState.UNKNOWN,
        assigned=_epochs(message.assigned_partitions, message.member_epoch),
        revoking=_epochs(message.partitions_pending_revocation, message.member_epoch),
    )


def _epochs(entries: list[ConsumerGroupCurrentMemberAssignmentValue.TopicPartitions], member_epoch: int) -> Epochs:
    """Records of before KIP-1251 have no assignment epochs: the member's own stands for them."""
    found: dict[bytes, dict[int, int]] = {}
    for entry in entries:
        epochs = entry.assignment_epochs
        if epochs is None or len(epochs) != len(entry.partitions):
            epochs = [max(member_epoch, 0)] * len(entry.partitions)
        found[entry.topic_id] = dict(zip(entry.partitions, epochs, strict=True))
    return found


_KINDS = {
    3: _Kind(
        GroupEpochRecord,
        "ConsumerGroupMetadata",
        None,
        lambda value: ConsumerGroupMetadataValue(epoch=value.epoch, metadata_hash=value.metadata_hash),
        lambda message: GroupEpoch(message.epoch, message.metadata_hash),
    ),
    5: _Kind(MemberRecord, "ConsumerGroupMemberMetadata", "member_id", _member_message, _member),
    6: _Kind(
        TargetEpochRecord,
        "ConsumerGroupTargetAssignmentMetadata",
        None,
        lambda value: ConsumerGroupTargetAssignmentMetadataValue(
            assignment_epoch=value.epoch, assignment_timestamp=value.computed_ms
        ),
        lambda message: TargetEpoch(message.assignment_epoch, message.assignment_timestamp),
    ),
    7: _Kind(
        TargetRecord,
        "ConsumerGroupTargetAssignmentMember",
        "member_id",
        _target_message,
        lambda message: assignment_of(message.topic_partitions),
    ),
    8: _Kind(CurrentRecord, "ConsumerGroupCurrentMemberAssignment", "member_id", _current_message, _current),
    16: _Kind(
        RegexRecord,
        "ConsumerGroupRegularExpression",
        "regex",
        lambda value: ConsumerGroupRegularExpressionValue(
            topics=sorted(value.topics), version=value.version, timestamp=value.resolved_ms
        ),
        lambda message: ResolvedRegex(frozenset(message.topics), message.version, message.timestamp),
    ),
}
_BY_TYPE = {kind.record: (version, kind) for version, kind in _KINDS.items()}
