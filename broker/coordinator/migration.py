"""A group goes from one protocol to the other while its members work (KIP-848, online upgrade and downgrade).

The first member that speaks the new protocol makes a consumer group of a classic one; its classic members stay, keep what they
have, and are served by `classic_in_consumer`. When only classic members are left, it becomes a classic group again.
"""

from typing import TYPE_CHECKING

import structlog

from broker.coordinator.assignment import NOTHING, with_epoch
from broker.coordinator.classic_group import ClassicGroup
from broker.coordinator.classic_member import ClassicMember
from broker.coordinator.classic_state import CONSUMER_PROTOCOL_TYPE
from broker.coordinator.consumer_member import ClassicSupport, CurrentAssignment, MemberAccount
from broker.coordinator.consumer_records import (
    CurrentRecord,
    GroupEpoch,
    GroupEpochRecord,
    MemberRecord,
    TargetEpoch,
    TargetEpochRecord,
    TargetRecord,
)
from broker.coordinator.effects import Effects, TimerKind
from broker.coordinator.embedded_protocol import read_assignment, read_subscription, write_assignment
from broker.coordinator.topic_catalog import metadata_hash
from protocol.errors import ErrorCode, KafkaError, MalformedMessage

if TYPE_CHECKING:
    from broker.coordinator.consumer_group import ConsumerGroup

logger = structlog.get_logger(__name__)


def upgraded(classic: ClassicGroup, consumer: "ConsumerGroup", effects: Effects) -> None:
    """Fills a new consumer group with the members of a classic one, which gives up. Raises KafkaError GROUP_ID_NOT_FOUND.

    The effects' records delete the one and write the other.
    """
    name = f"Cannot upgrade classic group {classic.group_id} to consumer group because"
    if classic.protocol_type != CONSUMER_PROTOCOL_TYPE:
        reason = f"{name} the group does not use the consumer embedded protocol."
        raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, reason)
    if len(classic.roster) > consumer.settings().members_max:
        reason = f"{name} the group size exceeds the consumer group maximum size."
        raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, reason)
    effects.records += classic.deletion_records()
    try:
        for member in classic.roster.members.values():
            _take_over_member(classic, member, consumer, effects)
    except MalformedMessage:
        reason = f"{name} the embedded consumer protocol is malformed."
        raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, reason) from None
    generation_id, group_id = classic.generation_id, classic.group_id
    seen = metadata_hash(consumer.roster.subscribed_topics(), consumer.topics)
    consumer.put(effects, GroupEpochRecord(group_id, GroupEpoch(generation_id, seen)))
    consumer.put(effects, TargetEpochRecord(group_id, TargetEpoch(generation_id)))
    effects.replacement = consumer
    classic.give_up(effects)
    logger.info("group upgraded", group=group_id, members=len(classic.roster), epoch=generation_id)


def _take_over_member(
    classic: ClassicGroup, member: ClassicMember, consumer: "ConsumerGroup", effects: Effects
) -> None:
    group_id, member_id, epoch = classic.group_id, member.member_id, classic.generation_id
    assignment, has_user_data = read_assignment(member.assignment, consumer.topics)
    if has_user_data:
        reason = (
            f"Cannot upgrade classic group {group_id} to consumer group because an unsupported custom assignor is in use. "
            "Please refer to the documentation or switch to a default assignor before re-attempting the upgrade."
        )
        raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, reason)
    # Before its first generation a group has no protocol yet: the member's favourite says the same.
    subscription = read_subscription(member.metadata(classic.protocol_name) or member.protocols[0][1], consumer.topics)
    account = MemberAccount(
        group_instance_id=member.group_instance_id,
        rack_id=subscription.rack_id,
        client_id=member.client_id,
        client_host=member.client_host,
        topic_names=subscription.topic_names,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        classic=ClassicSupport(member.session_timeout_ms, member.protocols),
    )
    current = CurrentAssignment(epoch=epoch, previous_epoch=epoch, assigned=with_epoch(assignment, epoch))
    consumer.put(effects, MemberRecord(group_id, member_id, account))
    consumer.put(effects, TargetRecord(group_id, member_id, assignment))
    consumer.put(effects, CurrentRecord(group_id, member_id, current))
    effects.arm(TimerKind.SESSION, member.session_timeout_ms, member_id)


def downgraded(
    consumer: "ConsumerGroup", classic: ClassicGroup, effects: Effects, *, without: set[str], rebalance: bool
) -> None:
    """Fills a new classic group with the classic members of a consumer group, `without` those that leave.

    The effects' records delete the one and write the other; with `rebalance` all are asked to join again.
    """
    roster, topics = consumer.roster, consumer.topics
    accounts = {
        member_id: (account, account.classic)
        for member_id, account in roster.accounts.items()
        if member_id not in without
    }
    members = []
    for member_id, (account, support) in accounts.items():
        assert support is not None, "only classic members are left"
        version = int.from_bytes(support.protocols[0][1][:2])
        members.append(
            ClassicMember(
                member_id=member_id,
                group_instance_id=account.group_instance_id,
                client_id=account.client_id,
                client_host=account.client_host,
                rebalance_timeout_ms=account.rebalance_timeout_ms,
                session_timeout_ms=support.session_timeout_ms,
                protocols=support.protocols,
                assignment=write_assignment(roster.targets.get(member_id, NOTHING), version, topics),
            )
        )
    effects.records += roster.deletion_records()
    classic.take_over(roster.epoch, members, effects)
    effects.timers = classic.resume().timers
    effects.replacement = classic
    if rebalance:
        classic.ask_to_rejoin("the last member of the consumer protocol has left", effects)
    logger.info("group downgraded", group=classic.group_id, members=len(members), generation=classic.generation_id)
