"""confluent-kafka (librdkafka)."""

import time
from typing import Any

import confluent_kafka as kafka
from common import HEARTBEAT_MS, SESSION_TIMEOUT_MS, TIMEOUT_S, Driver, Member, Record, Settings, serve, until
from confluent_kafka import admin


def settled(futures: dict[Any, Any]) -> dict[Any, Any]:
    return {key: future.result(TIMEOUT_S) for key, future in futures.items()}


def record(message: Any) -> Record:
    if message.error() is not None:
        raise kafka.KafkaException(message.error())
    text = lambda value: None if value is None else value.decode()  # noqa: E731
    headers = [[name, text(value)] for name, value in message.headers() or ()]
    return [message.partition(), message.offset(), text(message.key()), text(message.value()), headers]


class Confluent(Driver):
    def settings(self, **more: Any) -> Settings:
        names = {
            "protocol": "security.protocol",
            "mechanism": "sasl.mechanism",
            "username": "sasl.username",
            "password": "sasl.password",
            "ca": "ssl.ca.location",
            "certificate": "ssl.certificate.location",
            "key": "ssl.key.location",
        }
        given = {names[key]: value for key, value in self.security.items() if key in names}
        if token := self.security.get("token"):
            given["oauth_cb"] = lambda _: (token, time.time() + 3600)
        return {"bootstrap.servers": self.bootstrap, **given, **more}

    def new_admin(self) -> Any:
        return admin.AdminClient(self.settings())

    # topics

    def create_topic(self, topic: str, partitions: int) -> None:
        settled(self.admin().create_topics([admin.NewTopic(topic, partitions, 1)]))

    def list_topics(self) -> list[str]:
        return list(self.admin().list_topics(timeout=TIMEOUT_S).topics)

    def create_partitions(self, topic: str, count: int) -> None:
        settled(self.admin().create_partitions([admin.NewPartitions(topic, count)]))

    def delete_topic(self, topic: str) -> None:
        settled(self.admin().delete_topics([topic]))

    # records

    def producer(self, name: str, codec: str = "none", idempotent: bool = True, transactional_id: str = "") -> None:
        more = {"transactional.id": transactional_id} if transactional_id else {"enable.idempotence": idempotent}
        self.producers[name] = kafka.Producer(self.settings(**{"compression.type": codec, "linger.ms": 20, **more}))
        if transactional_id:
            self.producers[name].init_transactions(TIMEOUT_S)

    def send(self, name: str, topic: str, partition: int, records: list[Any]) -> list[int]:
        offsets: list[int] = []

        def delivered(error: Any, message: Any) -> None:
            if error is not None:
                raise kafka.KafkaException(error)
            offsets.append(message.offset())

        for key, value, headers in records:
            self.producers[name].produce(
                topic, value, key, partition, headers=[tuple(pair) for pair in headers], on_delivery=delivered
            )
        if left := self.producers[name].flush(TIMEOUT_S):
            raise TimeoutError(f"{left} records are not delivered")
        return offsets

    def close_producer(self, name: str) -> None:
        del self.producers[name]

    def begin(self, name: str) -> None:
        self.producers[name].begin_transaction()

    def commit(self, name: str) -> None:
        self.producers[name].commit_transaction(TIMEOUT_S)

    def abort(self, name: str) -> None:
        self.producers[name].abort_transaction(TIMEOUT_S)

    def read(self, topic: str, start: dict[str, int], count: int, committed: bool, timeout_s: float) -> list[Record]:
        isolation = "read_committed" if committed else "read_uncommitted"
        consumer = kafka.Consumer(self.settings(**{"group.id": f"read-{topic}", "isolation.level": isolation}))
        place = kafka.TopicPartition(topic, 0, start.get("offset", kafka.OFFSET_BEGINNING))
        if "time_ms" in start:
            place.offset = start["time_ms"]
            [place] = consumer.offsets_for_times([place], TIMEOUT_S)
        consumer.assign([place])
        got = until(count, lambda: [record(message) for message in consumer.consume(count, 0.2)], timeout_s)
        consumer.close()
        return got

    # groups

    def _member(self, group: str, instance: str, protocol: str) -> Any:
        more = {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
        if protocol == "consumer":
            more["group.protocol"] = "consumer"
        else:
            more |= {"session.timeout.ms": SESSION_TIMEOUT_MS, "heartbeat.interval.ms": HEARTBEAT_MS}
        if instance:
            more["group.instance.id"] = instance
        return kafka.Consumer(self.settings(**more))

    def join(self, topic: str, group: str, instance: str = "", protocol: str = "classic") -> Member:
        consumer = self._member(group, instance, protocol)
        consumer.subscribe([topic])

        def poll() -> list[Record]:
            messages = consumer.consume(100, 0.1)
            if messages:
                consumer.commit(asynchronous=False)
            return [record(message) for message in messages]

        return Member(poll, lambda: {place.partition for place in consumer.assignment()}, consumer.close)

    def copy(self, source: str, target: str, group: str, transactional_id: str, count: int, leave_open: bool) -> int:
        self.producer("copy", transactional_id=transactional_id)
        producer, consumer = self.producers["copy"], self._member(group, "", "classic")
        consumer.subscribe([source])
        copied, deadline = 0, time.monotonic() + TIMEOUT_S
        while copied < count and time.monotonic() < deadline:
            messages = consumer.consume(10, 0.2)
            if not messages:
                continue
            producer.begin_transaction()
            for message in messages:
                producer.produce(target, message.value(), message.key(), 0)
            producer.send_offsets_to_transaction(
                consumer.position(consumer.assignment()), consumer.consumer_group_metadata()
            )
            copied += len(messages)
            if leave_open and copied >= count:
                producer.flush(TIMEOUT_S)
                return copied
            producer.commit_transaction(TIMEOUT_S)
        consumer.close()
        return copied

    # administration

    def describe_config(self, topic: str) -> dict[str, str]:
        resource = admin.ConfigResource(admin.ConfigResource.Type.TOPIC, topic)
        [entries] = settled(self.admin().describe_configs([resource])).values()
        return {name: entry.value for name, entry in entries.items()}

    def alter_config(self, topic: str, key: str, value: str) -> None:
        entry = admin.ConfigEntry(key, value, incremental_operation=admin.AlterConfigOpType.SET)
        resource = admin.ConfigResource(admin.ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        settled(self.admin().incremental_alter_configs([resource]))

    def list_groups(self) -> list[str]:
        return [group.group_id for group in self.admin().list_consumer_groups().result(TIMEOUT_S).valid]

    def describe_group(self, group: str) -> dict[str, Any]:
        [described] = settled(self.admin().describe_consumer_groups([group])).values()
        return {"state": described.state.name.lower().replace("_", ""), "members": len(described.members)}

    def committed(self, group: str, topic: str) -> dict[str, int]:
        [offsets] = settled(
            self.admin().list_consumer_group_offsets([kafka.ConsumerGroupTopicPartitions(group)])
        ).values()
        return {str(p.partition): p.offset for p in offsets.topic_partitions if p.topic == topic}

    def delete_group(self, group: str) -> None:
        settled(self.admin().delete_consumer_groups([group]))

    def delete_records(self, topic: str, before: int) -> int:
        [deleted] = settled(self.admin().delete_records([kafka.TopicPartition(topic, 0, before)])).values()
        return int(deleted.low_watermark)

    def acls(self, topic: str, principal: str) -> list[int]:
        """Creates one rule, lists it, deletes it: how many each saw."""
        rule = lambda kind: kind(  # noqa: E731
            admin.ResourceType.TOPIC,
            topic,
            admin.ResourcePatternType.LITERAL,
            principal,
            "*",
            admin.AclOperation.READ,
            admin.AclPermissionType.ALLOW,
        )
        created = settled(self.admin().create_acls([rule(admin.AclBinding)]))
        listed = self.admin().describe_acls(rule(admin.AclBindingFilter)).result(TIMEOUT_S)
        [deleted] = settled(self.admin().delete_acls([rule(admin.AclBindingFilter)])).values()
        return [len(created), len(listed), len(deleted)]

    def allow(self, principal: str, topic: str) -> None:
        """Lets somebody do everything with a topic, in any group."""
        kinds = ((admin.ResourceType.TOPIC, topic), (admin.ResourceType.GROUP, "*"))
        everything = (admin.AclOperation.ALL, admin.AclPermissionType.ALLOW)
        literal = admin.ResourcePatternType.LITERAL
        rules = [admin.AclBinding(kind, name, literal, principal, "*", *everything) for kind, name in kinds]
        settled(self.admin().create_acls(rules))

    def scram_user(self, user: str, password: str, mechanism: str) -> list[str]:
        """Gives a user credentials; the mechanisms that the broker then lists."""
        info = admin.ScramCredentialInfo(admin.ScramMechanism[mechanism.replace("-", "_")], 4096)
        wanted = admin.UserScramCredentialUpsertion(user, info, password.encode())
        settled(self.admin().alter_user_scram_credentials([wanted]))
        [described] = settled(self.admin().describe_user_scram_credentials([user])).values()
        return [entry.mechanism.name for entry in described.scram_credential_infos]


serve(Confluent())
