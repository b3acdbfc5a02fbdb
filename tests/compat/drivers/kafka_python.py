"""kafka-python, 2.0 to 3.0: what a release lacks or calls otherwise is asked for by name."""

import time
from typing import Any

import kafka
from common import HEARTBEAT_MS, SESSION_TIMEOUT_MS, TIMEOUT_S, Driver, Member, Record, Settings, serve, until
from kafka import admin

MODERN = int(kafka.__version__.split(".")[0]) >= 3
if MODERN:
    from kafka.net.sasl.oauth import AbstractTokenProvider
elif kafka.__version__.startswith("2.0"):
    from kafka.oauth.abstract import AbstractTokenProvider
else:
    from kafka.sasl.oauth import AbstractTokenProvider


def record(message: Any) -> Record:
    text = lambda value: None if value is None else value.decode()  # noqa: E731
    headers = [[name, text(value)] for name, value in message.headers]
    return [message.partition, message.offset, text(message.key), text(message.value), headers]


def records(polled: Any) -> list[Record]:
    return [record(message) for messages in polled.values() for message in messages]


class KafkaPython(Driver):
    def settings(self, **more: Any) -> Settings:
        names = {
            "protocol": "security_protocol",
            "mechanism": "sasl_mechanism",
            "username": "sasl_plain_username",
            "password": "sasl_plain_password",
            "ca": "ssl_cafile",
            "certificate": "ssl_certfile",
            "key": "ssl_keyfile",
        }
        given = {names[key]: value for key, value in self.security.items() if key in names}
        if token := self.security.get("token"):

            class Provider(AbstractTokenProvider):  # type: ignore[misc]
                def token(self) -> str:
                    return str(token)

            given["sasl_oauth_token_provider"] = Provider()
        return {"bootstrap_servers": self.bootstrap, **given, **more}

    def new_admin(self) -> Any:
        return kafka.KafkaAdminClient(**self.settings())

    # topics

    def create_topic(self, topic: str, partitions: int) -> None:
        self.admin().create_topics([admin.NewTopic(topic, partitions, 1)])

    def list_topics(self) -> list[str]:
        return list(self.admin().list_topics())

    def create_partitions(self, topic: str, count: int) -> None:
        self.admin().create_partitions({topic: admin.NewPartitions(count)})

    def delete_topic(self, topic: str) -> None:
        self.admin().delete_topics([topic])

    # records

    def producer(self, name: str, codec: str = "none", idempotent: bool = True, transactional_id: str = "") -> None:
        more: Settings = {"compression_type": None if codec == "none" else codec, "linger_ms": 20}
        if transactional_id:
            more["transactional_id"] = transactional_id
        elif idempotent:
            more["enable_idempotence"] = True
        self.producers[name] = kafka.KafkaProducer(**self.settings(**more))
        if transactional_id:
            self.producers[name].init_transactions()

    def send(self, name: str, topic: str, partition: int, records: list[Any]) -> list[int]:
        encoded = lambda value: None if value is None else value.encode()  # noqa: E731
        futures = [
            self.producers[name].send(
                topic,
                encoded(value),
                encoded(key),
                partition=partition,
                headers=[(header, encoded(content)) for header, content in headers],
            )
            for key, value, headers in records
        ]
        self.producers[name].flush(TIMEOUT_S)
        return [future.get(TIMEOUT_S).offset for future in futures]

    def close_producer(self, name: str) -> None:
        self.producers.pop(name).close()

    def begin(self, name: str) -> None:
        self.producers[name].begin_transaction()

    def commit(self, name: str) -> None:
        self.producers[name].commit_transaction()

    def abort(self, name: str) -> None:
        self.producers[name].abort_transaction()

    def read(self, topic: str, start: dict[str, int], count: int, committed: bool, timeout_s: float) -> list[Record]:
        isolation = {"isolation_level": "read_committed"} if committed else {}
        consumer = kafka.KafkaConsumer(**self.settings(**isolation))
        place = kafka.TopicPartition(topic, 0)
        consumer.assign([place])
        if "offset" in start:
            consumer.seek(place, start["offset"])
        elif "time_ms" in start:
            consumer.seek(place, consumer.offsets_for_times({place: start["time_ms"]})[place].offset)
        else:
            consumer.seek_to_beginning(place)
        got = until(count, lambda: records(consumer.poll(200)), timeout_s)
        consumer.close()
        return got

    # groups

    def _member(self, topic: str, group: str, instance: str) -> Any:
        static = {"group_instance_id": instance} if instance else {}
        return kafka.KafkaConsumer(
            topic,
            **self.settings(
                group_id=group,
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                session_timeout_ms=SESSION_TIMEOUT_MS,
                heartbeat_interval_ms=HEARTBEAT_MS,
                **static,
            ),
        )

    def join(self, topic: str, group: str, instance: str = "", protocol: str = "classic") -> Member:
        consumer = self._member(topic, group, instance)

        def poll() -> list[Record]:
            # Not less: 3.0 forgets the answer to its SyncGroup when a poll ends just as it comes.
            got = records(consumer.poll(1000))
            if got:
                consumer.commit()
            return got

        return Member(poll, lambda: {place.partition for place in consumer.assignment()}, consumer.close)

    def copy(self, source: str, target: str, group: str, transactional_id: str, count: int, leave_open: bool) -> int:
        self.producer("copy", transactional_id=transactional_id)
        producer, consumer = self.producers["copy"], self._member(source, group, "")
        copied, deadline = 0, time.monotonic() + TIMEOUT_S
        while copied < count and time.monotonic() < deadline:
            messages = [message for part in consumer.poll(200, max_records=10).values() for message in part]
            if not messages:
                continue
            producer.begin_transaction()
            for message in messages:
                producer.send(target, message.value, message.key, partition=0)
            ends = {place: consumer.position(place) for place in consumer.assignment()}
            offsets = {
                place: kafka.structs.OffsetAndMetadata(end, "", -1) for place, end in ends.items() if end is not None
            }
            producer.send_offsets_to_transaction(offsets, consumer.group_metadata() if MODERN else group)
            copied += len(messages)
            if leave_open and copied >= count:
                producer.flush(TIMEOUT_S)
                return copied
            producer.commit_transaction()
        consumer.close()
        return copied

    # administration

    def describe_config(self, topic: str) -> dict[str, str]:
        resource = admin.ConfigResource(admin.ConfigResourceType.TOPIC, topic)
        if MODERN:
            described = self.admin().describe_configs([resource], config_filter="all")
            entries = next(iter(next(iter(described.values())).values()))
            return {name: entry["value"] for name, entry in entries.items()}
        [response] = self.admin().describe_configs([resource])
        return {entry[0]: entry[1] for entry in response.resources[0][4]}

    def alter_config(self, topic: str, key: str, value: str) -> None:
        self.admin().alter_configs([admin.ConfigResource(admin.ConfigResourceType.TOPIC, topic, {key: value})])

    def list_groups(self) -> list[str]:
        if MODERN:
            return [group["group_id"] for group in self.admin().list_groups()]
        return [group for group, _ in self.admin().list_consumer_groups()]

    def describe_group(self, group: str) -> dict[str, Any]:
        if MODERN:
            [described] = self.admin().describe_groups([group]).values()
            return {"state": described["group_state"].lower(), "members": len(described["members"])}
        [described] = self.admin().describe_consumer_groups([group])
        return {"state": described.state.lower(), "members": len(described.members)}

    def committed(self, group: str, topic: str) -> dict[str, int]:
        offsets = (
            self.admin().list_group_offsets(group)[group] if MODERN else self.admin().list_consumer_group_offsets(group)
        )
        return {str(place.partition): entry.offset for place, entry in offsets.items() if place.topic == topic}

    def delete_group(self, group: str) -> None:
        delete = self.admin().delete_groups if MODERN else self.admin().delete_consumer_groups
        answer = delete([group])
        failed = [
            str(result)
            for result in (answer.values() if isinstance(answer, dict) else answer)
            if "Error]" in str(result)
        ]
        if failed:
            raise RuntimeError(failed[0])

    def delete_records(self, topic: str, before: int) -> int:
        place = kafka.TopicPartition(topic, 0)
        answer = self.admin().delete_records({place: before})[place]
        return int(answer["low_watermark"] if isinstance(answer, dict) else answer.low_watermark)

    def acls(self, topic: str, principal: str) -> list[int]:
        """Creates one rule, lists it, deletes it: how many each saw."""
        allowed = (admin.ACLOperation.READ, admin.ACLPermissionType.ALLOW)
        rule = admin.ACL(principal, "*", *allowed, admin.ResourcePattern(admin.ResourceType.TOPIC, topic))
        matching = admin.ACLFilter(principal, "*", *allowed, admin.ResourcePattern(admin.ResourceType.TOPIC, topic))
        client = self.admin()
        created = client.create_acls([rule])["succeeded"]
        listed, _ = client.describe_acls(matching)
        [(_, deleted, _)] = client.delete_acls([matching])
        return [len(created), len(listed), len(deleted)]

    def scram_user(self, user: str, password: str, mechanism: str) -> list[str]:
        """Gives a user credentials; the mechanisms that the broker then lists."""
        kind = admin.ScramMechanism[mechanism.replace("-", "_")]
        upsertion = admin.UserScramCredentialUpsertion(user, kind, password.encode(), 4096)
        if failed := self.admin().alter_user_scram_credentials([upsertion])[user]:
            raise RuntimeError(failed)
        described = self.admin().describe_user_scram_credentials([user])[user]
        return [entry["mechanism"].name for entry in described["credential_infos"]]


serve(KafkaPython())
