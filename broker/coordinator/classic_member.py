"""One member of a classic group."""

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.messages import JoinGroupRequest

Protocols = tuple[tuple[str, bytes], ...]
"""The assignment protocols a member supports, its favourite first, each with the member's metadata for it."""


def protocols_of(requested: Sequence[JoinGroupRequest.JoinGroupRequestProtocol]) -> Protocols:
    """The protocols of a JoinGroup request; a name given twice counts once, as in Kafka's hashed collection."""
    return tuple({protocol.name: protocol.metadata for protocol in requested}.items())


@dataclass(slots=True)
class ClassicMember:
    """Mutable; owned by one group. Every byte string is the client's, kept and returned verbatim."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    protocols: Protocols
    assignment: bytes = b""
    is_new: bool = False
    """Has not seen its first generation yet: it cannot heartbeat, so its timer is the join timeout, not its session."""

    def metadata(self, protocol_name: str | None) -> bytes:
        """The metadata for a protocol; empty when the member does not support it."""
        return dict(self.protocols).get(protocol_name or "", b"")

    def vote(self, candidates: set[str]) -> str:
        """The first of the member's protocols that everybody supports; `candidates` has one of them at least."""
        return next(name for name, _ in self.protocols if name in candidates)
