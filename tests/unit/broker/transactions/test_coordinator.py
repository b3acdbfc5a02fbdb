"""Transactions through the broker's handlers: commit, abort, fencing, timeouts, both protocols, and what survives a crash."""

import random
from typing import Any

import pytest

from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import DescribeTransactionsRequest, ListTransactionsRequest
from storage.log import PartitionLog
from tests.simulated_storage import SimulatedCrash
from tests.unit.broker.transactions.world import GROUP, TIMEOUT_MS, Producer, World

both_protocols = pytest.mark.parametrize("bumps", [False, True], ids=["classic", "KIP-890"])


@pytest.fixture
def world() -> World:
    world = World()
    world.topic("t", 3)
    return world


def state_of(world: World, transactional_id: str) -> str:
    request = DescribeTransactionsRequest(transactional_ids=[transactional_id])
    answer = world.ask_now(ApiKey.DESCRIBE_TRANSACTIONS, 0, request)
    return str(answer.transaction_states[0].transaction_state)


def started(world: World, transactional_id: str = "x", **settings: bool) -> Producer:
    producer = Producer(world, transactional_id, **settings)
    assert producer.init() == 0
    return producer


@both_protocols
def test_a_transaction_is_visible_with_its_commit_everywhere(world: World, bumps: bool) -> None:
    """Records of several partitions and the group's offset: none before, all with EndTxn's answer."""
    producer = started(world, bumps=bumps)
    for partition in (0, 1):
        assert producer.produce(b"a", b"b", partition=partition) == 0
    assert producer.commit_offset(7) == 0
    assert (world.committed("t"), world.committed("t", 1), world.offset("t")) == ([], [], -1)
    assert producer.end(commit=True) == 0
    assert (world.committed("t"), world.committed("t", 1), world.offset("t")) == ([b"a", b"b"], [b"a", b"b"], 7)
    assert producer.produce(b"c") == 0
    assert producer.commit_offset(8) == 0
    assert producer.end(commit=False) == 0
    assert (world.committed("t"), world.uncommitted("t"), world.offset("t")) == ([b"a", b"b"], [b"a", b"b", b"c"], 7)
    assert producer.epoch == (2 if bumps else 0)
    assert world.problems() == []


@both_protocols
def test_a_new_process_fences_the_old_one(world: World, bumps: bool) -> None:
    """InitProducerId aborts what is open, at once; nothing of the zombie gets through afterwards."""
    zombie = started(world, bumps=bumps)
    zombie.produce(b"old")
    zombie.commit_offset(3)
    fresh = started(world, bumps=bumps)
    assert fresh.epoch == zombie.epoch + 2
    assert world.topics.log("t", 0).last_stable_offset == 2
    assert fresh.produce(b"new") == 0
    for partition in (0, 1):
        assert zombie.send(b"late", partition=partition) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert zombie.commit_offset(4) in (ErrorCode.PRODUCER_FENCED, ErrorCode.INVALID_PRODUCER_EPOCH)
    for commit in (True, False):
        assert zombie.end(commit=commit) == ErrorCode.PRODUCER_FENCED
    assert zombie.init(again=True) == ErrorCode.PRODUCER_FENCED
    assert fresh.end(commit=True) == 0
    assert (world.committed("t"), world.offset("t")) == ([b"new"], -1)


@both_protocols
def test_a_transaction_left_open_is_aborted_after_its_timeout(world: World, bumps: bool) -> None:
    """Its producer is fenced, but may go on with the epoch that it is given (KIP-360); others need not wait for it."""
    producer = started(world, bumps=bumps)
    producer.produce(b"x")
    world.pass_time(TIMEOUT_MS - 1)
    assert state_of(world, "x") == "Ongoing"
    world.pass_time(1)
    world.settle()
    assert state_of(world, "x") == "CompleteAbort"
    assert world.topics.log("t", 0).last_stable_offset == 2
    assert producer.send(b"y") == ErrorCode.INVALID_PRODUCER_EPOCH
    # With KIP-890 it looks like the lost answer to an abort.
    assert producer.end(commit=True) == (ErrorCode.INVALID_TXN_STATE if bumps else ErrorCode.PRODUCER_FENCED)
    assert producer.init(again=True) == 0
    assert producer.produce(b"z") == 0
    assert producer.end(commit=True) == 0
    assert world.committed("t") == [b"z"]


def test_offsets_of_a_transaction_left_open_do_not_stay_pending(world: World) -> None:
    """A consumer that asks for stable offsets waits no longer than for the transaction's timeout."""
    producer = started(world)
    producer.commit_offset(5)
    assert world.services.groups.offsets.of_group(GROUP).is_pending("t", 0)
    world.pass_time(TIMEOUT_MS)
    world.settle()
    assert not world.services.groups.offsets.of_group(GROUP).is_pending("t", 0)
    assert world.offset("t") == -1


def test_a_timeout_counts_from_the_first_partition_also_over_a_restart(world: World) -> None:
    producer = started(world)
    producer.produce(b"x")
    world.pass_time(TIMEOUT_MS // 2)
    producer.produce(b"y", partition=1)
    world.reopen()
    world.pass_time(TIMEOUT_MS // 2 - 1)
    assert state_of(world, "x") == "Ongoing"
    world.pass_time(1)
    world.settle()
    assert state_of(world, "x") == "CompleteAbort"


def test_the_answer_to_a_lost_end_is_the_same_and_another_end_is_refused(world: World) -> None:
    """The older protocol tells a retry by the state, KIP-890 by the epoch that the producer does not know yet."""
    for bumps in (False, True):
        producer = started(world, f"retry-{bumps}", bumps=bumps)
        producer.produce(b"x", partition=int(bumps))
        version, lost = producer.end_request(commit=True)
        first = world.ask_now(ApiKey.END_TXN, version, lost)
        again = world.ask_now(ApiKey.END_TXN, version, lost)
        assert (again.error_code, again.producer_epoch) == (0, first.producer_epoch)
        lost.committed = False
        assert world.ask_now(ApiKey.END_TXN, version, lost).error_code == ErrorCode.INVALID_TXN_STATE
        assert world.committed("t", int(bumps)) == [b"x"]


@both_protocols
def test_epochs_run_out_and_a_new_producer_id_takes_over(world: World, bumps: bool) -> None:
    """No epoch above 32766 is ever given out, and a lost answer to the last one can be asked for again."""
    producer = started(world, bumps=bumps)
    entry = world.services.transactions._entries["x"]
    object.__setattr__(entry.transaction, "producer_epoch", 32764)
    producer.epoch = 32764
    seen = []
    for number in range(6):
        if bumps:
            assert producer.produce(b"%d" % number) == 0
            before = producer.producer_id, producer.epoch
            version, lost = producer.end_request(commit=True)
            world.ask_now(ApiKey.END_TXN, version, lost)
            assert producer.end(commit=True) == 0
            assert (producer.producer_id, producer.epoch) != before
        else:
            assert producer.init(again=bool(number % 2)) == 0
            assert producer.produce(b"%d" % number) == 0
            assert producer.end(commit=True) == 0
        seen.append((producer.producer_id, producer.epoch))
    assert len(set(seen)) == len(seen)
    assert len({producer_id for producer_id, _ in seen}) == 2
    assert max(epoch for _, epoch in seen) == 32766
    assert world.committed("t") == [b"%d" % number for number in range(6)]


def test_a_zombie_cannot_abort_the_transaction_of_its_successor(world: World) -> None:
    """InitProducerId with an id and an older epoch is refused before it touches what is open."""
    zombie = started(world)
    fresh = started(world)
    fresh.produce(b"x")
    assert zombie.init(again=True) == ErrorCode.PRODUCER_FENCED
    assert fresh.end(commit=True) == 0
    assert world.committed("t") == [b"x"]


@pytest.mark.parametrize("restarts", [False, True])
@both_protocols
def test_a_full_disk_only_delays_the_end(world: World, bumps: bool, restarts: bool) -> None:
    """What is decided stays decided: clients are told to try again, and the markers follow when there is room, or at the start."""
    producer = started(world, bumps=bumps)
    for partition in (0, 1):
        producer.produce(b"x", partition=partition)
    producer.commit_offset(3)
    marked: list[int] = []
    original = PartitionLog.append_marker

    def append_marker(log: PartitionLog, *arguments: Any, **fields: Any) -> Any:
        if marked:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "full")
        marked.append(log.partition)
        return original(log, *arguments, **fields)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartitionLog, "append_marker", append_marker)
        assert producer.end(commit=True) == ErrorCode.CONCURRENT_TRANSACTIONS
        assert Producer(world, "x").init() == ErrorCode.CONCURRENT_TRANSACTIONS
        assert producer.commit_offset(4) != 0
        assert state_of(world, "x") == "PrepareCommit"
        world.pass_time(5000)
    if restarts:
        world.reopen()
    else:
        world.pass_time(5000)
    world.settle()
    assert state_of(world, "x") == "CompleteCommit"
    assert producer.end(commit=True) == 0
    assert (world.committed("t"), world.committed("t", 1), world.offset("t")) == ([b"x"], [b"x"], 3)


def test_a_deleted_topic_does_not_keep_a_transaction_open(world: World) -> None:
    world.topic("u")
    producer = started(world)
    producer.produce(b"x")
    producer.produce(b"x", topic="u")
    world.topics.delete("u")
    assert producer.end(commit=True) == 0
    assert world.committed("t") == [b"x"]


def test_a_rebalance_does_not_end_a_transaction(world: World) -> None:
    """TxnOffsetCommit is fenced by member and generation alone; without them (v0-2) any state of the group will do."""
    producer = started(world)
    assert producer.commit_offset(5) == 0
    assert producer.end(commit=True) == 0
    assert world.offset("t", group_id=GROUP) == 5


def test_transactional_ids_are_forgotten_when_nobody_uses_them(world: World) -> None:
    """After transactional.id.expiration.ms; an open one is aborted first, and a restart does not bring them back."""
    world = World(transactional_id_expiration_ms=10 * 3_600_000)
    world.topic("t")
    started(world, "idle")
    busy = started(world, "busy")
    for _ in range(11):
        world.pass_time(3_600_000)
        busy.init()
    listed = world.ask_now(ApiKey.LIST_TRANSACTIONS, 0, ListTransactionsRequest())
    assert [one.transactional_id for one in listed.transaction_states] == ["busy"]
    world.reopen()
    assert state_of(world, "idle") == ""
    assert state_of(world, "busy") == "Empty"


# ---- crashes -------------------------------------------------------------------------------------------------------


class Life:
    """One transaction after another by one producer, over everything that a transaction can touch; then the broker dies."""

    def __init__(self, bumps: bool, commit: bool) -> None:
        self.world = World()
        self.world.topic("t", 3)
        self.bumps, self.commit = bumps, commit
        self.answered: dict[int, bool] = {}
        """Number of the transaction -> how it ended, as its client was told."""

    def run(self) -> None:
        for number in range(2):
            producer = started(self.world, bumps=self.bumps)
            for partition in (0, 1):
                assert producer.produce(b"%d" % number, partition=partition) == 0
            assert producer.commit_offset(number, partition=2) == 0
            assert producer.end(commit=self.commit) == 0
            self.answered[number] = self.commit
            self.world.logs.checkpoint()
            self.world.settle()

    def check(self, step: int) -> None:
        world = self.world
        seen = [set(world.committed("t", partition)) for partition in (0, 1)]
        offset = world.offset("t", 2)
        for number in range(2):
            visible = [b"%d" % number in values for values in seen]
            visible.append(offset >= number)
            assert len(set(visible)) == 1, f"step {step}: transaction {number} is visible in {visible}"
            if number in self.answered:
                assert visible[0] == self.answered[number], f"step {step}: transaction {number} was answered otherwise"
            if not self.commit:
                assert not visible[0], f"step {step}: transaction {number} was never committed"
        for log in world.user_logs():
            assert log.last_stable_offset == log.high_watermark, f"step {step}: {log.topic} is held back"


@both_protocols
@pytest.mark.parametrize("commit", [True, False], ids=["commit", "abort"])
@pytest.mark.parametrize("power", [False, True], ids=["kill", "power"])
def test_a_crash_at_every_step_leaves_a_transaction_complete_or_aborted(bumps: bool, commit: bool, power: bool) -> None:
    """At every call of the file system. What was answered stays; the rest is all there or not at all, in partitions and group,
    and once timeouts are over nothing holds back the readers."""
    step, crashed = 0, True
    while crashed:
        step += 1 if step < 40 else 3
        life = Life(bumps, commit)
        life.world.disk.crash_at = life.world.disk.steps + step
        crashed = False
        try:
            life.run()
        except SimulatedCrash:
            crashed = True
        life.world.disk.crash_at = -1
        life.world.reopen(power=power)
        life.world.settle()
        life.world.pass_time(TIMEOUT_MS + 1000)
        life.world.settle()
        life.check(step)
        assert life.world.problems() == []
    assert step > 30


@pytest.mark.parametrize("seed", range(12))
def test_random_interleavings(seed: int) -> None:
    """Producers and their zombies, both protocols, commits, aborts, timeouts and kills in any order.

    Never is a transaction both committed and aborted, or in part; the last stable offset never falls; a fenced epoch never writes.
    """
    chance = random.Random(seed)
    world = World()
    world.topic("t", 3)
    story = Story(world, chance)
    for _ in range(150):
        story.act()
    world.pass_time(TIMEOUT_MS + 1000)
    world.settle()
    story.check(done=True)
    assert world.problems() == []


class Story:
    """What clients do and are told; records are named after their transaction."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world, self.chance = world, chance
        self.producers: list[Producer] = []
        self.newest: dict[str, Producer] = {}
        self.running: dict[Producer, int] = {}
        self.transactions = 0
        self.committed: set[int] = set()
        self.ended: set[int] = set()
        self.written: dict[int, int] = {}
        self.stable = dict.fromkeys(range(3), 0)

    def act(self) -> None:
        choice = self.chance.random()
        if choice < 0.12 or not self.producers:
            self.start()
        elif choice < 0.16:
            self.world.pass_time(self.chance.choice([1000, TIMEOUT_MS // 2, TIMEOUT_MS]))
        elif choice < 0.20:
            self.world.reopen()
        elif choice < 0.75:
            self.write(self.chance.choice(self.producers))
        else:
            self.end(self.chance.choice(self.producers))
        self.check()

    def start(self) -> None:
        transactional_id = self.chance.choice(["x", "y", "z"])
        producer = Producer(self.world, transactional_id, bumps=self.chance.random() < 0.5)
        assert producer.init() == 0
        self.producers.append(producer)
        self.newest[transactional_id] = producer

    def write(self, producer: Producer) -> None:
        number = self.running.get(producer, -1)
        if number < 0:
            number = self.transactions = self.transactions + 1
        error = producer.produce(b"%d" % number, partition=self.chance.randrange(3))
        fenced = self.newest[producer.transactional_id] is not producer
        assert not (fenced and not error), "a fenced epoch has written"
        if error:
            # Timed out or taken over: a client that is not fenced begins anew.
            self.running.pop(producer, None)
            if not fenced:
                assert producer.init(again=True) == 0
        else:
            self.running[producer] = number
            self.written[number] = self.written.get(number, 0) + 1

    def end(self, producer: Producer) -> None:
        number, commit = self.running.pop(producer, -1), self.chance.random() < 0.6
        error = producer.end(commit=commit)
        fenced = self.newest[producer.transactional_id] is not producer
        assert not (fenced and not error), "a fenced producer has ended a transaction"
        if error and not fenced:
            assert producer.init(again=True) == 0
        if number >= 0:
            self.ended.add(number)
            if commit and not error:
                self.committed.add(number)

    def check(self, *, done: bool = False) -> None:
        seen: dict[int, int] = {}
        for partition in range(3):
            log = self.world.topics.log("t", partition)
            assert log.last_stable_offset >= self.stable[partition], "the last stable offset fell"
            self.stable[partition] = log.last_stable_offset
            assert not done or log.last_stable_offset == log.high_watermark
            for value in self.world.committed("t", partition):
                seen[int(value)] = seen.get(int(value), 0) + 1
        assert not (seen.keys() - self.committed), "a transaction that was not committed is visible"
        if done:
            assert seen == {number: self.written[number] for number in self.committed}
