"""The records of one consumer group and what follows from them. Bookkeeping only: it decides nothing.

Every change of a consumer group is one of its records, taken up here when it happens and again when the journal is replayed:
what survives a restart is what there was before, by construction.
"""

from collections import Counter
from collections.abc import Iterator

from broker.coordinator.assignment import Assignment
from broker.coordinator.consumer_member import CurrentAssignment, MemberAccount
from broker.coordinator.consumer_records import (
    ConsumerRecord,
    CurrentRecord,
    GroupEpoch,
    GroupEpochRecord,
    MemberRecord,
    RegexRecord,
    ResolvedRegex,
    TargetEpoch,
    TargetEpochRecord,
    TargetRecord,
)

NEW_GROUP = GroupEpoch(epoch=1)
"""As in Kafka 4.3, so that the first member's first epoch is 2."""
NO_TARGET = TargetEpoch(epoch=0)


class ConsumerRoster:
    """Members are those in `accounts`, in the order in which they joined."""

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self.accounts: dict[str, MemberAccount] = {}
        self.currents: dict[str, CurrentAssignment] = {}
        self.targets: dict[str, Assignment] = {}
        self.regexes: dict[str, ResolvedRegex] = {}
        self.group_epoch: GroupEpoch | None = None
        self.target_epoch: TargetEpoch | None = None

        self.static_members: dict[str, str] = {}
        """Member id by group instance id."""
        self.owners: dict[tuple[bytes, int], str] = {}
        """Who has a partition or is giving it up, by topic id and partition."""
        self.readers: Counter[str] = Counter()
        """How many members subscribe to each topic by its name, and to each pattern."""
        self.regex_readers: Counter[str] = Counter()
        self.regex_topics: Counter[str] = Counter()
        """How many of the patterns match each topic."""
        self.assignors: Counter[str] = Counter()
        self.classic_members = 0
        self.classic_protocols: Counter[str] = Counter()
        """How many of the classic members support each protocol."""

    @property
    def epoch(self) -> int:
        return (self.group_epoch or NEW_GROUP).epoch

    @property
    def assignment_epoch(self) -> int:
        return (self.target_epoch or NO_TARGET).epoch

    def current(self, member_id: str) -> CurrentAssignment:
        """What a member has; nothing, at epoch 0, for one that just joins."""
        return self.currents.get(member_id) or CurrentAssignment()

    def is_subscribed(self, topic: str) -> bool:
        """Whether any member reads the topic."""
        return topic in self.readers or topic in self.regex_topics

    def subscribed_topics(self) -> set[str]:
        """The names of all topics that any member reads."""
        return self.readers.keys() | self.regex_topics.keys()

    def topics_of(self, account: MemberAccount) -> frozenset[str]:
        """The names of the topics that a member reads."""
        resolved = self.regexes.get(account.topic_regex)
        return account.topic_names if resolved is None else account.topic_names | resolved.topics

    def live_records(self) -> Iterator[ConsumerRecord]:
        """What a replay needs to have all of this; nothing for a group that was never written."""
        group_id = self.group_id
        for member_id, account in self.accounts.items():
            yield MemberRecord(group_id, member_id, account)
        for regex, resolved in self.regexes.items():
            yield RegexRecord(group_id, regex, resolved)
        if self.group_epoch is not None:
            yield GroupEpochRecord(group_id, self.group_epoch)
        for member_id, target in self.targets.items():
            yield TargetRecord(group_id, member_id, target)
        if self.target_epoch is not None:
            yield TargetEpochRecord(group_id, self.target_epoch)
        for member_id, current in self.currents.items():
            yield CurrentRecord(group_id, member_id, current)

    def deletion_records(self) -> Iterator[ConsumerRecord]:
        """What deletes all of it, in the order in which Kafka accepts it."""
        group_id = self.group_id
        for member_id in self.currents:
            yield CurrentRecord(group_id, member_id, None)
        for member_id in self.targets:
            yield TargetRecord(group_id, member_id, None)
        yield TargetEpochRecord(group_id, None)
        for member_id in self.accounts:
            yield MemberRecord(group_id, member_id, None)
        for regex in self.regexes:
            yield RegexRecord(group_id, regex, None)
        yield GroupEpochRecord(group_id, None)

    def take_up(self, record: ConsumerRecord) -> ConsumerRecord:
        """Makes it so; returns the record that makes it as it was."""
        group_id = self.group_id
        match record:
            case MemberRecord(_, member_id, account):
                return MemberRecord(group_id, member_id, self._set_account(member_id, account))
            case CurrentRecord(_, member_id, current):
                return CurrentRecord(group_id, member_id, self._set_current(member_id, current))
            case TargetRecord(_, member_id, target):
                former_target = self.targets.pop(member_id, None)
                if target is not None:
                    self.targets[member_id] = target
                return TargetRecord(group_id, member_id, former_target)
            case RegexRecord(_, regex, resolved):
                return RegexRecord(group_id, regex, self._set_regex(regex, resolved))
            case GroupEpochRecord(_, group_epoch):
                former_epoch, self.group_epoch = self.group_epoch, group_epoch
                return GroupEpochRecord(group_id, former_epoch)
            case TargetEpochRecord(_, target_epoch):
                former_target_epoch, self.target_epoch = self.target_epoch, target_epoch
                return TargetEpochRecord(group_id, former_target_epoch)

    def _set_account(self, member_id: str, account: MemberAccount | None) -> MemberAccount | None:
        former = self.accounts.get(member_id)
        if former is not None:
            self._count(former, -1)
            instance_id = former.group_instance_id
            if instance_id is not None and self.static_members.get(instance_id) == member_id:
                del self.static_members[instance_id]
        if account is None:
            self.accounts.pop(member_id, None)
            return former
        self.accounts[member_id] = account
        self._count(account, 1)
        if account.group_instance_id is not None:
            self.static_members[account.group_instance_id] = member_id
        return former

    def _count(self, account: MemberAccount, by: int) -> None:
        for topic in account.topic_names:
            _add(self.readers, topic, by)
        if account.topic_regex:
            _add(self.regex_readers, account.topic_regex, by)
        if account.server_assignor is not None:
            _add(self.assignors, account.server_assignor, by)
        if account.classic is not None:
            self.classic_members += by
            for name, _ in account.classic.protocols:
                _add(self.classic_protocols, name, by)

    def _set_current(self, member_id: str, current: CurrentAssignment | None) -> CurrentAssignment | None:
        former = self.currents.pop(member_id, None)
        if former is not None:
            for partition in _partitions(former):
                if self.owners.get(partition) == member_id:
                    del self.owners[partition]
        if current is not None:
            self.currents[member_id] = current
            for partition in _partitions(current):
                self.owners[partition] = member_id
        return former

    def _set_regex(self, regex: str, resolved: ResolvedRegex | None) -> ResolvedRegex | None:
        former = self.regexes.pop(regex, None)
        for topic in former.topics if former is not None else ():
            _add(self.regex_topics, topic, -1)
        if resolved is not None:
            self.regexes[regex] = resolved
            for topic in resolved.topics:
                _add(self.regex_topics, topic, 1)
        return former


def _add(counts: Counter[str], name: str, by: int) -> None:
    counts[name] += by
    if not counts[name]:
        del counts[name]


def _partitions(current: CurrentAssignment) -> Iterator[tuple[bytes, int]]:
    for epochs in (current.assigned, current.revoking):
        for topic_id, partitions in epochs.items():
            for partition in partitions:
                yield topic_id, partition
