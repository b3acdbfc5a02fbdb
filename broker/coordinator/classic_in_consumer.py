"""Members that speak the classic protocol inside a consumer group, while it is being upgraded (KIP-848).

The broker assigns for them as for the others. A heartbeat calls them to join again whenever they are to give up or get
partitions; JoinGroup is answered at once, with the member's own epoch as generation, and nobody leads; SyncGroup brings what
the member has then. Unlike in a classic group no one waits for anybody.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from broker.coordinator.answers import failed_join, failed_sync
from broker.coordinator.assignment import without_epochs
from broker.coordinator.classic_member import protocols_of
from broker.coordinator.classic_state import CONSUMER_PROTOCOL_TYPE
from broker.coordinator.consumer_member import ClassicSupport, CurrentAssignment, MemberAccount, MemberState
from broker.coordinator.effects import Effects, JoinAnswer, SyncAnswer, TimerKind
from broker.coordinator.embedded_protocol import EmbeddedSubscription, read_subscription, write_assignment
from broker.coordinator.group_state import MEMBER_ID_REQUIRED_FROM, JoiningClient
from protocol.errors import ErrorCode, KafkaError, MalformedMessage
from protocol.messages import (
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    LeaveGroupResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)

if TYPE_CHECKING:
    from broker.coordinator.consumer_group import ConsumerGroup


def join(group: "ConsumerGroup", request: JoinGroupRequest, client: JoiningClient, answer: JoinAnswer) -> Effects:
    """JoinGroup: answered without waiting for anybody."""
    try:
        with group.changes() as effects:
            response = _join(group, request, client, effects)
    except KafkaError as error:
        effects, response = Effects(), failed_join(error.code)
    effects.joins.append((answer, response))
    return effects


def _join(
    group: "ConsumerGroup", request: JoinGroupRequest, client: JoiningClient, effects: Effects
) -> JoinGroupResponse:
    member_id, instance_id = request.member_id or group.new_id(), request.group_instance_id
    group.check_size(member_id)
    _check_protocols(group, request)
    if not request.member_id and instance_id is None and client.api_version >= MEMBER_ID_REQUIRED_FROM:
        return failed_join(ErrorCode.MEMBER_ID_REQUIRED, member_id)
    try:
        subscription = read_subscription(request.protocols[0].metadata, group.topics)
    except MalformedMessage:
        reason = f"Member {member_id}'s subscription cannot be read."
        raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, reason) from None
    if instance_id is not None and request.member_id:
        group.require_static(member_id, instance_id)
    former_id = group.roster.static_members.get(instance_id or "")
    downgrades = former_id is not None and group.may_downgrade_all_but(former_id)
    if instance_id is not None and not request.member_id:
        group.take_place(member_id, instance_id, effects, classic=True)
    account = _account(group, member_id, request, subscription, client)
    changed = group.subscribe(member_id, account, effects, may_describe=client.may_describe)
    if not downgrades:
        group.assign(effects)
    current = group.roster.current(member_id)
    behind = downgrades and group.roster.assignment_epoch < group.roster.epoch
    if not behind:
        current = group.advance(member_id, subscription.owned, effects, subscription_changed=changed)
    response = JoinGroupResponse(
        member_id=member_id,
        generation_id=current.epoch,
        protocol_type=CONSUMER_PROTOCOL_TYPE,
        protocol_name=request.protocols[0].name,
        leader="",
    )
    if downgrades:
        group.replace_by_classic(effects, rebalance=behind)
        return response
    group.joining_again.discard(member_id)
    effects.cancel(TimerKind.JOIN, member_id)
    effects.arm(TimerKind.SESSION, request.session_timeout_ms, member_id)
    effects.arm(TimerKind.SYNC, account.rebalance_timeout_ms, member_id)
    return response


def _check_protocols(group: "ConsumerGroup", request: JoinGroupRequest) -> None:
    roster = group.roster
    supported = any(roster.classic_protocols[protocol.name] == roster.classic_members for protocol in request.protocols)
    if request.protocol_type != CONSUMER_PROTOCOL_TYPE or not supported:
        reason = f"Member {request.member_id}'s protocols are not supported."
        raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, reason)


def _account(
    group: "ConsumerGroup",
    member_id: str,
    request: JoinGroupRequest,
    subscription: EmbeddedSubscription,
    client: JoiningClient,
) -> MemberAccount:
    former = group.roster.accounts.get(member_id) or MemberAccount()
    timeout_ms = request.rebalance_timeout_ms
    return MemberAccount(
        group_instance_id=request.group_instance_id or former.group_instance_id,
        rack_id=subscription.rack_id or former.rack_id,
        client_id=client.client_id,
        client_host=client.client_host,
        topic_names=subscription.topic_names,
        # JoinGroup v0 has none: the session timeout stands for it.
        rebalance_timeout_ms=request.session_timeout_ms if timeout_ms < 0 else timeout_ms,
        server_assignor=former.server_assignor,
        classic=ClassicSupport(request.session_timeout_ms, protocols_of(request.protocols)),
    )


def sync(group: "ConsumerGroup", request: SyncGroupRequest, answer: SyncAnswer) -> Effects:
    """SyncGroup: what the member has now."""
    effects = Effects()
    try:
        response = _sync(group, request, effects)
    except KafkaError as error:
        response = failed_sync(error.code)
    effects.syncs.append((answer, response))
    return effects


def _sync(group: "ConsumerGroup", request: SyncGroupRequest, effects: Effects) -> SyncGroupResponse:
    member_id = request.member_id
    support, current = _classic_member(group, member_id, request.group_instance_id, request.generation_id)
    name, metadata = support.protocols[0]
    if request.protocol_type not in (None, CONSUMER_PROTOCOL_TYPE) or request.protocol_name not in (None, name):
        raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    if group.roster.assignment_epoch > current.epoch and current.state is not MemberState.UNREVOKED_PARTITIONS:
        _call_to_join(group, member_id, effects)
        return failed_sync(ErrorCode.REBALANCE_IN_PROGRESS)
    effects.cancel(TimerKind.SYNC, member_id)
    effects.arm(TimerKind.SESSION, support.session_timeout_ms, member_id)
    return SyncGroupResponse(
        protocol_type=request.protocol_type,
        protocol_name=request.protocol_name,
        assignment=write_assignment(without_epochs(current.assigned), int.from_bytes(metadata[:2]), group.topics),
    )


def heartbeat(
    group: "ConsumerGroup", member_id: str, group_instance_id: str | None, generation_id: int
) -> tuple[ErrorCode, Effects]:
    """Heartbeat: keeps the session, and calls the member to join again when there is something to give up or to get."""
    effects = Effects()
    try:
        support, current = _classic_member(group, member_id, group_instance_id, generation_id)
    except KafkaError as error:
        return error.code, effects
    effects.arm(TimerKind.SESSION, support.session_timeout_ms, member_id)
    behind = current.epoch < group.roster.assignment_epoch
    can_gain = current.state is MemberState.UNRELEASED_PARTITIONS and not _waits(group, member_id, current)
    if not (behind or current.state is MemberState.UNREVOKED_PARTITIONS or can_gain):
        return ErrorCode.NONE, effects
    _call_to_join(group, member_id, effects)
    return ErrorCode.REBALANCE_IN_PROGRESS, effects


def _waits(group: "ConsumerGroup", member_id: str, current: CurrentAssignment) -> bool:
    """Whether another member still has a partition of this one's target."""
    return any(
        group.roster.owners.get((topic_id, partition), member_id) != member_id
        for topic_id, partitions in group.roster.targets.get(member_id, {}).items()
        for partition in partitions - current.assigned.get(topic_id, {}).keys()
    )


def _call_to_join(group: "ConsumerGroup", member_id: str, effects: Effects) -> None:
    """From the first call on the member has its rebalance timeout to join; further calls do not prolong it."""
    if member_id not in group.joining_again:
        group.joining_again.add(member_id)
        effects.arm(TimerKind.JOIN, group.roster.accounts[member_id].rebalance_timeout_ms, member_id)


def _classic_member(
    group: "ConsumerGroup", member_id: str, instance_id: str | None, generation_id: int
) -> tuple[ClassicSupport, CurrentAssignment]:
    """Raises KafkaError UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID or ILLEGAL_GENERATION."""
    if instance_id is not None:
        group.require_static(member_id, instance_id)
    group.require(member_id)
    support = group.roster.accounts[member_id].classic
    if support is None:
        raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID, f"Member {member_id} does not use the classic protocol.")
    current = group.roster.current(member_id)
    if current.epoch != generation_id:
        raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
    return support, current


def leave(
    group: "ConsumerGroup", identities: Iterable[LeaveGroupRequest.MemberIdentity]
) -> tuple[list[LeaveGroupResponse.MemberResponse], Effects]:
    """LeaveGroup: also takes out members of the consumer protocol, as an administrator does by instance id."""
    responses: list[LeaveGroupResponse.MemberResponse] = []
    leaving: dict[str, None] = {}
    for identity in identities:
        member_id, instance_id, error = identity.member_id, identity.group_instance_id, ErrorCode.NONE
        if instance_id is not None and not member_id:
            member_id = group.roster.static_members.get(instance_id, "")
        try:
            if instance_id is not None:
                group.require_static(member_id, instance_id)
            group.require(member_id)
            leaving[member_id] = None
        except KafkaError as refusal:
            error = refusal.code
        responses.append(
            LeaveGroupResponse.MemberResponse(
                member_id=identity.member_id, group_instance_id=instance_id, error_code=error
            )
        )
    effects = Effects()
    group.fence(list(leaving), effects)
    return responses, effects
