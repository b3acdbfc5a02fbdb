"""The members of one classic group: who is in, who leads, who is on the way in, and which protocols all of them support."""

from collections import Counter
from typing import Self

from broker.coordinator.classic_member import ClassicMember, Protocols
from broker.coordinator.group_metadata import GroupMetadata, MemberMetadata
from protocol.errors import ErrorCode


class Roster:
    """Bookkeeping only: it decides nothing. Iteration is in the order of joining, so that answers are deterministic."""

    __slots__ = ("leader_id", "members", "pending_join", "pending_sync", "static_members", "supported")

    def __init__(self) -> None:
        self.members: dict[str, ClassicMember] = {}
        self.static_members: dict[str, str] = {}
        """Member id by group instance id."""
        self.pending_join: set[str] = set()
        """Ids handed out with MEMBER_ID_REQUIRED whose owners have not come back yet (KIP-394)."""
        self.pending_sync: set[str] = set()
        """Members of the current generation that have not sent SyncGroup yet."""
        self.leader_id: str | None = None
        self.supported: Counter[str] = Counter()
        """How many members support each protocol."""

    @classmethod
    def restored(cls, metadata: GroupMetadata) -> Self:
        """The members of a persisted generation."""
        roster = cls()
        for member in metadata.members:
            unset = member.rebalance_timeout_ms < 0  # written by a Kafka of before JoinGroup v1
            roster.add(
                ClassicMember(
                    member_id=member.member_id,
                    group_instance_id=member.group_instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    rebalance_timeout_ms=member.session_timeout_ms if unset else member.rebalance_timeout_ms,
                    session_timeout_ms=member.session_timeout_ms,
                    protocols=((metadata.protocol_name or "", member.subscription),),
                    assignment=member.assignment,
                )
            )
        if metadata.leader_id in roster.members:
            roster.leader_id = metadata.leader_id
        return roster

    def snapshot(self, protocol_name: str | None) -> tuple[MemberMetadata, ...]:
        """The members as they are persisted, under the chosen protocol."""
        return tuple(
            MemberMetadata(
                member_id=member.member_id,
                group_instance_id=member.group_instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                rebalance_timeout_ms=member.rebalance_timeout_ms,
                session_timeout_ms=member.session_timeout_ms,
                subscription=member.metadata(protocol_name),
                assignment=member.assignment,
            )
            for member in self.members.values()
        )

    def __len__(self) -> int:
        return len(self.members)

    def add(self, member: ClassicMember) -> None:
        """Lets a member in; the first one leads."""
        self.members[member.member_id] = member
        self.supported.update(name for name, _ in member.protocols)
        self.pending_join.discard(member.member_id)
        if member.group_instance_id is not None:
            self.static_members[member.group_instance_id] = member.member_id
        if self.leader_id is None:
            self.leader_id = member.member_id

    def remove(self, member_id: str) -> None:
        """Forgets a member or a pending id; when the leader goes, the longest-serving member leads."""
        self.pending_join.discard(member_id)
        self.pending_sync.discard(member_id)
        member = self.members.pop(member_id, None)
        if member is None:
            return
        self.supported.subtract(name for name, _ in member.protocols)
        self.supported = +self.supported
        if member.group_instance_id is not None and self.static_members.get(member.group_instance_id) == member_id:
            del self.static_members[member.group_instance_id]
        if self.leader_id == member_id:
            self.leader_id = next(iter(self.members), None)

    def set_protocols(self, member: ClassicMember, protocols: Protocols) -> None:
        """Replaces what a member supports."""
        self.supported.subtract(name for name, _ in member.protocols)
        self.supported.update(name for name, _ in protocols)
        self.supported = +self.supported
        member.protocols = protocols

    def rename_static(self, old_id: str, new_id: str) -> ClassicMember:
        """Gives a static member's place, leadership included, to its new process; returns the member."""
        member = self.members.pop(old_id)
        assert member.group_instance_id is not None
        member.member_id = new_id
        self.members[new_id] = member
        self.static_members[member.group_instance_id] = new_id
        if self.leader_id == old_id:
            self.leader_id = new_id
        if old_id in self.pending_sync:
            self.pending_sync.remove(old_id)
            self.pending_sync.add(new_id)
        return member

    def check(self, member_id: str, group_instance_id: str | None) -> ErrorCode:
        """NONE when the pair of ids is a member's; UNKNOWN_MEMBER_ID or FENCED_INSTANCE_ID otherwise."""
        if group_instance_id is not None:
            owner = self.static_members.get(group_instance_id)
            if owner is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if owner != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        return ErrorCode.NONE if member_id in self.members else ErrorCode.UNKNOWN_MEMBER_ID

    def common_protocols(self) -> set[str]:
        """The protocols that every member supports."""
        return {name for name, count in self.supported.items() if count == len(self.members)}

    def select_protocol(self) -> str:
        """The common protocol with most votes; each member votes for its favourite among the common ones."""
        candidates = self.common_protocols()
        votes = Counter(member.vote(candidates) for member in self.members.values())
        return votes.most_common(1)[0][0]

    def rebalance_timeout_ms(self) -> int:
        """The longest time any member asks for to join again; 0 without members."""
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)
