"""How a member of a consumer group comes from what it has to what it is meant to have, one heartbeat at a time (KIP-848).

    STABLE ──new target──> UNREVOKED_PARTITIONS ──it has given up──> UNRELEASED_PARTITIONS ──others have too──> STABLE

First it gives up what goes to others, keeping its epoch; when it confirms that, it enters the target's epoch with all of
its new partitions that are free, and gets the rest as others release them. A pure function of the member and its target.
"""

from collections.abc import Callable
from dataclasses import dataclass

from broker.coordinator.assignment import Assignment, Epochs, overlap
from broker.coordinator.consumer_member import CurrentAssignment, MemberState
from protocol.errors import ErrorCode, KafkaError


@dataclass(frozen=True, slots=True)
class Target:
    """What a member is meant to have, and what decides how much of it the member can have now."""

    epoch: int
    assignment: Assignment
    is_subscribed: Callable[[bytes], bool]
    """Whether the member reads the topic of this id."""
    is_free: Callable[[bytes, int], bool]
    """Whether nobody has the partition."""


def reconcile(
    current: CurrentAssignment, target: Target, owned: Assignment | None, *, subscription_changed: bool
) -> CurrentAssignment:
    """What the member has next; the same object when nothing changes.

    `owned` is what it says it owns, None: it does not say. Raises KafkaError FENCED_MEMBER_EPOCH for a state that a later
    Kafka wrote and this one does not know: the member has to begin anew.
    """
    match current.state:
        case MemberState.STABLE:
            settled = current.epoch == target.epoch
        case MemberState.UNREVOKED_PARTITIONS:
            settled = _owns(owned, current.revoking)
        case MemberState.UNRELEASED_PARTITIONS:
            settled = False
        case MemberState.UNKNOWN:
            if owned is None or owned:
                reason = "The consumer group member is in a unknown state. The member must abandon all its partitions and rejoin."
                raise KafkaError(ErrorCode.FENCED_MEMBER_EPOCH, reason)
            settled = False
    if not settled:
        return _advance(current, target, owned)
    return _give_up_unsubscribed(current, target, owned) if subscription_changed else current


def _owns(owned: Assignment | None, partitions: Epochs) -> bool:
    """Whether the member may still have one of these: it does not deny it."""
    return owned is None or overlap(owned, partitions)


def _advance(current: CurrentAssignment, target: Target, owned: Assignment | None) -> CurrentAssignment:
    kept: dict[bytes, dict[int, int]] = {}
    revoking: dict[bytes, dict[int, int]] = {}
    unreleased = False
    gained: dict[bytes, dict[int, int]] = {}
    for topic_id in target.assignment.keys() | current.assigned.keys():
        wanted = target.assignment.get(topic_id, frozenset()) if target.is_subscribed(topic_id) else frozenset()
        for partition, epoch in current.assigned.get(topic_id, {}).items():
            (kept if partition in wanted else revoking).setdefault(topic_id, {})[partition] = epoch
        own_release = current.revoking.get(topic_id, {})
        for partition in sorted(wanted - kept.get(topic_id, {}).keys()):
            if partition in own_release or target.is_free(topic_id, partition):
                gained.setdefault(topic_id, {})[partition] = target.epoch
            else:
                unreleased = True
    if revoking and _owns(owned, revoking):
        return current.moved_to(current.epoch, MemberState.UNREVOKED_PARTITIONS, kept, revoking)
    assigned = {topic_id: kept.get(topic_id, {}) | gained.get(topic_id, {}) for topic_id in kept.keys() | gained.keys()}
    state = MemberState.UNRELEASED_PARTITIONS if unreleased else MemberState.STABLE
    return current.moved_to(target.epoch, state, assigned)


def _give_up_unsubscribed(current: CurrentAssignment, target: Target, owned: Assignment | None) -> CurrentAssignment:
    """The target does not know of the new subscription yet; topics that are not read any more go at once."""
    gone = {topic_id: epochs for topic_id, epochs in current.assigned.items() if not target.is_subscribed(topic_id)}
    if not gone:
        return current
    kept = {topic_id: epochs for topic_id, epochs in current.assigned.items() if topic_id not in gone}
    revoking = {
        topic_id: {**current.revoking.get(topic_id, {}), **gone.get(topic_id, {})}
        for topic_id in current.revoking.keys() | gone.keys()
    }
    if _owns(owned, revoking):
        return current.moved_to(current.epoch, MemberState.UNREVOKED_PARTITIONS, kept, revoking)
    return current.moved_to(current.epoch, current.state, kept, current.revoking)
