"""The server-side assignors of KIP-848, `uniform` and `range`: pure functions from members and topics to target assignments.

`uniform` balances the number of partitions per member over all topics and moves as few as that needs. `range` gives the
members neighbouring partitions, the same numbers of every topic where subscriptions agree; it does not look at what is
assigned now. Racks are not looked at: neither do Kafka's own since 4.0.

Source: KIP-848; Kafka 4.3's UniformAssignor and RangeAssignor.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from broker.coordinator.assignment import Assignment

# Passes over all topics in search of a better balance, for subscriptions that differ; each pass that changes something
# brings the loads closer together, and in practice two are enough. Kafka's bound.
BALANCE_PASSES_MAX = 16


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """What an assignor knows of a member: ids of the topics it reads, and its target assignment so far."""

    topic_ids: frozenset[bytes]
    assigned: Assignment = field(default_factory=dict)
    group_instance_id: str | None = None


Members = Mapping[str, MemberSpec]
PartitionCounts = Mapping[bytes, int]
"""Partitions by topic id; every topic that a member reads is here."""

Assignor = Callable[[Members, PartitionCounts], dict[str, Assignment]]


def assign_range(members: Members, partition_counts: PartitionCounts) -> dict[str, Assignment]:
    """A run of neighbouring partitions of every topic for each of its readers, the first ones one longer."""
    assigned: dict[str, dict[bytes, frozenset[int]]] = {member_id: {} for member_id in members}
    readers: dict[bytes, list[str]] = defaultdict(list)
    for member_id in sorted(members, key=lambda member_id: _range_order(member_id, members[member_id])):
        for topic_id in members[member_id].topic_ids:
            readers[topic_id].append(member_id)
    for topic_id, topic_readers in readers.items():
        share, longer = divmod(partition_counts[topic_id], len(topic_readers))
        start = 0
        for position, member_id in enumerate(topic_readers):
            end = start + share + (position < longer)
            if end > start:
                assigned[member_id][topic_id] = frozenset(range(start, end))
            start = end
    return dict(assigned)


def _range_order(member_id: str, member: MemberSpec) -> tuple[bool, str]:
    """Static members first, by instance id: they keep their place however often they restart."""
    instance_id = member.group_instance_id
    return (True, member_id) if instance_id is None else (False, instance_id)


def assign_uniform(members: Members, partition_counts: PartitionCounts) -> dict[str, Assignment]:
    """As many partitions for each member as for any other, as far as subscriptions allow; sticky."""
    if not members:
        return {}
    subscriptions = {member.topic_ids for member in members.values()}
    kept, unassigned = _keep(members, partition_counts)
    if len(subscriptions) == 1:
        _share_out(kept, unassigned)
    else:
        _Balancer(members, kept).run(unassigned)
    return {member_id: _by_topic(partitions) for member_id, partitions in kept.items()}


_Partition = tuple[bytes, int]
_Kept = dict[str, list[_Partition]]


def _keep(members: Members, partition_counts: PartitionCounts) -> tuple[_Kept, list[_Partition]]:
    """What everybody has and may keep, and what nobody has."""
    kept: _Kept = {}
    taken: dict[bytes, set[int]] = {topic_id: set() for member in members.values() for topic_id in member.topic_ids}
    for member_id, member in members.items():
        kept[member_id] = mine = []
        for topic_id, partitions in member.assigned.items():
            if topic_id not in member.topic_ids:
                continue
            count, others = partition_counts[topic_id], taken[topic_id]
            for partition in sorted(partitions):
                if partition < count and partition not in others:
                    others.add(partition)
                    mine.append((topic_id, partition))
    unassigned = [
        (topic_id, partition)
        for topic_id in sorted(taken)
        for partition in range(partition_counts[topic_id])
        if partition not in taken[topic_id]
    ]
    return kept, unassigned


def _share_out(kept: _Kept, unassigned: list[_Partition]) -> None:
    """Everybody reads the same: each gets the quota, some one more, those first who have it already."""
    quota, longer = divmod(sum(map(len, kept.values())) + len(unassigned), len(kept))
    quotas = {}
    for member_id, mine in sorted(kept.items(), key=lambda item: len(item[1]) <= quota):  # stable
        quotas[member_id] = quota + (longer > 0)
        longer -= longer > 0
        unassigned += mine[quotas[member_id] :]
        del mine[quotas[member_id] :]
    pool = iter(unassigned)
    for member_id, mine in kept.items():
        for _ in range(quotas[member_id] - len(mine)):
            mine.append(next(pool))


class _Balancer:
    """Subscriptions differ: fills up the least loaded first, then moves partitions until no move makes it more even."""

    def __init__(self, members: Members, kept: _Kept) -> None:
        self._kept = kept
        self._readers: dict[bytes, list[str]] = defaultdict(list)
        for member_id, member in members.items():
            for topic_id in member.topic_ids:
                self._readers[topic_id].append(member_id)

    def run(self, unassigned: list[_Partition]) -> None:
        by_topic: dict[bytes, list[_Partition]] = defaultdict(list)
        for partition in unassigned:
            by_topic[partition[0]].append(partition)
        # Topics with few readers first: those with many can even out what these leave.
        for topic_id in sorted(by_topic, key=lambda topic_id: (len(self._readers[topic_id]), topic_id)):
            least = self._heap(topic_id)
            for partition in by_topic[topic_id]:
                load, position, member_id = least[0]
                self._kept[member_id].append(partition)
                heapq.heapreplace(least, (load + 1, position, member_id))
        topics = sorted(topic_id for topic_id, readers in self._readers.items() if len(readers) > 1)
        for _ in range(BALANCE_PASSES_MAX):
            moved = False
            for topic_id in topics:
                moved |= self._balance(topic_id)
            if not moved:
                return

    def _heap(self, topic_id: bytes) -> list[tuple[int, int, str]]:
        heap = [(len(self._kept[reader]), position, reader) for position, reader in enumerate(self._readers[topic_id])]
        heapq.heapify(heap)
        return heap

    def _balance(self, topic_id: bytes) -> bool:
        """Moves partitions of one topic from its most to its least loaded readers; whether any moved."""
        least = self._heap(topic_id)
        moved = False
        for load, _, giver in sorted(least, reverse=True):
            if load - least[0][0] <= 1:
                break  # nobody after it has more
            for partition in self._movable(giver, topic_id):
                taken, position, taker = least[0]
                if len(self._kept[giver]) - taken <= 1:
                    break
                self._kept[giver].remove(partition)
                self._kept[taker].append(partition)
                heapq.heapreplace(least, (taken + 1, position, taker))
                moved = True
        return moved

    def _movable(self, member_id: str, topic_id: bytes) -> Iterator[_Partition]:
        return reversed([partition for partition in self._kept[member_id] if partition[0] == topic_id])


def _by_topic(partitions: list[_Partition]) -> dict[bytes, frozenset[int]]:
    found: dict[bytes, set[int]] = defaultdict(set)
    for topic_id, partition in partitions:
        found[topic_id].add(partition)
    return {topic_id: frozenset(numbers) for topic_id, numbers in found.items()}


ASSIGNORS: dict[str, Assignor] = {"uniform": assign_uniform, "range": assign_range}
"""By the names that members ask for; the first is the one they get otherwise."""
