"""Kafka's own command-line tools: they do their work against Senselog and print what they print against Apache Kafka."""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.compat.conftest import senselog

Tool = Callable[..., "CompletedProcess[str]"]
RECORDS = 20_000


def normal(text: str, *names: str) -> list[str]:
    """The lines of an output without what must vary: ids, ports, times, log lines, order of config entries."""
    for index, name in enumerate(names):
        text = text.replace(name, f"<name{index}>")
    text = re.sub(r"TopicId: \S+", "TopicId: <id>", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "<address>", text)
    text = re.sub(r"/127\.0\.0\.1", "<host>", text)
    text = re.sub(r"[\w.-]+-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<member>", text)
    text = re.sub(r'"timestamp":\d+|"avg_throughput":[\d.E-]+', "<measured>", text)
    text = re.sub(r"LastStableEpoch: \S+|CreateTime:\d+", "<time>", text)
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(("[main]", "WARN", "[kafka"))]


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of their own, whose configs are those of the reference."""
    with senselog(tmp_path_factory.mktemp("senselog")) as address:
        yield address


@pytest.fixture
def both(kafka_tool: Tool, bootstrap: str, reference: str) -> Callable[..., str]:
    """Runs a tool against both brokers, asserts the same exit code and output, and returns Senselog's output."""

    def run(
        tool: str, *arguments: str, names: tuple[str, ...] = (), stdin: str | None = None, ordered: bool = True
    ) -> str:
        ours = kafka_tool(tool, "--bootstrap-server", bootstrap, *arguments, stdin=stdin)
        theirs = kafka_tool(tool, "--bootstrap-server", reference, *arguments, stdin=stdin)
        arrange: Callable[[list[str]], list[str]] = list if ordered else sorted  # type: ignore[assignment]
        if "--list" in arguments and tool in ("groups", "consumer-groups"):  # other tests leave groups behind
            arrange = lambda lines: [line for line in lines if line.startswith(("GROUP", "<name0>"))]  # noqa: E731
        assert arrange(normal(ours.stdout, *names)) == arrange(normal(theirs.stdout, *names)), ours.stderr
        assert ours.returncode == theirs.returncode, ours.stderr
        return ours.stdout

    return run


@pytest.fixture
def name() -> str:
    """A topic name nobody has used."""
    return f"tools{uuid.uuid4().hex[:8]}"


def test_topics(both: Callable[..., str], name: str) -> None:
    """create, describe, alter, list, delete."""
    both("topics", "--create", "--topic", name, "--partitions", "3", "--config", "retention.ms=3600000", names=(name,))
    assert "PartitionCount: 3" in both("topics", "--describe", "--topic", name, names=(name,))
    both("topics", "--create", "--topic", name, names=(name,))  # refused: it exists
    both("topics", "--alter", "--topic", name, "--partitions", "5", names=(name,))
    both("topics", "--describe", "--topic", name, names=(name,))
    both("topics", "--list", "--topic", name, names=(name,))
    both("topics", "--delete", "--topic", name, names=(name,))
    both("topics", "--describe", "--topic", name, names=(name,))  # refused: it is gone


def test_console_and_groups(both: Callable[..., str], name: str) -> None:
    """console-producer, console-consumer, get-offsets, consumer-groups."""
    lines = "".join(f"key{number}:line {number}\n" for number in range(50))
    both("topics", "--create", "--topic", name, "--partitions", "1", names=(name,))
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        options = ("--property", "parse.key=true", "--property", "key.separator=:", "--compression-codec", codec)
        both("console-producer", "--topic", name, *options, names=(name,), stdin=lines)
    options = (
        "--from-beginning",
        "--max-messages",
        "250",
        "--property",
        "print.key=true",
        "--property",
        "print.offset=true",
        "--group",
        name,
    )
    shown = both("console-consumer", "--topic", name, *options, names=(name,))
    assert "Offset:249\tkey49\tline 49" in shown
    both("get-offsets", "--topic", name, names=(name,))
    both("get-offsets", "--topic", name, "--time", "earliest", names=(name,))
    both("get-offsets", "--topic", name, "--time", "latest", names=(name,))
    both("consumer-groups", "--describe", "--group", name, names=(name,))
    both("consumer-groups", "--describe", "--group", name, "--state", names=(name,))
    reset = ("--reset-offsets", "--group", name, "--topic", name, "--to-offset", "10", "--execute")
    both("consumer-groups", *reset, names=(name,))
    both("consumer-groups", "--describe", "--group", name, names=(name,))
    both("consumer-groups", "--delete", "--group", name, names=(name,))
    both("consumer-groups", "--describe", "--group", name, names=(name,))  # refused: it is gone


def test_configs(both: Callable[..., str], name: str) -> None:
    """configs: alter, describe, delete, and a refused value."""
    both("topics", "--create", "--topic", name, names=(name,))
    entity = ("--entity-type", "topics", "--entity-name", name)
    both("configs", *entity, "--alter", "--add-config", "retention.ms=60000,max.message.bytes=2000000", names=(name,))
    both("configs", *entity, "--describe", names=(name,), ordered=False)
    both("configs", *entity, "--alter", "--delete-config", "retention.ms", names=(name,))
    both("configs", *entity, "--describe", names=(name,), ordered=False)
    both("configs", *entity, "--alter", "--add-config", "retention.ms=soon", names=(name,))


def test_vector_configs(kafka_tool: Tool, bootstrap: str, name: str) -> None:
    """`kafka-configs` switches vectors on, which `kafka-topics` cannot: it refuses keys it does not know before asking."""
    kafka_tool("topics", "--bootstrap-server", bootstrap, "--create", "--topic", name)
    entity = ("--bootstrap-server", bootstrap, "--entity-type", "topics", "--entity-name", name)
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


def test_verifiable_clients_and_deletion(both: Callable[..., str], name: str, tmp_path: Path) -> None:
    """verifiable-producer, delete-records, verifiable-consumer, consumer-groups."""
    both("topics", "--create", "--topic", name, "--partitions", "1", names=(name,))
    sent = both("verifiable-producer", "--topic", name, "--max-messages", "20", "--acks", "-1", names=(name,))
    assert '"sent":20,"acked":20' in sent
    target = {"topic": name, "partition": 0, "offset": 5}
    (tmp_path / "offsets.json").write_text(json.dumps({"partitions": [target], "version": 1}))
    both("delete-records", "--offset-json-file", str(tmp_path / "offsets.json"), names=(name,))
    group = ("--group-id", name, "--max-messages", "15", "--reset-policy", "earliest")
    read = both("verifiable-consumer", "--topic", name, *group, names=(name,))
    assert '"minOffset":5,"maxOffset":19' in read
    both("consumer-groups", "--describe", "--group", name, names=(name,))


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_performance_tools(kafka_tool: Tool, bootstrap: str, name: str, compression: str) -> None:
    """producer-perf-test sends every record, consumer-perf-test reads every one back."""
    kafka_tool("topics", "--bootstrap-server", bootstrap, "--create", "--topic", name, "--partitions", "3")
    properties = ("--producer-props", f"bootstrap.servers={bootstrap}", f"compression.type={compression}")
    size = ("--num-records", str(RECORDS), "--record-size", "200", "--throughput", "-1")
    sent = kafka_tool("producer-perf-test", "--topic", name, *size, *properties)
    assert f"{RECORDS} records sent" in sent.stdout, sent.stderr
    read = kafka_tool(
        "consumer-perf-test",
        "--bootstrap-server",
        bootstrap,
        "--topic",
        name,
        "--messages",
        str(RECORDS),
        "--timeout",
        "30000",
    )
    consumed = [line.split(",") for line in read.stdout.splitlines() if line[:2] == "20"]
    assert consumed, read.stderr
    assert int(float(consumed[-1][4])) == RECORDS


def test_consumer_protocol(both: Callable[..., str], name: str) -> None:
    """The consumer group protocol (KIP-848): console-consumer, verifiable-consumer, and what the group tools say of it."""
    lines = "".join(f"line {number}\n" for number in range(30))
    both("topics", "--create", "--topic", name, "--partitions", "1", names=(name,))
    both("console-producer", "--topic", name, names=(name,), stdin=lines)
    new = ("--consumer-property", "group.protocol=consumer")
    read = ("--from-beginning", "--max-messages", "30", "--group", name, *new)
    assert "line 29" in both("console-consumer", "--topic", name, *read, names=(name,))
    both("console-producer", "--topic", name, names=(name,), stdin=lines)
    verifiable = ("--group-id", name, "--group-protocol", "consumer", "--max-messages", "30")
    assert '"minOffset":30,"maxOffset":59' in both("verifiable-consumer", "--topic", name, *verifiable, names=(name,))
    group = ("--group", name)
    for options in ((), ("--verbose",), ("--state",), ("--state", "--verbose"), ("--members", "--verbose")):
        both("consumer-groups", "--describe", *group, *options, names=(name,))
    for options in (("--state",), ("--type", "consumer"), ("--state", "Empty"), ("--type", "classic")):
        both("consumer-groups", "--list", *options, names=(name,), ordered=False)
    for options in ((), ("--consumer",), ("--group-type", "consumer")):
        both("groups", "--list", *options, names=(name,), ordered=False)
    reset = ("--reset-offsets", *group, "--topic", name, "--to-earliest", "--execute")
    both("consumer-groups", *reset, names=(name,))
    both("consumer-groups", "--describe", *group, names=(name,))
    both("consumer-groups", "--delete-offsets", *group, "--topic", name, names=(name,))
    both("consumer-groups", "--delete", *group, names=(name,))
    both("consumer-groups", "--describe", *group, "--members", names=(name,))  # refused: it is gone
    entity = ("--entity-type", "groups", "--entity-name", name)
    both("configs", *entity, "--alter", "--add-config", "consumer.session.timeout.ms=50000", names=(name,))
    both("configs", *entity, "--describe", names=(name,), ordered=False)
    both("configs", *entity, "--alter", "--add-config", "consumer.session.timeout.ms=500", names=(name,))
