"""Four groups in a row consume, transform and produce in transactions, while their members and the broker are killed.

Every record of the first topic must come out of the last one exactly once, transformed by each group, in order.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console

from tests.broker_process import ROOT, BrokerProcess
from tests.crash.reading import check_directory, read_committed

GROUPS = 4
MEMBERS = 2
PARTITIONS = 3
BATCH_RECORDS = 200
# Sessions of killed members end soon, or the chain would mostly wait for them.
SESSION_MS = 3000
END_TIMEOUT_S = 180
SETTINGS = ("group.initial.rebalance.delay.ms=0", "group.min.session.timeout.ms=1000")
console = Console(stderr=True)


# ---- a member, in a process of its own -----------------------------------------------------------------------------


class Member:
    """Copies from one topic to the next, a transaction for each batch; whatever goes wrong, it begins anew from what is committed."""

    def __init__(self, bootstrap: str, group: int, number: int) -> None:
        self.group = group
        # librdkafka 2.16: after a re-bootstrap it keeps on waiting for a group coordinator that it has itself retired, and never
        # sends TxnOffsetCommit again until the broker goes once more.
        self.settings = {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "reconnect.backoff.max.ms": 200,
            "metadata.recovery.strategy": "none",
        }
        self.producer = confluent_kafka.Producer(
            {
                **self.settings,
                "transactional.id": f"chain-{group}-{number}",
                "transaction.timeout.ms": 20_000,
                "linger.ms": 2,
            }
        )
        self.batch: list[confluent_kafka.Message] = []

    def run(self) -> None:
        """For ever; a fatal error ends the process, and another one takes its place."""
        self.producer.init_transactions(60)
        while True:
            consumer = self.subscribe()
            try:
                while True:
                    self.collect(consumer)
                    if self.batch:
                        self.copy(consumer)
            except confluent_kafka.KafkaException as error:
                if error.args[0].fatal():
                    raise
                self.producer.abort_transaction(60)
            finally:
                consumer.close()

    def subscribe(self) -> confluent_kafka.Consumer:
        """An eager consumer: what it has not committed when it loses its partitions, somebody reads again."""
        consumer = confluent_kafka.Consumer(
            {
                **self.settings,
                "group.id": f"chain-{self.group}",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": SESSION_MS,
                "heartbeat.interval.ms": 500,
                "partition.assignment.strategy": "range",
            }
        )
        self.batch = []
        forget = lambda *_: self.batch.clear()  # noqa: E731
        consumer.subscribe([f"chain-{self.group}"], on_assign=forget, on_revoke=forget, on_lost=forget)
        return consumer

    def collect(self, consumer: confluent_kafka.Consumer) -> None:
        """A batch, or what there is after a moment; a rebalance in between empties it."""
        until = time.monotonic() + 0.1
        while len(self.batch) < BATCH_RECORDS and time.monotonic() < until:
            message = consumer.poll(0.05)
            if message is not None and message.error() is None:
                self.batch.append(message)

    def copy(self, consumer: confluent_kafka.Consumer) -> None:
        """Raises KafkaException when the transaction has to be aborted."""
        self.producer.begin_transaction()
        ends: dict[int, int] = {}
        for message in self.batch:
            value = message.value() + b":%d" % (self.group + 1)
            self.producer.produce(f"chain-{self.group + 1}", value, partition=message.partition())
            ends[message.partition()] = message.offset() + 1
        self.producer.poll(0)
        offsets = [confluent_kafka.TopicPartition(f"chain-{self.group}", *end) for end in ends.items()]
        self.retried(lambda: self.producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30))
        self.retried(lambda: self.producer.commit_transaction(30))
        self.batch.clear()

    def retried(self, call: "object") -> None:
        while True:
            try:
                call()  # type: ignore[operator]
            except confluent_kafka.KafkaException as error:
                if not error.args[0].retriable():
                    raise
            else:
                return


# ---- the chain -----------------------------------------------------------------------------------------------------


class Chain:
    """The broker, the members, and who dies next."""

    def __init__(self, directory: Path, chance: random.Random, sync: str) -> None:
        self.chance = chance
        self.broker = BrokerProcess(directory, f"storage.sync={sync}", *SETTINGS)
        self.log = (directory / "members.log").open("ab")
        self.members: dict[tuple[int, int], subprocess.Popen[bytes]] = {}
        self.sent = 0
        self.killed_members = self.killed_brokers = self.restarted = 0

    def start(self) -> None:
        self.broker.start()
        admin = AdminClient({"bootstrap.servers": self.broker.bootstrap})
        topics = [NewTopic(f"chain-{number}", PARTITIONS, 1) for number in range(GROUPS + 1)]
        for future in admin.create_topics(topics).values():
            future.result(30)
        self.source = confluent_kafka.Producer(
            {"bootstrap.servers": self.broker.bootstrap, "enable.idempotence": True, "linger.ms": 5, "log_level": 0}
        )
        for group in range(GROUPS):
            for number in range(MEMBERS):
                self.hire(group, number)

    def hire(self, group: int, number: int) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.crash.chain",
            "--member",
            self.broker.bootstrap,
            str(group),
            str(number),
        ]
        self.members[group, number] = subprocess.Popen(command, cwd=ROOT, stdout=self.log, stderr=self.log)

    def feed(self, records: int) -> None:
        for _ in range(records):
            self.source.produce("chain-0", b"%d" % self.sent, partition=self.sent % PARTITIONS)
            self.sent += 1
        self.source.poll(0)

    def harm(self, *, brokers: bool) -> None:
        """kill -9 of a member, seldom of the broker; the dead are replaced."""
        if brokers and self.chance.random() < 0.05:
            self.broker.kill()
            self.broker.start()
            self.killed_brokers += 1
        else:
            place = self.chance.choice(list(self.members))
            self.members[place].kill()
            self.members[place].wait()
            self.hire(*place)
            self.killed_members += 1

    def mend(self) -> None:
        """Members that have ended by a fatal error, as fenced ones do."""
        for place, process in list(self.members.items()):
            if process.poll() is not None:
                self.hire(*place)
                self.restarted += 1

    def finish(self) -> dict[int, list[bytes]]:
        """Nobody dies any more; what comes out of the last topic once everything is there, or the time is over."""
        self.source.flush(60)
        deadline = time.monotonic() + END_TIMEOUT_S
        while True:
            out = read_committed(self.broker.bootstrap, f"chain-{GROUPS}", PARTITIONS)
            if sum(map(len, out.values())) >= self.sent or time.monotonic() > deadline:
                return out
            self.mend()
            time.sleep(1)

    def end(self) -> None:
        for process in self.members.values():
            process.kill()
            process.wait()
        self.log.close()
        if self.broker.process is not None and self.broker.process.poll() is None:
            self.broker.stop()


def problems(sent: int, out: dict[int, list[bytes]]) -> list[str]:
    """What is missing, doubled, out of order or wrongly transformed."""
    suffix = b"".join(b":%d" % (group + 1) for group in range(GROUPS))
    found = []
    for partition, values in out.items():
        expected = [b"%d%s" % (number, suffix) for number in range(partition, sent, PARTITIONS)]
        if values != expected:
            at = next(
                (i for i, pair in enumerate(zip(values, expected, strict=False)) if pair[0] != pair[1]), len(values)
            )
            found.append(
                f"partition {partition}: {len(values)} records instead of {len(expected)}, "
                f"{len(values) - len(set(values))} doubled; first difference at {at}: {values[at : at + 3]}"
            )
    return found


def main() -> int:
    """Runs the chain; exit code 1 and the problems when a record is not where it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.chain", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=int, default=300, help="records per second")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--sync", default="always", choices=["always", "interval", "os"])
    parser.add_argument("--spare-broker", action="store_true", help="only members are killed")
    parser.add_argument("--member", nargs=3, metavar=("BOOTSTRAP", "GROUP", "NUMBER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.member:
        bootstrap, group, number = chosen.member
        Member(bootstrap, int(group), int(number)).run()
    console.print(f"seed {chosen.seed}, {chosen.minutes:g} minutes, storage.sync={chosen.sync}")
    directory = Path(tempfile.mkdtemp(prefix="senselog-chain-"))
    chain = Chain(directory, random.Random(chosen.seed), chosen.sync)
    found: list[str] = ["it did not come to its end"]
    try:
        chain.start()
        end = time.monotonic() + chosen.minutes * 60
        next_harm = time.monotonic() + 3
        while time.monotonic() < end:
            chain.feed(chosen.rate // 10)
            time.sleep(0.1)
            chain.mend()
            if time.monotonic() >= next_harm:
                chain.harm(brokers=not chosen.spare_broker)
                next_harm = time.monotonic() + chain.chance.uniform(0.5, 4)
        out = chain.finish()
        found = problems(chain.sent, out)
        chain.end()
        check_directory(chain.broker)
    finally:
        chain.end()
        if found:
            console.print(f"data and logs kept in {directory}")
        else:
            shutil.rmtree(directory)
    for problem in found:
        console.print(f"[red]{problem}[/red]")
    print(
        f"{chain.sent} records through {GROUPS} groups, {chain.killed_members} members and {chain.killed_brokers} brokers killed, "
        f"{chain.restarted} members fenced: {len(found)} problems"
    )
    return 1 if found else 0


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
