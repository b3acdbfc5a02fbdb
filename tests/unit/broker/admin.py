"""A broker's topics over a simulated disk, and its handlers, without sockets."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from broker.config import Config
from broker.context import RequestContext
from broker.deferred import Deferred
from broker.features import Features
from broker.meta_store import Metadata, MetaStore
from broker.producer_ids import ProducerIds
from broker.registry import load_handlers
from broker.security.access import UNRESTRICTED, Access
from broker.security.security import Security
from broker.topics import Topic, Topics
from protocol.api_keys import ApiKey
from protocol.codec import decode_request, decode_response, encode_request, encode_response
from protocol.record_batch import build_batch, parse_batches
from protocol.records import Record
from storage.config import StorageConfig
from storage.log_manager import LogManager
from tests.simulated_storage import Machine, ManualClock, SimulatedFileSystem

DIRECTORY = Path("/data")
STORAGE = StorageConfig(wal_file_bytes=1 << 16, wal_bytes_max=1 << 22, min_free_bytes=0)


def security_of(**settings: Any) -> Security:
    """Users, ACLs and rights of a broker that is just set up, and keeps nothing."""
    store: Any = SimpleNamespace(metadata=Metadata("test"))
    store.replace = lambda **changes: setattr(store, "metadata", replace(store.metadata, **changes))
    return Security(Config(**settings), store)


class _ReadAhead:
    """The disk is there at once."""

    def load(self, loads: Sequence[Callable[[], None]], done: Callable[[], None]) -> None:
        for load in loads:
            load()
        done()


class Admin:
    """Opens, restarts and asks."""

    def __init__(self, **settings: Any) -> None:
        self.disk = SimulatedFileSystem()
        self.config = Config(data_dir=DIRECTORY, **settings)
        self.access: Access = UNRESTRICTED
        self.connection: Any = SimpleNamespace(advertised=("127.0.0.1", 9092))
        self.open()

    def open(self) -> None:
        """Starts the broker's parts on what the disk holds."""
        self.machine = Machine(self.disk, ManualClock())
        self.logs = LogManager.open(
            DIRECTORY,
            STORAGE,
            clock=self.machine.clock,
            file_system=self.disk,
            post=self.machine.post,
            new_worker=self.machine.new_worker,
        )
        self.store = MetaStore.open(DIRECTORY, self.disk)
        self.topics = Topics(self.store, self.logs, self.config)
        self.services: Any = SimpleNamespace(
            config=self.config,
            topics=self.topics,
            clock=self.machine.clock,
            producer_ids=ProducerIds(self.store),
            security=Security(self.config, self.store),
            features=Features(self.store, 1),
            read_ahead=_ReadAhead(),
            cluster_id=self.store.metadata.cluster_id,
            node_id=1,
            advertised=("127.0.0.1", 9092),
            bound_listeners="PLAINTEXT://127.0.0.1:9092",
            advertised_listeners="PLAINTEXT://127.0.0.1:9092",
        )

    def restart(self) -> None:
        """Stops cleanly and starts again."""
        self.settle()
        self.logs.close()
        self.disk.kill()
        self.open()

    def crash(self) -> None:
        """Loses power and starts again."""
        self.disk.lose_power()
        self.open()

    def settle(self) -> None:
        """Lets syncs and write-behind finish."""
        self.machine.settle(random.Random(0))

    def append(self, topic: Topic, *values: bytes, partition: int = 0, timestamp_ms: int = 0) -> int:
        """Appends one batch and makes it durable; returns its first offset."""
        records = [Record(i, timestamp_ms + i, None, value, []) for i, value in enumerate(values)]
        data = memoryview(build_batch(records))
        result = topic.partitions[partition].append(data, parse_batches(data), now_ms=timestamp_ms)
        self.logs.commit()
        self.settle()
        return result.base_offset

    def ask(self, key: ApiKey, version: int, request: Any) -> Any:
        """The handler's answer; request and answer go through the codec, as they do on the wire."""
        decoded = decode_request(key, version, b"".join(encode_request(key, version, request)))
        context = RequestContext(self.services, version, "test", "127.0.0.1", self.connection, self.access)
        answer = load_handlers()[key].handle(context, decoded)
        if isinstance(answer, Deferred):
            answers: list[Any] = []
            answer.then(answers.append)
            (answer,) = answers
        return decode_response(key, version, b"".join(encode_response(key, version, answer)))
