"""Produce and Fetch over a simulated disk and a clock moved by hand, without sockets."""

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from broker.bounded_log import BoundedLog
from broker.context import RequestContext
from broker.deferred import Deferred
from broker.fetch_sessions import FetchSessions
from broker.metrics import Metrics
from broker.registry import load_handlers
from protocol.api_keys import ApiKey
from protocol.codec import decode_request, decode_response, encode_request, encode_response
from protocol.messages import FetchRequest, ProduceRequest
from protocol.record_batch import Record, build_batch
from tests.unit.broker.admin import Admin
from tests.unit.broker.coordinator.world import VirtualScheduler


class Answer:
    """A handler's answer: there, or still to come."""

    def __init__(self, key: ApiKey, version: int, result: Any) -> None:
        self._key, self._version = key, version
        self._values: list[Any] = []
        if isinstance(result, Deferred):
            result.then(self._values.append)
        else:
            self._values.append(result)

    @property
    def there(self) -> bool:
        return bool(self._values)

    @property
    def value(self) -> Any:
        """As the client reads it; None for no response."""
        (value,) = self._values
        if value is None:
            return None
        data = b"".join(bytes(part) for part in encode_response(self._key, self._version, value))
        return decode_response(self._key, self._version, data)


class ManualReadAhead:
    """Loads when told."""

    def __init__(self) -> None:
        self.waiting: list[tuple[list[Callable[[], None]], Callable[[], None]]] = []

    def load(self, loads: list[Callable[[], None]], done: Callable[[], None]) -> None:
        self.waiting.append((loads, done))

    def finish(self) -> None:
        for loads, done in self.waiting:
            for load in loads:
                load()
            done()
        self.waiting = []


class Core(Admin):
    """What handlers of the data path need; `connection` is the client's."""

    def open(self) -> None:
        super().open()
        self.scheduler = VirtualScheduler(self.machine.clock)  # type: ignore[arg-type]
        self.read_ahead = ManualReadAhead()
        self.connection: Any = SimpleNamespace(advertised=("127.0.0.1", 9092), close_callbacks=set())
        self.services = SimpleNamespace(
            **vars(self.services)
            | {
                "logs": self.logs,
                "metrics": Metrics(),
                "refusals": BoundedLog(self.machine.clock.monotonic),
                "scheduler": self.scheduler,
                "fetch_sessions": FetchSessions(self.machine.clock),
                "read_ahead": self.read_ahead,
            }
        )

    def topic(self, name: str = "t", partitions: int = 1, **configs: str) -> Any:
        return self.topics.create(name, partitions, {key.replace("_", "."): value for key, value in configs.items()})

    def request(self, key: ApiKey, version: int, request: Any, client_id: str = "test") -> Answer:
        data = bytearray(b"".join(encode_request(key, version, request)))
        decoded = decode_request(key, version, memoryview(data))
        context = RequestContext(self.services, version, client_id, "127.0.0.1", self.connection, self.access)
        return Answer(key, version, load_handlers()[key].handle(context, decoded))

    def produce(
        self, *wanted: tuple[Any, int, bytes | None], version: int = 9, acks: int = -1, **fields: Any
    ) -> Answer:
        """Each wanted is (topic name or id, partition, records); committed, but not yet durable."""
        key = "topic_id" if version >= 13 else "name"
        topics = [
            ProduceRequest.TopicProduceData(
                **{key: topic},
                partition_data=[ProduceRequest.PartitionProduceData(index=index, records=records)],  # type: ignore[arg-type]
            )
            for topic, index, records in wanted
        ]
        client_id = fields.pop("client_id", "test")
        request = ProduceRequest(acks=acks, timeout_ms=1000, topic_data=topics, **fields)
        answer = self.request(ApiKey.PRODUCE, version, request, client_id)
        self.logs.commit()
        return answer

    def produced(self, topic: Any, records: bytes | None, partition: int = 0, **fields: Any) -> Any:
        """The partition's answer once it is durable."""
        answer = self.produce((topic, partition, records), **fields)
        self.settle()
        return answer.value.responses[0].partition_responses[0]

    def fetch(
        self, *wanted: tuple[Any, int, int], version: int = 12, partition_max_bytes: int = 1 << 20, **fields: Any
    ) -> Answer:
        """Each wanted is (topic name or id, partition, offset[, fields of the partition])."""
        key = "topic_id" if version >= 13 else "topic"
        topics = [
            FetchRequest.FetchTopic(
                **{key: topic},
                partitions=[
                    FetchRequest.FetchPartition(
                        **{
                            "partition": index,
                            "fetch_offset": offset,
                            "partition_max_bytes": partition_max_bytes,
                            **(more[0] if more else {}),
                        }
                    )
                ],
            )
            for topic, index, offset, *more in wanted
        ]
        limits = {"max_wait_ms": 0, "min_bytes": 1, "max_bytes": 1 << 24, **fields}
        return self.request(ApiKey.FETCH, version, FetchRequest(topics=topics, **limits))

    def settle(self) -> None:
        """Lets syncs, write-behind and calls that are due finish."""
        self.machine.settle(random.Random(0))
        self.scheduler.pass_time(0)
        self.machine.settle(random.Random(0))

    def pass_time(self, duration_ms: int) -> None:
        self.scheduler.pass_time(duration_ms)


def batch(
    *values: bytes | None, key: bytes | None = None, timestamp_ms: int = 1_700_000_000_000, **fields: Any
) -> bytes:
    return bytes(build_batch([Record(i, timestamp_ms, key, value) for i, value in enumerate(values)], **fields))


def batches_in(records: bytes | memoryview | None) -> list[tuple[int, int]]:
    """(base offset, record count) of each batch."""
    from protocol.record_batch import parse_batches

    found = parse_batches(memoryview(records or b""))
    return [(header.base_offset, header.record_count) for header in found]
