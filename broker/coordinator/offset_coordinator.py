"""Committed offsets of groups: who may commit, fetch or delete them, and how long they stay."""

from collections.abc import Callable, Iterable, Sequence

from broker.coordinator.group import OffsetToCommit
from broker.coordinator.group_state import Committer
from broker.coordinator.group_store import GroupEntry, GroupStore
from broker.coordinator.names import is_too_long
from broker.coordinator.offsets import OffsetTable, expired_offsets
from broker.coordinator.records import OffsetRecord
from broker.deferred import Deferred
from broker.journal import TransactionEnd
from protocol.errors import ErrorCode, KafkaError
from storage.clock import Clock

GROUP_ID_NOT_FOUND_FROM = 9  # OffsetCommit version, KIP-848


class OffsetCoordinator:
    """The offsets of all groups. Used from the event loop alone."""

    def __init__(self, store: GroupStore, clock: Clock, *, retention_ms: int) -> None:
        self._store = store
        self._clock = clock
        self._retention_ms = retention_ms

    def commit(self, committer: Committer, offsets: Sequence[OffsetToCommit]) -> Deferred[ErrorCode]:
        """Commits all or nothing; the code is the same for all. Topics and sizes are the caller's to check."""
        answer: Deferred[ErrorCode] = Deferred()
        error, entry = self._find_for_commit(committer, offsets)
        if entry is None:
            answer.resolve(error)
            return answer
        records = [OffsetRecord(committer.group_id, topic, partition, value) for topic, partition, value in offsets]
        if committer.producer is None:
            self._store.apply(entry, entry.group.offsets_committed(committer.member_id))
        failure = self._store.write(entry, records, committer.producer)
        if failure is not None:
            answer.resolve(failure)
            return answer
        self._store.when_durable(entry, answer.resolve)
        return answer

    def partition_of(self, group_id: str) -> int:
        """The partition of the internal topic to which a transaction that commits offsets of the group writes. Raises KafkaError."""
        return self._store.partition_of(group_id)

    def end_transaction(self, partition: int, producer_id: int, *, commit: bool, sequence: int) -> None:
        """A marker was written to a partition of the internal topic, with this storage sequence."""
        self._store.end_transaction(TransactionEnd(partition, producer_id, commit), sequence=sequence)

    def when_durable(self, group_ids: Iterable[str], callback: Callable[[ErrorCode], None]) -> None:
        """Runs the callback once everything committed so far by these groups would survive a crash."""
        entries = self._store.entries
        sequence = max((entries[group_id].sequence for group_id in group_ids if group_id in entries), default=0)
        self._store.when_sequence_durable(sequence, callback)

    def check_fetch(self, group_id: str, member_id: str | None, member_epoch: int) -> ErrorCode:
        """Whether this caller may fetch the group's offsets; anybody may of a group that does not exist."""
        entry = self._store.entries.get(group_id)
        return ErrorCode.NONE if entry is None else entry.group.check_offset_fetch(member_id, member_epoch)

    def of_group(self, group_id: str) -> OffsetTable:
        """The offsets of a group; empty for an unknown one. To be read in this turn, not kept or changed."""
        entry = self._store.entries.get(group_id)
        return entry.offsets if entry is not None else OffsetTable()

    def delete(self, group_id: str, wanted: Sequence[tuple[str, int]]) -> Deferred[list[ErrorCode]]:
        """Deletes offsets, a code for each: GROUP_SUBSCRIBED_TO_TOPIC protects those in use. Raises KafkaError."""
        if not group_id:
            raise KafkaError(ErrorCode.INVALID_GROUP_ID)
        entry = self._store.entries.get(group_id)
        if entry is None:
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND)
        error = entry.group.check_offset_delete()
        if error is not ErrorCode.NONE:
            raise KafkaError(error)
        codes, records = [], []
        for topic, partition in wanted:
            subscribed = entry.group.is_subscribed(topic)
            codes.append(ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if subscribed else ErrorCode.NONE)
            if not subscribed and entry.offsets.get(topic, partition) is not None:
                records.append(OffsetRecord(group_id, topic, partition, None))
        failed = self._store.write(entry, records)
        if failed is not None:
            raise KafkaError(failed)
        answer: Deferred[list[ErrorCode]] = Deferred()
        self._store.when_durable(entry, lambda error: answer.resolve([error] * len(codes) if error else codes))
        return answer

    def drop_topic(self, topic: str) -> None:
        """Deletes every group's offsets of a topic that is no more."""
        for entry in self._store.entries.values():
            group_id, partitions = entry.group.group_id, entry.offsets.of_topic(topic)
            self._store.write(entry, [OffsetRecord(group_id, topic, partition, None) for partition in partitions])

    def expire(self, entry: GroupEntry) -> None:
        """Deletes the offsets of a group whose retention is over."""
        group = entry.group
        expired = expired_offsets(group, entry.offsets, now_ms=self._clock.time_ms(), retention_ms=self._retention_ms)
        self._store.write(entry, [OffsetRecord(group.group_id, topic, partition, None) for topic, partition in expired])

    def _find_for_commit(
        self, committer: Committer, offsets: Sequence[OffsetToCommit]
    ) -> tuple[ErrorCode, GroupEntry | None]:
        entry = self._store.entries.get(committer.group_id)
        if entry is not None:
            error = entry.group.check_offset_commit(committer, offsets)
            return error, entry if error is ErrorCode.NONE else None
        if committer.generation_id >= 0:
            old = committer.api_version < GROUP_ID_NOT_FOUND_FROM
            return ErrorCode.ILLEGAL_GENERATION if old else ErrorCode.GROUP_ID_NOT_FOUND, None
        if is_too_long(committer.group_id):
            return ErrorCode.INVALID_GROUP_ID, None
        return ErrorCode.NONE, self._store.create(self._store.new_classic_group(committer.group_id))
