"""Producers and consumers of committed records over a broker's real handlers, a simulated disk and a clock moved by hand."""

from typing import Any

from broker.coordinator.runtime import GroupCoordinator
from broker.transactions.coordinator import TransactionCoordinator
from protocol.api_keys import ApiKey
from protocol.messages import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    OffsetFetchRequest,
    TxnOffsetCommitRequest,
)
from protocol.record_batch import TRANSACTIONAL, iterate_records, walk_batches
from storage.aborted_transactions import without_aborted
from storage.check import check_directory
from storage.log import PartitionLog
from tests.unit.broker.admin import DIRECTORY
from tests.unit.broker.core import Core, batch

TIMEOUT_MS = 60_000
GROUP = "g"


class World(Core):
    """A broker with coordinators; `kill` and `lose_power` open it again on what the disk holds."""

    def __init__(self, **settings: Any) -> None:
        small = {"transaction_state_log_num_partitions": 2, "offsets_topic_num_partitions": 2}
        super().__init__(**{**small, **settings})

    def open(self) -> None:
        super().open()
        services = self.services
        groups = GroupCoordinator(self.config, services.clock, self.topics, self.logs, self.scheduler)
        services.groups = groups
        groups.start()
        services.transactions = TransactionCoordinator(
            self.config,
            services.clock,
            self.topics,
            self.logs,
            self.scheduler,
            services.producer_ids,
            groups.offsets,
        )
        services.transactions.start()
        self.logs.commit()

    def reopen(self, *, power: bool = False) -> None:
        """kill -9, or a power failure, and a new start; time has gone on."""
        now_ms = self.machine.clock.now_ms
        if power:
            self.disk.lose_power()
        else:
            self.disk.kill()
        self.open()
        self.machine.clock.now_ms = max(self.machine.clock.now_ms, now_ms)

    def ask_now(self, key: ApiKey, version: int, request: Any) -> Any:
        """The answer once it is durable."""
        answer = self.request(key, version, request)
        self.logs.commit()
        self.settle()
        return answer.value

    def committed(self, topic: str, partition: int = 0) -> list[bytes]:
        """What a consumer with isolation.level=read_committed reads of the whole partition."""
        row = self.fetch((topic, partition, 0), isolation_level=1).value.responses[0].partitions[0]
        records = memoryview(row.records or b"")
        values = []
        for kept in without_aborted(records, row.aborted_transactions or ()):
            (header,) = walk_batches(kept)
            if not header.control:
                values += [record.value or b"" for record in iterate_records(kept)]
        return values

    def uncommitted(self, topic: str, partition: int = 0) -> list[bytes]:
        """The same for read_uncommitted."""
        row = self.fetch((topic, partition, 0)).value.responses[0].partitions[0]
        records = memoryview(row.records or b"")
        return [
            record.value or b""
            for header in walk_batches(records)
            if not header.control
            for record in iterate_records(records[header.position : header.position + header.size])
        ]

    def offset(self, topic: str, partition: int = 0, group_id: str = GROUP) -> int:
        """The offset that the group has committed; -1: none."""
        topics = [OffsetFetchRequest.OffsetFetchRequestTopics(name=topic, partition_indexes=[partition])]
        group = OffsetFetchRequest.OffsetFetchRequestGroup(group_id=group_id, topics=topics)
        answer = self.ask_now(ApiKey.OFFSET_FETCH, 8, OffsetFetchRequest(groups=[group]))
        offset: int = answer.groups[0].topics[0].partitions[0].committed_offset
        return offset

    def user_logs(self) -> list[PartitionLog]:
        return [log for topic in self.topics for log in topic.partitions]

    def problems(self) -> list[str]:
        """What fsck finds; the broker is closed."""
        self.settle()
        self.logs.close()
        return [str(problem) for problem in check_directory(DIRECTORY, self.disk)]


class Producer:
    """A transactional producer that speaks the older protocol or, with `bumps`, that of KIP-890."""

    def __init__(
        self, world: World, transactional_id: str, *, bumps: bool = False, timeout_ms: int = TIMEOUT_MS
    ) -> None:
        self.world = world
        self.transactional_id = transactional_id
        self.bumps = bumps
        self.timeout_ms = timeout_ms
        self.producer_id = self.epoch = -1
        self.sequences: dict[tuple[str, int], int] = {}

    def init(self, *, again: bool = False) -> int:
        """InitProducerId; `again`: as the producer that it has been."""
        request = InitProducerIdRequest(transactional_id=self.transactional_id, transaction_timeout_ms=self.timeout_ms)
        if again:
            request.producer_id, request.producer_epoch = self.producer_id, self.epoch
        answer = self.world.ask_now(ApiKey.INIT_PRODUCER_ID, 5, request)
        if not answer.error_code:
            self._become(answer)
        return int(answer.error_code)

    def add(self, *partitions: int, topic: str = "t") -> int:
        """AddPartitionsToTxn."""
        topics = [AddPartitionsToTxnRequest.AddPartitionsToTxnTopic(name=topic, partitions=list(partitions))]
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=self.transactional_id,
            v3_and_below_producer_id=self.producer_id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=topics,
        )
        answer = self.world.ask_now(ApiKey.ADD_PARTITIONS_TO_TXN, 3, request)
        return int(answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code)

    def produce(self, *values: bytes, partition: int = 0, topic: str = "t") -> int:
        """One batch; the older protocol adds the partition before."""
        if not self.bumps:
            error = self.add(partition, topic=topic)
            if error:
                return error
        return self.send(*values, partition=partition, topic=topic)

    def send(self, *values: bytes, partition: int = 0, topic: str = "t") -> int:
        """Produce alone."""
        sequence = self.sequences.get((topic, partition), 0)
        data = batch(
            *values,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            base_sequence=sequence,
            attributes=TRANSACTIONAL,
        )
        version = 12 if self.bumps else 11
        answer = self.world.produced(topic, data, partition, version=version, transactional_id=self.transactional_id)
        if not answer.error_code:
            self.sequences[topic, partition] = sequence + len(values)
        return int(answer.error_code)

    def commit_offset(self, offset: int, *, partition: int = 0, topic: str = "t") -> int:
        """TxnOffsetCommit; the older protocol adds the group before."""
        who = {
            "transactional_id": self.transactional_id,
            "producer_id": self.producer_id,
            "producer_epoch": self.epoch,
            "group_id": GROUP,
        }
        if not self.bumps:
            error = self.world.ask_now(ApiKey.ADD_OFFSETS_TO_TXN, 3, AddOffsetsToTxnRequest(**who)).error_code
            if error:
                return int(error)
        row = TxnOffsetCommitRequest.TxnOffsetCommitRequestPartition(partition_index=partition, committed_offset=offset)
        topics = [TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic(name=topic, partitions=[row])]
        version = 5 if self.bumps else 3
        answer = self.world.ask_now(ApiKey.TXN_OFFSET_COMMIT, version, TxnOffsetCommitRequest(**who, topics=topics))
        return int(answer.topics[0].partitions[0].error_code)

    def end_request(self, *, commit: bool) -> tuple[int, EndTxnRequest]:
        return 5 if self.bumps else 3, EndTxnRequest(
            transactional_id=self.transactional_id,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            committed=commit,
        )

    def end(self, *, commit: bool) -> int:
        """EndTxn."""
        version, request = self.end_request(commit=commit)
        answer = self.world.ask_now(ApiKey.END_TXN, version, request)
        if not answer.error_code and self.bumps:
            self._become(answer)
        return int(answer.error_code)

    def _become(self, answer: Any) -> None:
        if (answer.producer_id, answer.producer_epoch) != (self.producer_id, self.epoch):
            self.sequences.clear()
        self.producer_id, self.epoch = answer.producer_id, answer.producer_epoch
