"""Kafka's own command-line tools, all that take a broker: over a listener of each kind and with both group protocols they do their
work against Senselog and print what they print against a secured Apache Kafka, times and ids apart."""

import contextlib
import functools
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.compat import listeners
from tests.compat.conftest import EVENTUALLY_S, fresh
from tests.compat.listeners import ADMIN, GUEST, LISTENERS, PASSWORD, Listening
from tests.compat.roster import KAFKA

Tool = Callable[..., "CompletedProcess[str]"]
LINES = "".join(f"key{number}:line {number}\n" for number in range(20))  # what console-producer is given

# What somebody types. A command that ends with & goes on until `stop`; `until WORD:` repeats one until it prints the word.
SCENARIOS = {
    "topics": """
        topics --create --topic {name} --partitions 3 --config retention.ms=3600000
        topics --create --topic {name}
        topics --alter --topic {name} --partitions 5
        topics --describe --topic {name}
        topics --list --topic {name}
        get-offsets --topic {name}
        topics --delete --topic {name}
        topics --describe --topic {name}
    """,
    "configs": """
        topics --create --topic {name}
        configs --entity-type topics --entity-name {name} --alter --add-config retention.ms=60000,max.message.bytes=2000000
        configs --entity-type topics --entity-name {name} --alter --delete-config retention.ms
        configs --entity-type topics --entity-name {name} --describe
        configs --entity-type topics --entity-name {name} --alter --add-config retention.ms=soon
        configs --entity-type users --entity-name {name} --alter --add-config SCRAM-SHA-256=[password=x],producer_byte_rate=1000000
        configs --entity-type users --entity-name {name} --describe
        configs --entity-type brokers --entity-name 1 --describe
        configs --entity-type groups --entity-name {name} --alter --add-config consumer.session.timeout.ms=50000
        configs --entity-type groups --entity-name {name} --describe
        configs --entity-type groups --entity-name {name} --alter --add-config consumer.session.timeout.ms=500
    """,
    "acls": """
        acls --add --allow-principal User:{name} --producer --topic {name}
        acls --add --deny-principal User:{name} --operation READ --topic {name} --resource-pattern-type prefixed
        acls --list --topic {name} --resource-pattern-type match
        acls --remove --force --allow-principal User:{name} --producer --topic {name}
        acls --list --topic {name} --resource-pattern-type match
    """,
    "groups": """
        topics --create --topic {name}
        console-producer --topic {name} --reader-property parse.key=true --reader-property key.separator=: --compression-codec lz4
        console-consumer --topic {name} --from-beginning --max-messages 20 --group {name} --formatter-property print.key=true
        consumer-groups --describe --group {name}
        verifiable-consumer --topic {name} --group-id {name} --group-protocol {protocol} &
        until Stable: consumer-groups --describe --group {name} --state
        consumer-groups --describe --group {name} --members --verbose
        consumer-groups --describe --group {name} --verbose
        groups --list
        stop
        until Empty: consumer-groups --describe --group {name} --state
        consumer-groups --list --state
        consumer-groups --reset-offsets --group {name} --topic {name} --to-offset 10 --execute
        console-consumer --topic {name} --max-messages 10 --group {name} --formatter-property print.offset=true
        consumer-groups --delete-offsets --group {name} --topic {name}
        consumer-groups --delete --group {name}
        consumer-groups --describe --group {name}
    """,
    "verifiable clients": """
        topics --create --topic {name}
        verifiable-producer --topic {name} --max-messages 20 --acks -1
        delete-records --offset-json-file {offsets}
        get-offsets --topic {name} --time earliest
        verifiable-consumer --topic {name} --group-id {name} --max-messages 15 --group-protocol {protocol}
        log-dirs --describe --topic-list {name}
    """,
    "performance": """
        topics --create --topic {name} --partitions 3
        producer-perf-test --topic {name} --num-records 20000 --record-size 200 --throughput -1 --command-property compression.type=lz4
        consumer-perf-test --topic {name} --num-records 20000 --group {name}
        e2e-latency --topic {name} --num-records 10 --producer-acks all --record-size 100
    """,
    "transactions": """
        topics --create --topic {name}
        producer-perf-test --topic {name} --num-records 100 --record-size 100 --throughput -1 --transactional-id {name}
        transactions list
        transactions describe --transactional-id {name}
        transactions describe-producers --topic {name} --partition 0
        transactions find-hanging --broker-id 1
        console-consumer --topic {name} --from-beginning --max-messages 100 --isolation-level read_committed
    """,
    "broker": """
        features describe
        api-versions
        share-groups --list
    """,
}
# By a user who may only describe the topic and the group `known`.
DENIED = """
    topics --create --topic {name}
    topics --describe --topic known
    topics --alter --topic known --partitions 3
    topics --delete --topic known
    console-consumer --topic known --from-beginning --max-messages 1 --group {name}
    delete-records --offset-json-file {offsets}
    consumer-groups --describe --group known
    consumer-groups --describe --group {name}
    consumer-groups --reset-offsets --group known --topic known --to-earliest --execute
    consumer-groups --delete --group known
    configs --entity-type topics --entity-name known --alter --add-config retention.ms=1000
    configs --entity-type brokers --entity-name 1 --describe
    configs --entity-type users --entity-name {name} --alter --add-config producer_byte_rate=1
    configs --entity-type groups --entity-name known --alter --add-config consumer.session.timeout.ms=50000
    transactions describe --transactional-id {name}
    transactions describe-producers --topic known --partition 0
    producer-perf-test --topic known --num-records 1 --record-size 10 --throughput -1 --transactional-id {name}
    features upgrade --feature group.version=1
    log-dirs --describe
"""
# Those in which the tools' consumers are members of a group.
OF_GROUPS = ("groups", "verifiable clients", "performance")
CASES = [
    pytest.param(scenario, protocol, id=f"{scenario}-{protocol}")
    for scenario in SCENARIOS
    for protocol in (("classic", "consumer") if scenario in OF_GROUPS else ("classic",))
]

# Of what a tool prints, the part that does not depend on speed, on what else is on the broker, or on what tests/compat/FINDINGS.md
# declares: lines that fit, or the groups in them.
SHOWN = {
    "producer-perf-test": r"(\d+ records sent), .*",
    "consumer-perf-test": r"start.time.*|20[\d-]+ [\d:]+, [^,]+, ([\d.]+), [\d.]+, (\d+), .*",
    "e2e-latency": r"(Avg latency): .*|(Percentiles): .*",
    "groups --list": r"GROUP .*|<name> .*",
    "consumer-groups --list": r"GROUP .*|<name> .*",
    "transactions list": r"TransactionalId .*|<name> .*",
    "features": r"(Feature: (?:group|transaction)\.version .*) Epoch: \d+",
    "api-versions": r"<address>.*|(?!.*(?:DelegationToken|Share|Streams|RaftVoter|UnregisterBroker|UNKNOWN))(.*?),?",
}
IDS = {"ProducerId", "LastTimestamp", "CurrentTransactionStartTimeMs", "TransactionDurationMs"}
# Log lines, stack traces, and the empty assignment of a member that has the broker's answer before the topic's metadata.
UNTOLD = r"\[|NOTE: Picked|WARN|\s+at |\s*\.\.\. \d+ more|.*\"partitions_assigned\",\"partitions\":\[\]"
VARYING = {
    r"TopicId: \S+": "TopicId: <id>",
    r"(localhost|127\.0\.0\.1):\d+": "<address>",
    r"/127\.0\.0\.1": "<host>",
    r"--command-config \S+|/\S+/offsets.json": "<file>",
    r"[\w.-]+-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<=\s)[\w-]{22}(?=\s)": "<member>",
    r'"timestamp":\d+|"avg_throughput":[\d.E-]+|LastStableEpoch: \S+|CreateTime:\d+': "<measured>",
    r'"logDir":"[^"]+"': "<directory>",
    r'"size":[1-9]\d*': "<size>",  # of as many batches as the producer was quick enough to make
}


def normal(tool: str, arguments: list[str], text: str, name: str) -> list[str]:
    """The lines of an output without what must vary, log lines and stack traces."""
    text = text.replace(name, "<name>")
    for pattern, replacement in VARYING.items():
        text = re.sub(pattern, replacement, text)
    lines = [line for line in text.splitlines() if not re.match(UNTOLD, line)]
    if tool == "transactions":
        lines = _without_columns(lines)
    lines = [re.sub(r"\s+", " ", line).strip() for line in lines]
    shown = SHOWN.get(" ".join([tool, *arguments[:1]]), SHOWN.get(tool))
    if shown is not None:
        matches = [match for line in lines if (match := re.fullmatch(shown, line))]
        lines = [" ".join(filter(None, match.groups())) or match[0] for match in matches]
    if tool in ("configs", "acls"):  # in the order of a hash set
        lines.sort()
    return [line for line in lines if line]


def _without_columns(lines: list[str]) -> list[str]:
    """A table, separated by tabs, without ids and times."""
    rows = [line.split("\t") for line in lines]
    kept = [index for index, title in enumerate(rows[0]) if title.strip() not in IDS] if rows else []
    return [" ".join(row[index] for index in kept if index < len(row)) for row in rows]


Answer = tuple[str, int, list[str]]  # the command, its exit code, what it showed


def play(run: Tool, client: list[str], commands: str, protocol: str, directory: Path) -> Iterator[Answer]:
    """Types the commands for a topic and group of a new name, and yields what each showed."""
    name, offsets = fresh("tools"), directory / "offsets.json"
    offsets.write_text(json.dumps({"partitions": [{"topic": name, "partition": 0, "offset": 5}], "version": 1}))
    with contextlib.ExitStack() as stack:
        for line in commands.strip().splitlines():
            words = shlex.split(line.strip().format(name=name, protocol=protocol, offsets=offsets))
            if words == ["stop"]:
                stack.close()
                continue
            if words[-1] == "&":
                stack.enter_context(_running([words[0], *client, *words[1:-1]]))
                continue
            awaited = words.pop(1).removesuffix(":") if words[0] == "until" else ""
            tool, *arguments = words[1:] if awaited else words
            deadline = time.monotonic() + EVENTUALLY_S
            while True:
                done = run(tool, *client, *arguments, stdin=LINES if tool == "console-producer" else "")
                shown = normal(tool, arguments, done.stdout + done.stderr, name)
                if awaited in " ".join(shown) or time.monotonic() > deadline:
                    break
            yield line.strip(), done.returncode, shown


def tools(scenario: str) -> list[str]:
    """Those that it uses."""
    commands = [re.sub(r"until \w+: ", "", line.strip()) for line in SCENARIOS[scenario].strip().splitlines()]
    return sorted({command.split()[0] for command in commands} - {"stop"})


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[None]:
    """A tool that goes on; at the end it is told to stop, and leaves its group."""
    process = subprocess.Popen(
        [str(KAFKA), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the launcher and its JVM
        process.wait(30)


@pytest.fixture(scope="module")
def ours(kafka_tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """A Senselog that knows its user by SCRAM too, as the tool itself sets it up."""
    with listeners.senselog(tmp_path_factory.mktemp("senselog")) as broker:
        user = ("--entity-type", "users", "--entity-name", ADMIN)
        secret = ("--alter", "--add-config", f"SCRAM-SHA-512=[password={PASSWORD}]")
        kafka_tool("configs", *broker.client("PLAINTEXT"), *user, *secret)
        yield broker


@pytest.fixture(scope="module")
def kafkas(tmp_path_factory: pytest.TempPathFactory, kafka_tool: Tool) -> Iterator[Listening]:
    """An Apache Kafka."""
    with listeners.kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="module")
def theirs(kafka_tool: Tool, kafkas: Listening) -> Callable[[str, str], list[Answer]]:
    """What a scenario shows against Apache Kafka, whose listeners make no difference to it: asked once, over SASL_SSL."""

    @functools.cache
    def answers(scenario: str, protocol: str) -> list[Answer]:
        client = kafkas.client("SASL_SSL", protocol)
        return list(play(kafka_tool, client, SCENARIOS[scenario], protocol, kafkas.directory))

    return answers


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize(("scenario", "protocol"), CASES)
def test_tools_print_what_they_print_against_kafka(
    scenario: str,
    protocol: str,
    listener: str,
    ours: Listening,
    theirs: Callable[[str, str], list[Answer]],
    kafka_tool: Tool,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Command by command: the same lines, errors among them, and the same exit code."""
    for tool in tools(scenario):
        record_property("tool", tool)
    expected = theirs(scenario, protocol)
    played = play(kafka_tool, ours.client(listener, protocol), SCENARIOS[scenario], protocol, tmp_path)
    for answer, kafkas_answer in zip(played, expected, strict=True):
        assert answer == kafkas_answer


def test_tools_say_what_is_forbidden_as_against_kafka(kafka_tool: Tool, ours: Listening, kafkas: Listening) -> None:
    """What authorization refuses, in Kafka's words."""
    played = []
    for broker in (ours, kafkas):
        admin, guest = broker.client("SASL_SSL"), broker.client("SASL_SSL", user=GUEST)
        kafka_tool("topics", *admin, "--create", "--topic", "known")
        kafka_tool("console-producer", *admin, "--topic", "known", stdin=LINES)
        reading = ("--topic", "known", "--group", "known", "--from-beginning", "--max-messages", "1")
        kafka_tool("console-consumer", *admin, *reading)
        rights = ("--operation", "DESCRIBE", "--topic", "known", "--group", "known")
        kafka_tool("acls", *admin, "--add", "--allow-principal", f"User:{GUEST}", *rights)
        played.append(play(kafka_tool, guest, DENIED, "classic", broker.directory))
    for answer, kafkas_answer in zip(*played, strict=True):
        assert answer == kafkas_answer


def test_vector_configs(kafka_tool: Tool, ours: Listening) -> None:
    """`kafka-configs` switches vectors on, which `kafka-topics` cannot: it refuses keys it does not know before asking."""
    client, name = ours.client("PLAINTEXT"), fresh("tools")
    kafka_tool("topics", *client, "--create", "--topic", name)
    entity = (*client, "--entity-type", "topics", "--entity-name", name)
    altered = kafka_tool(
        "configs", *entity, "--alter", "--add-config", "vector.enabled=true,vector.embedding.model=hashing"
    )
    assert altered.returncode == 0, altered.stderr
    shown = kafka_tool("configs", *entity, "--describe").stdout
    assert "vector.enabled=true" in shown
    assert "vector.embedding.model=hashing" in shown
    refused = kafka_tool("configs", *entity, "--alter", "--add-config", "vector.hnsw.m=many")
    assert refused.returncode
    assert "vector.hnsw.m" in refused.stdout + refused.stderr
