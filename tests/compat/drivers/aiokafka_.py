"""aiokafka, on an event loop in a thread."""

import asyncio
import ssl
import threading
import time
from collections.abc import Coroutine
from typing import Any

import aiokafka
import aiokafka.abc
from aiokafka import admin
from aiokafka.structs import TopicPartition
from common import HEARTBEAT_MS, SESSION_TIMEOUT_MS, TIMEOUT_S, Driver, Member, Record, Settings, serve, until

LOOP = asyncio.new_event_loop()
threading.Thread(target=LOOP.run_forever, daemon=True).start()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(work, LOOP).result(2 * TIMEOUT_S)


def records(polled: Any) -> list[Record]:
    text = lambda value: None if value is None else value.decode()  # noqa: E731
    return [
        [m.partition, m.offset, text(m.key), text(m.value), [[name, text(value)] for name, value in m.headers]]
        for messages in polled.values()
        for m in messages
    ]


class AioKafka(Driver):
    def settings(self, **more: Any) -> Settings:
        security = self.security
        names = {
            "protocol": "security_protocol",
            "mechanism": "sasl_mechanism",
            "username": "sasl_plain_username",
            "password": "sasl_plain_password",
        }
        given = {names[key]: value for key, value in security.items() if key in names}
        if "ca" in security:
            context = given["ssl_context"] = ssl.create_default_context(cafile=security["ca"])
            if "certificate" in security:
                context.load_cert_chain(security["certificate"], security["key"])
        if "token" in security:

            class Provider(aiokafka.abc.AbstractTokenProvider):  # type: ignore[misc]
                async def token(self) -> str:
                    return str(security["token"])

            given["sasl_oauth_token_provider"] = Provider()
        return {"bootstrap_servers": self.bootstrap, **given, **more}

    def administer(self, call: str, *arguments: Any) -> Any:
        async def work() -> Any:
            client = admin.AIOKafkaAdminClient(**self.settings())
            await client.start()
            try:
                return await getattr(client, call)(*arguments)
            finally:
                await client.close()

        return run(work())

    # topics

    def create_topic(self, topic: str, partitions: int) -> None:
        self.administer("create_topics", [admin.NewTopic(topic, partitions, 1)])

    def list_topics(self) -> list[str]:
        return list(self.administer("list_topics"))

    def create_partitions(self, topic: str, count: int) -> None:
        self.administer("create_partitions", {topic: admin.NewPartitions(count)})

    def delete_topic(self, topic: str) -> None:
        self.administer("delete_topics", [topic])

    # records

    def producer(self, name: str, codec: str = "none", idempotent: bool = True, transactional_id: str = "") -> None:
        async def start() -> Any:
            producer = aiokafka.AIOKafkaProducer(
                **self.settings(
                    compression_type=None if codec == "none" else codec,
                    enable_idempotence=idempotent,
                    transactional_id=transactional_id or None,
                    linger_ms=20,
                )
            )
            await producer.start()
            return producer

        self.producers[name] = run(start())

    def send(self, name: str, topic: str, partition: int, records: list[Any]) -> list[int]:
        encoded = lambda value: None if value is None else value.encode()  # noqa: E731

        async def work() -> list[int]:
            futures = [
                await self.producers[name].send(
                    topic,
                    encoded(value),
                    encoded(key),
                    partition,
                    headers=[(header, encoded(content)) for header, content in headers],
                )
                for key, value, headers in records
            ]
            return [(await future).offset for future in futures]

        return list(run(work()))

    def close_producer(self, name: str) -> None:
        run(self.producers.pop(name).stop())

    def begin(self, name: str) -> None:
        run(self.producers[name].begin_transaction())

    def commit(self, name: str) -> None:
        run(self.producers[name].commit_transaction())

    def abort(self, name: str) -> None:
        run(self.producers[name].abort_transaction())

    def _started(self, *topics: str, **more: Any) -> Any:
        async def start() -> Any:
            consumer = aiokafka.AIOKafkaConsumer(*topics, **self.settings(**more))
            await consumer.start()
            return consumer

        return run(start())

    def read(self, topic: str, start: dict[str, int], count: int, committed: bool, timeout_s: float) -> list[Record]:
        consumer = self._started(isolation_level="read_committed" if committed else "read_uncommitted")
        place = TopicPartition(topic, 0)

        async def begin() -> None:
            consumer.assign([place])
            if "offset" in start:
                consumer.seek(place, start["offset"])
            elif "time_ms" in start:
                consumer.seek(place, (await consumer.offsets_for_times({place: start["time_ms"]}))[place].offset)
            else:
                await consumer.seek_to_beginning(place)

        run(begin())
        got = until(count, lambda: records(run(consumer.getmany(timeout_ms=200))), timeout_s)
        run(consumer.stop())
        return got

    # groups

    def _member(self, topic: str, group: str, instance: str) -> Any:
        return self._started(
            topic,
            group_id=group,
            group_instance_id=instance or None,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
        )

    def join(self, topic: str, group: str, instance: str = "", protocol: str = "classic") -> Member:
        consumer = self._member(topic, group, instance)

        def poll() -> list[Record]:
            got = records(run(consumer.getmany(timeout_ms=100)))
            if got:
                run(consumer.commit())
            return got

        assignment = lambda: {place.partition for place in consumer.assignment()}  # noqa: E731
        return Member(poll, assignment, lambda: run(consumer.stop()))

    def copy(self, source: str, target: str, group: str, transactional_id: str, count: int, leave_open: bool) -> int:
        self.producer("copy", transactional_id=transactional_id)
        return int(run(self._copy(self._member(source, group, ""), target, group, count, leave_open)))

    async def _copy(self, consumer: Any, target: str, group: str, count: int, leave_open: bool) -> int:
        producer = self.producers["copy"]
        copied, deadline = 0, time.monotonic() + TIMEOUT_S
        while copied < count and time.monotonic() < deadline:
            polled = await consumer.getmany(timeout_ms=200, max_records=10)
            messages = [message for part in polled.values() for message in part]
            if not messages:
                continue
            await producer.begin_transaction()
            for message in messages:
                await producer.send_and_wait(target, message.value, message.key, 0)
            offsets = {place: part[-1].offset + 1 for place, part in polled.items() if part}
            await producer.send_offsets_to_transaction(offsets, group)
            copied += len(messages)
            if leave_open and copied >= count:
                return copied
            await producer.commit_transaction()
        await consumer.stop()
        return copied

    # administration

    def describe_config(self, topic: str) -> dict[str, str]:
        resource = admin.config_resource.ConfigResource(admin.config_resource.ConfigResourceType.TOPIC, topic)
        [response] = self.administer("describe_configs", [resource])
        return {entry[0]: entry[1] for entry in response.resources[0][4]}

    def alter_config(self, topic: str, key: str, value: str) -> None:
        kind = admin.config_resource.ConfigResourceType.TOPIC
        self.administer("alter_configs", [admin.config_resource.ConfigResource(kind, topic, {key: value})])

    def list_groups(self) -> list[str]:
        return [group[0] for group in self.administer("list_consumer_groups")]

    def describe_group(self, group: str) -> dict[str, Any]:
        [response] = self.administer("describe_consumer_groups", [group])
        [described] = response.groups
        return {"state": described[2].lower(), "members": len(described[5])}

    def committed(self, group: str, topic: str) -> dict[str, int]:
        offsets = self.administer("list_consumer_group_offsets", group)
        return {str(place.partition): entry.offset for place, entry in offsets.items() if place.topic == topic}

    def delete_records(self, topic: str, before: int) -> int:
        place = TopicPartition(topic, 0)
        return int(self.administer("delete_records", {place: admin.RecordsToDelete(before)})[place])


serve(AioKafka())
