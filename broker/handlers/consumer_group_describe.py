"""ConsumerGroupDescribe (69): epochs and members of consumer groups (KIP-848). v1 adds which protocol each member speaks."""

from broker.context import RequestContext
from broker.coordinator.assignment import Assignment, without_epochs
from broker.coordinator.consumer_group import ConsumerGroup
from broker.coordinator.consumer_member import CurrentAssignment, MemberAccount
from broker.operations import NOT_ASKED, Operation
from broker.registry import api
from broker.topics import Topics
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse

CLASSIC_MEMBER, CONSUMER_MEMBER = 0, 1

_Described = ConsumerGroupDescribeResponse.DescribedGroup
_Member = ConsumerGroupDescribeResponse.Member
_Assignment = ConsumerGroupDescribeResponse.Assignment
_TopicPartitions = ConsumerGroupDescribeResponse.TopicPartitions


@api(ApiKey.CONSUMER_GROUP_DESCRIBE, versions=(0, 1))
def handle(context: RequestContext, request: ConsumerGroupDescribeRequest) -> ConsumerGroupDescribeResponse:
    """Errors per group: 24 for an empty name, 69 for groups that do not exist or are no consumer groups."""
    return ConsumerGroupDescribeResponse(
        groups=[
            _answer(context, group_id, request.include_authorized_operations)
            if context.access.group(Operation.DESCRIBE, group_id)
            else _Described(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED, error_message=None, group_id=group_id)
            for group_id in request.group_ids
        ]
    )


def _answer(context: RequestContext, group_id: str, include_operations: bool) -> _Described:
    operations = context.access.group_operations(group_id) if include_operations else NOT_ASKED
    if not group_id:
        return _Described(error_code=ErrorCode.INVALID_GROUP_ID, group_id=group_id)
    group = context.services.groups.group(group_id)
    if not isinstance(group, ConsumerGroup):
        reason = f"Group {group_id} not found." if group is None else f"Group {group_id} is not a consumer group."
        return _Described(error_code=ErrorCode.GROUP_ID_NOT_FOUND, error_message=reason, group_id=group_id)
    described = _describe(group, context.services.topics, operations)
    if not all(context.access.topic(Operation.DESCRIBE, name) for name in _topic_names(described)):
        reason = "The group has described topic(s) that the client is not authorized to describe."
        return _Described(error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED, error_message=reason, group_id=group_id)
    return described


def _topic_names(described: _Described) -> set[str]:
    return {
        topic.topic_name
        for member in described.members
        for assignment in (member.assignment, member.target_assignment)
        for topic in assignment.topic_partitions
    }


def _describe(group: ConsumerGroup, topics: Topics, operations: int) -> _Described:
    roster = group.roster
    return _Described(
        group_id=group.group_id,
        group_state=group.state_name,
        group_epoch=roster.epoch,
        assignment_epoch=roster.assignment_epoch,
        assignor_name=group.assignor_name,
        members=[
            _member(member_id, account, roster.current(member_id), roster.targets.get(member_id, {}), topics)
            for member_id, account in roster.accounts.items()
        ],
        authorized_operations=operations,
    )


def _member(
    member_id: str, account: MemberAccount, current: CurrentAssignment, target: Assignment, topics: Topics
) -> _Member:
    has = without_epochs(current.assigned)
    for topic_id, partitions in current.revoking.items():
        has[topic_id] = has.get(topic_id, frozenset()) | partitions.keys()
    return _Member(
        member_id=member_id,
        instance_id=account.group_instance_id,
        rack_id=account.rack_id,
        member_epoch=current.epoch,
        client_id=account.client_id,
        client_host=account.client_host,
        subscribed_topic_names=sorted(account.topic_names),
        subscribed_topic_regex=account.topic_regex,
        assignment=_assignment(has, topics),
        target_assignment=_assignment(target, topics),
        member_type=CONSUMER_MEMBER if account.classic is None else CLASSIC_MEMBER,
    )


def _assignment(assignment: Assignment, topics: Topics) -> _Assignment:
    """Topics that are no more are left out."""
    return _Assignment(
        topic_partitions=[
            _TopicPartitions(topic_id=topic_id, topic_name=topic.name, partitions=sorted(partitions))
            for topic_id, partitions in assignment.items()
            if (topic := topics.get_by_id(topic_id)) is not None
        ]
    )
