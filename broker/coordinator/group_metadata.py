"""What of a classic group survives a restart: the content of Kafka's GroupMetadataValue."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemberMetadata:
    """One member as persisted; `subscription` is its metadata for the group's chosen protocol, verbatim."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    assignment: bytes


@dataclass(frozen=True, slots=True)
class GroupMetadata:
    """A generation of a group. With members the group is Stable, without it is Empty."""

    generation_id: int = 0
    protocol_type: str | None = None
    protocol_name: str | None = None
    leader_id: str | None = None
    state_timestamp_ms: int = -1
    members: tuple[MemberMetadata, ...] = ()
