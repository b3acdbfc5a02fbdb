"""Records that could not be indexed, in the ordinary topic `__vector_failures`: anyone who may read it sees what is missing and why.

One entry per failed record and generation of its topic's index, keyed by both; a tombstone when it is gone: mended, or its topic or
generation deleted. The value is JSON. As long as `KEPT_MAX` entries are not exceeded, a record is told once, restarts included.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from broker.journal import Journal, JournalFormat
from broker.topics import Topic, Topics
from protocol.errors import ErrorCode, KafkaError
from storage.clock import Clock
from storage.log_manager import LogManager

FAILURES_TOPIC = "__vector_failures"
KEPT_MAX = 100_000
"""Entries held in memory, some 50 MB. What fails beyond is counted and written, but not listed, and written again when a crash
makes the worker meet it again."""
REASON_CHARACTERS_MAX = 300


class FailureKey(NamedTuple):
    """Which record of which generation."""

    topic_id: str
    generation: int
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """`records`: how many from `offset` on, above 1 only where a whole batch cannot be decoded. `reason` None: the entry is gone."""

    key: FailureKey
    topic: str = ""
    records: int = 1
    reason: str | None = None
    model: str | None = None
    failed_at_ms: int = 0

    def document(self) -> dict[str, Any]:
        """As it is shown and stored, JSON-able."""
        return {
            "topic": self.topic,
            **self.key._asdict(),
            "records": self.records,
            "reason": self.reason,
            "model": self.model,
            "failed_at_ms": self.failed_at_ms,
        }


def encode(entry: FailedRecord) -> tuple[bytes, bytes | None]:
    """Key and value of the entry's record."""
    key = json.dumps(entry.key._asdict()).encode()
    return key, None if entry.reason is None else json.dumps(entry.document(), ensure_ascii=False).encode()


def decode(key: bytes, value: bytes | None) -> FailedRecord | None:
    """The inverse; None for a record that is no entry: anyone may write to the topic."""
    try:
        name = FailureKey(**json.loads(key))
        if not isinstance(name.topic_id, str) or not all(isinstance(number, int) for number in name[1:]):
            return None
        if value is None:
            return FailedRecord(name)
        known = json.loads(value)
        return FailedRecord(
            name,
            str(known["topic"]),
            int(known["records"]),
            str(known["reason"]),
            known["model"],
            int(known["failed_at_ms"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


_FORMAT = JournalFormat(FAILURES_TOPIC, {"cleanup.policy": "compact"}, encode, decode, lambda entry: entry.key.topic_id)


class FailureLog:
    """All on the event loop. `load` before anything else."""

    def __init__(self, topics: Topics, logs: LogManager, clock: Clock) -> None:
        self._topics = topics
        self._logs = logs
        self._clock = clock
        self._journal = Journal(_FORMAT, topics, clock, 1)
        self._entries: dict[FailureKey, FailedRecord] = {}

    def load(self) -> None:
        """Reads the topic, where there is one."""
        for entry in self._journal.replay():
            if isinstance(entry, FailedRecord):
                self._remember(entry)
        # Of topics deleted while the disk took nothing.
        known = {topic.topic_id.hex() for topic in self._topics}
        self._forget(lambda key: key.topic_id not in known)

    def _remember(self, entry: FailedRecord) -> None:
        if entry.reason is None:
            self._entries.pop(entry.key, None)
        elif entry.key in self._entries or len(self._entries) < KEPT_MAX:
            self._entries[entry.key] = entry

    async def add(self, message: tuple[bytes, int, int, str, list[tuple[int, str, int]]]) -> None:
        """(topic id, generation, partition, model, rows of offset, reason, records), durably. Raises KafkaError."""
        topic_id, generation, partition, model, rows = message
        topic = self._topics.get_by_id(topic_id)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID)
        now_ms = self._clock.time_ms()
        entries = [
            FailedRecord(
                FailureKey(topic_id.hex(), generation, partition, offset),
                topic.name,
                records,
                reason[:REASON_CHARACTERS_MAX],
                model,
                now_ms,
            )
            for offset, reason, records in rows
        ]
        await self._durable(self._write([entry for entry in entries if entry.key not in self._entries]))

    def forget(self, topic_id: bytes, generation: int | None = None) -> None:
        """The topic, or one generation of its index, is no more."""
        self._forget(lambda key: key.topic_id == topic_id.hex() and generation in (None, key.generation))
        self._journal.roll()

    def _forget(self, gone: Callable[[FailureKey], bool]) -> None:
        keys = [key for key in self._entries if gone(key)]
        if keys:
            with contextlib.suppress(KafkaError):
                self._write([FailedRecord(key) for key in keys])
                self._logs.commit()

    def _write(self, entries: Sequence[FailedRecord]) -> int:
        sequence = self._journal.append(FAILURES_TOPIC, entries) if entries else 0
        for entry in entries:
            self._remember(entry)
        return sequence

    async def _durable(self, sequence: int) -> None:
        if not sequence:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(failure: Exception | None) -> None:
            if not future.done():
                future.set_result(None) if failure is None else future.set_exception(
                    KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(failure))
                )

        self._logs.when_durable(sequence, done)
        self._logs.commit()
        await future

    def listed(self, topic: Topic, generation: int | None, partition: int | None) -> list[FailedRecord]:
        """Those of a topic whose record the log still has, by partition and offset; None: of all generations, partitions."""
        starts = [log.log_start_offset for log in topic.partitions]
        return sorted(
            (
                entry
                for entry in self._of(topic.topic_id.hex())
                if generation in (None, entry.key.generation)
                and partition in (None, entry.key.partition)
                and entry.key.partition < len(starts)
                and entry.key.offset + entry.records > starts[entry.key.partition]
            ),
            key=lambda entry: (entry.key.partition, entry.key.offset, entry.key.generation),
        )

    def _of(self, topic_id: str) -> Iterable[FailedRecord]:
        return (entry for entry in self._entries.values() if entry.key.topic_id == topic_id)
