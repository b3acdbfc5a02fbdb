"""The assignors: whole, balanced, sticky."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from broker.coordinator.assignors import ASSIGNORS, MemberSpec, assign_range, assign_uniform

TOPICS = [bytes([number]) * 16 for number in range(4)]
COUNTS = st.fixed_dictionaries({topic: st.integers(1, 12) for topic in TOPICS})
SUBSCRIPTION = st.frozensets(st.sampled_from(TOPICS))


@st.composite
def groups(draw, same=False):
    """Members, what they have now (anything, also topics and partitions that are gone), and the topics."""
    counts = draw(COUNTS)
    one = draw(SUBSCRIPTION)
    members = {}
    free = {(topic, partition) for topic in TOPICS for partition in range(14)}
    for number in range(draw(st.integers(1, 6))):
        assigned: dict[bytes, frozenset[int]] = {}
        for topic, partition in draw(st.sets(st.sampled_from(sorted(free)), max_size=9)) if free else ():
            assigned[topic] = assigned.get(topic, frozenset()) | {partition}
            free.discard((topic, partition))
        instance_id = draw(st.sampled_from([None, f"i{9 - number}"]))
        members[f"m{number}"] = MemberSpec(one if same else draw(SUBSCRIPTION), assigned, instance_id)
    return members, counts


def loads(assigned) -> dict[str, int]:
    return {member_id: sum(map(len, assignment.values())) for member_id, assignment in assigned.items()}


def keeps(assigned, members) -> int:
    """How many partitions stay with their member."""
    return sum(
        len(partitions & assigned[member_id].get(topic, frozenset()))
        for member_id, member in members.items()
        for topic, partitions in member.assigned.items()
    )


@given(groups(), st.sampled_from(sorted(ASSIGNORS)))
def test_every_partition_has_one_reader(group, name) -> None:
    """All partitions of all topics that anybody reads are assigned, each once, to a member that reads the topic."""
    members, counts = group
    assigned = ASSIGNORS[name](members, counts)
    owners = Counter(
        (t, p) for assignment in assigned.values() for t, partitions in assignment.items() for p in partitions
    )
    read = frozenset().union(*(member.topic_ids for member in members.values()))
    assert owners == Counter({(topic, partition): 1 for topic in read for partition in range(counts[topic])})
    assert all(assignment.keys() <= members[member_id].topic_ids for member_id, assignment in assigned.items())
    assert all(partitions for assignment in assigned.values() for partitions in assignment.values())
    assert assigned.keys() == members.keys()


@given(groups(same=True))
def test_uniform_is_balanced_and_moves_as_few_as_it_can(group) -> None:
    """Members that read the same differ by one partition at most, and no balanced assignment keeps more in place."""
    members, counts = group
    assigned = assign_uniform(members, counts)
    assert max(loads(assigned).values()) - min(loads(assigned).values()) <= 1
    topics = next(iter(members.values())).topic_ids
    had = [
        sum(partition < counts[topic] for topic in topics for partition in member.assigned.get(topic, ()))
        for member in members.values()
    ]
    quota, longer = divmod(sum(counts[topic] for topic in topics), len(members))
    most = sum(min(number, quota) for number in had) + min(longer, sum(number > quota for number in had))
    assert keeps(assigned, members) == most


@given(groups())
def test_uniform_cannot_be_evened_out_by_one_move(group) -> None:
    """Whatever the subscriptions, no member has two more than another that could take one of them."""
    members, counts = group
    assigned = assign_uniform(members, counts)
    load = loads(assigned)
    for giver, assignment in assigned.items():
        for taker, member in members.items():
            assert load[giver] - load[taker] <= 1 or not assignment.keys() & member.topic_ids


@given(groups(), st.sampled_from(sorted(ASSIGNORS)))
def test_assigning_again_changes_nothing(group, name) -> None:
    """A target assignment is its own."""
    members, counts = group
    assigned = ASSIGNORS[name](members, counts)
    again = {
        member_id: MemberSpec(member.topic_ids, assigned[member_id], member.group_instance_id)
        for member_id, member in members.items()
    }
    assert ASSIGNORS[name](again, counts) == assigned


@given(groups())
def test_range_gives_neighbours_in_order(group) -> None:
    """Runs of neighbouring partitions, in the order of static members by instance id, then of the others by member id."""
    members, counts = group
    assigned = assign_range(members, counts)
    order = sorted(members, key=lambda m: (members[m].group_instance_id is None, members[m].group_instance_id or m))
    for topic, count in counts.items():
        runs = [sorted(assigned[m].get(topic, ())) for m in order if topic in members[m].topic_ids]
        if runs:
            assert [partition for run in runs for partition in run] == list(range(count))
            assert sorted(map(len, runs), reverse=True) == list(map(len, runs))
            assert len(runs[0]) - len(runs[-1]) <= 1


def test_nobody_and_nothing() -> None:
    """No members, or topics without readers, are no error."""
    assert assign_uniform({}, {}) == {}
    assert assign_range({}, {}) == {}
    assert assign_uniform({"m": MemberSpec(frozenset())}, {}) == {"m": {}}
