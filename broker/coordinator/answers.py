"""The answers to JoinGroup and SyncGroup, in the form of the newest version."""

from broker.coordinator.classic_member import ClassicMember
from broker.coordinator.roster import Roster
from protocol.errors import ErrorCode
from protocol.messages import JoinGroupResponse, SyncGroupResponse


def failed_join(error: ErrorCode, member_id: str = "") -> JoinGroupResponse:
    """The answer to a refused JoinGroup."""
    return JoinGroupResponse(
        error_code=error, generation_id=-1, protocol_type=None, protocol_name=None, leader="", member_id=member_id
    )


def failed_sync(error: ErrorCode) -> SyncGroupResponse:
    """The answer to a refused SyncGroup: an assignment is always present, if only empty."""
    return SyncGroupResponse(error_code=error, protocol_type=None, protocol_name=None, assignment=b"")


def joined(
    roster: Roster, member: ClassicMember, *, generation_id: int, protocol_type: str | None, protocol_name: str | None
) -> JoinGroupResponse:
    """A generation as this member is told of it; only the leader learns who is in it, and what they support."""
    leads = member.member_id == roster.leader_id
    return JoinGroupResponse(
        error_code=ErrorCode.NONE,
        generation_id=generation_id,
        protocol_type=protocol_type,
        protocol_name=protocol_name,
        leader=roster.leader_id or "",
        member_id=member.member_id,
        members=[
            JoinGroupResponse.JoinGroupResponseMember(
                member_id=other.member_id,
                group_instance_id=other.group_instance_id,
                metadata=other.metadata(protocol_name),
            )
            for other in (roster.members.values() if leads else ())
        ],
    )
