"""The C client itself, through the library inside the confluent-kafka wheel.

confluent-kafka's Python layer costs about a microsecond a message, as much as the rest of the client; these loads hand librdkafka whole
batches (`rd_kafka_produce_batch`, `rd_kafka_consume_batch`) and so measure what a C program would see.
"""

import ctypes
import time
from pathlib import Path

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic

PRODUCER, CONSUMER = 0, 1
OFFSET_BEGINNING = -2
BATCH_MESSAGES = 2_000
TIMEOUT_S = 120.0


class _Message(ctypes.Structure):
    _fields_ = (
        ("err", ctypes.c_int),
        ("rkt", ctypes.c_void_p),
        ("partition", ctypes.c_int32),
        ("payload", ctypes.c_void_p),
        ("len", ctypes.c_size_t),
        ("key", ctypes.c_void_p),
        ("key_len", ctypes.c_size_t),
        ("offset", ctypes.c_int64),
        ("private", ctypes.c_void_p),
    )


def _library() -> ctypes.CDLL:
    folder = Path(confluent_kafka.__file__).parents[1]
    found = sorted(folder.glob("confluent_kafka.libs/librdkafka-*.so*"))
    if not found:
        raise RuntimeError(f"no librdkafka beside confluent-kafka in {folder}")
    library = ctypes.CDLL(str(found[0]))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, []),
        ("rd_kafka_conf_set", ctypes.c_int, [pointer, text, text, text, ctypes.c_size_t]),
        ("rd_kafka_new", pointer, [ctypes.c_int, pointer, text, ctypes.c_size_t]),
        ("rd_kafka_topic_new", pointer, [pointer, text, pointer]),
        ("rd_kafka_produce_batch", ctypes.c_int, [pointer, ctypes.c_int32, ctypes.c_int, pointer, ctypes.c_int]),
        ("rd_kafka_poll", ctypes.c_int, [pointer, ctypes.c_int]),
        ("rd_kafka_flush", ctypes.c_int, [pointer, ctypes.c_int]),
        ("rd_kafka_consume_start", ctypes.c_int, [pointer, ctypes.c_int32, ctypes.c_int64]),
        ("rd_kafka_consume_stop", ctypes.c_int, [pointer, ctypes.c_int32]),
        ("rd_kafka_consume_batch", ctypes.c_ssize_t, [pointer, ctypes.c_int32, ctypes.c_int, pointer, ctypes.c_size_t]),
        ("rd_kafka_message_destroy", None, [pointer]),
        ("rd_kafka_topic_destroy", None, [pointer]),
        ("rd_kafka_destroy", None, [pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def create_topic(bootstrap: str, topic: str, partitions: int, **configs: str) -> None:
    """Creates a topic and waits until every partition has a leader; raises KafkaException when the broker refuses."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    request = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=configs)
    for future in admin.create_topics([request]).values():
        future.result(timeout=30)
    deadline = time.monotonic() + TIMEOUT_S
    for partition in range(partitions):
        while True:
            try:
                end_offset(bootstrap, topic, partition)
                break
            except confluent_kafka.KafkaException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def end_offset(bootstrap: str, topic: str, partition: int = 0) -> int:
    """The high watermark of a partition, asked of the broker."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-offsets"})
    try:
        return int(consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, partition), timeout=30)[1])
    finally:
        consumer.close()


class Client:
    """One librdkafka handle on one topic; `close` frees it."""

    def __init__(self, kind: int, topic: str, settings: dict[str, str]) -> None:
        self._library = _library()
        error = ctypes.create_string_buffer(512)
        conf = self._library.rd_kafka_conf_new()
        for name, value in settings.items():
            if self._library.rd_kafka_conf_set(conf, name.encode(), value.encode(), error, 512):
                raise RuntimeError(error.value.decode())
        self._handle = self._library.rd_kafka_new(kind, conf, error, 512)
        if not self._handle:
            raise RuntimeError(error.value.decode())
        self._topic = self._library.rd_kafka_topic_new(self._handle, topic.encode(), None)

    def produce(self, count: int, value_bytes: int) -> None:
        """Produces `count` messages of `value_bytes` to partition 0 and waits until all are answered."""
        value = ctypes.create_string_buffer((bytes(range(256)) * (value_bytes // 256 + 1))[:value_bytes], value_bytes)
        messages = (_Message * BATCH_MESSAGES)()
        left, deadline = count, time.monotonic() + TIMEOUT_S
        while left:
            size = min(BATCH_MESSAGES, left)
            for message in messages[:size]:
                message.payload, message.len, message.err = ctypes.addressof(value), value_bytes, 0
            accepted = self._library.rd_kafka_produce_batch(self._topic, 0, 0, messages, size)
            left -= accepted
            if accepted < size:  # the local queue is full: wait for answers
                self._library.rd_kafka_poll(self._handle, 1)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{left} messages left after {TIMEOUT_S} s")
        if self._library.rd_kafka_flush(self._handle, int(TIMEOUT_S * 1000)):
            raise TimeoutError("the broker did not answer every message")

    def consume(self, count: int) -> int:
        """Consumes `count` messages of partition 0 from the beginning; returns their payload bytes (all are of one size)."""
        self._library.rd_kafka_consume_start(self._topic, 0, OFFSET_BEGINNING)
        addresses = (ctypes.c_void_p * BATCH_MESSAGES)()
        seen, payload_bytes, deadline = 0, 0, time.monotonic() + TIMEOUT_S
        destroy = self._library.rd_kafka_message_destroy
        while seen < count:
            got = self._library.rd_kafka_consume_batch(self._topic, 0, 1000, addresses, BATCH_MESSAGES)
            if got > 0:
                # Offsets are dense: when the last message of a batch has the offset it should have, none before it is an
                # error or missing. Looking at each costs as much as the rest of the client.
                last = _Message.from_address(addresses[got - 1])
                if last.err or last.offset != seen + got - 1:
                    raise RuntimeError(
                        f"consume failed with error {last.err} at offset {last.offset}, wanted {seen + got - 1}"
                    )
                payload_bytes += last.len * got
                for address in addresses[:got]:
                    destroy(address)
                seen += got
            if time.monotonic() > deadline:
                raise TimeoutError(f"{seen} of {count} messages after {TIMEOUT_S} s")
        self._library.rd_kafka_consume_stop(self._topic, 0)
        return payload_bytes

    def close(self) -> None:
        """Frees the handle; waits for its threads."""
        self._library.rd_kafka_topic_destroy(self._topic)
        self._library.rd_kafka_destroy(self._handle)
