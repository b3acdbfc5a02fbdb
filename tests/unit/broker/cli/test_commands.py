"""The command line without a broker: usage, exit codes, one-line errors."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from senselog_client.messages import VectorSearchResponse
from senselog_client.result import parse_status
from typer.testing import CliRunner

from broker.cli import app, connect, main
from broker.cli.failure import Failure, describe
from broker.cli.options import key_values, timestamp_ms
from broker.cli.tables import console
from broker.config import ConfigError
from protocol.errors import ErrorCode, KafkaError

runner = CliRunner()
COMMANDS = (
    ["serve"],
    ["topic", "create"],
    ["topic", "list"],
    ["topic", "describe"],
    ["topic", "alter"],
    ["topic", "delete"],
    ["produce"],
    ["consume"],
    ["search"],
    ["vector", "status"],
    ["user", "set"],
    ["user", "list"],
    ["user", "delete"],
    ["models", "list"],
    ["models", "export"],
    ["check"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: list[str]) -> None:
    result = runner.invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from broker.cli import app; "
        "heavy = {'kafka', 'numpy', 'faiss', 'fastapi', 'pydantic', 'onnxruntime', 'uvloop', 'rich.console'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["topic", "create"],
        ["topic", "create", "t", "--partitions", "0"],
        ["topic", "create", "t", "--vector-field", "value"],
        ["topic", "create", "t", "--config", "no-equals"],
        ["topic", "alter", "t"],
        ["search", "t"],
        ["search", "t", "q", "-k", "0"],
        ["search", "t", "q", "--since", "yesterday"],
        ["consume", "t", "--from", "middle"],
        ["serve", "--listen", "nowhere"],
        ["no-such-command"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert runner.invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["topic", "list", "--bootstrap", "127.0.0.1:1"], "no broker answers at 127.0.0.1:1: Connection refused"),
        (["topic", "list", "--bootstrap", "127.0.0.1:port"], "--bootstrap: '127.0.0.1:port' is not HOST:PORT"),
        (["check", "/no/such/directory"], "there is no directory /no/such/directory"),
        (["serve", "--set", "storage.synk=os"], "unknown configuration key 'storage.synk'"),
        (["serve", "--config", "/no/such.toml"], "/no/such.toml"),
    ],
)
def test_a_failure_is_one_line_and_exit_code_1(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["senselog", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    assert stopped.value.code == 1
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_errors_are_described_by_what_they_name() -> None:
    assert describe(Failure("no topic x")) == "no topic x"
    assert describe(ConfigError("bad key")) == "bad key"
    assert describe(KafkaError(ErrorCode.INVALID_CONFIG, "vector.field: bad")) == "vector.field: bad"
    assert describe(FileNotFoundError(2, "No such file or directory", "data")) == "data: No such file or directory"
    assert describe(ValueError("odd\nthing")).startswith("ValueError: odd thing")


def test_key_values_and_times() -> None:
    assert key_values(["a=1", "b=x=y"], "--config") == {"a": "1", "b": "x=y"}
    assert timestamp_ms("2026-01-31T12:00:00Z", "--since") == timestamp_ms("2026-01-31T12:00:00", "--since")
    assert timestamp_ms("1769860800000", "--since") == 1769860800000
    assert timestamp_ms("2026-01-31T12:00:00+01:00", "--since") == 1769857200000


class FakeAdmin:
    """KafkaAdminClient's answers, and what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **_: Any) -> Any:
            self.asked.append((name, arguments))
            return self.answers[name]

        return call


@pytest.fixture
def fake_admin(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(**answers: Any) -> FakeAdmin:
        fake = FakeAdmin(**answers)

        @contextlib.contextmanager
        def admin(_: str) -> Iterator[FakeAdmin]:
            yield fake

        monkeypatch.setattr(connect, "admin", admin)
        return fake

    return install


def test_the_seeds_create_command(fake_admin: Any) -> None:
    fake = fake_admin(create_topics={"topics": [{"name": "logs", "error_code": 0, "num_partitions": 3}]})
    line = "topic create logs --partitions 3 --vector-search --embedding-model openai:text-embedding-3-small --vector-field value"
    result = runner.invoke(app, line.split())
    assert result.exit_code == 0, result.output
    assert "created topic logs with 3 partitions, searchable by meaning" in result.output
    ((_, (wanted,)),) = fake.asked
    assert wanted == {
        "logs": {
            "num_partitions": 3,
            "replication_factor": -1,
            "configs": {
                "vector.enabled": "true",
                "vector.embedding.model": "openai:text-embedding-3-small",
                "vector.field": "value",
            },
        }
    }


def test_a_refused_topic_is_named_with_the_brokers_reason(fake_admin: Any) -> None:
    fake_admin(create_topics={"topics": [{"name": "logs", "error_code": 40, "error_message": "vector.feld: unknown"}]})
    result = runner.invoke(app, ["topic", "create", "logs", "--config", "vector.feld=x"])
    assert isinstance(result.exception, Failure)
    assert str(result.exception) == "cannot create logs: vector.feld: unknown"


def test_if_not_exists_tolerates_only_that(fake_admin: Any) -> None:
    answer = {"topics": [{"name": "logs", "error_code": 36, "error_message": "exists"}]}
    fake_admin(create_topics=answer)
    assert runner.invoke(app, ["topic", "create", "logs", "--if-not-exists"]).exit_code == 0
    assert runner.invoke(app, ["topic", "create", "logs"]).exit_code == 1


def test_delete_reports_each_topic(fake_admin: Any) -> None:
    fake_admin(delete_topics={"topics": [{"name": "a", "error_code": 0}, {"name": "b", "error_code": 3}]})
    result = runner.invoke(app, ["topic", "delete", "a", "b"])
    assert "deleted topic a" in result.output
    assert str(result.exception).startswith("cannot delete b: ")


class FakeConsumer:
    """Two partitions; the last record of the first arrives after the command started."""

    def __init__(self) -> None:
        self.at: dict[Any, int] = {}
        self.ends: dict[Any, int] = {}
        self.sent = False

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {0, 1} if topic == "logs" else None

    def assign(self, partitions: list[Any]) -> None:
        self.ends = dict.fromkeys(partitions, 2)

    def seek_to_beginning(self, *partitions: Any) -> None:
        self.at = dict.fromkeys(partitions, 0)

    def end_offsets(self, _: Any) -> dict[Any, int]:
        return self.ends

    def position(self, partition: Any) -> int:
        return self.at[partition]

    def poll(self, timeout_ms: int) -> dict[Any, list[Any]]:
        found = {}
        for partition in self.at:
            count = 3 if partition.partition == 0 else 2
            found[partition] = [_record(partition.partition, offset) for offset in range(self.at[partition], count)]
            self.at[partition] = count
        return found


def _record(partition: int, offset: int) -> Any:
    value = b"\xff" if (partition, offset) == (1, 1) else f"line {partition}{offset}".encode()
    return SimpleNamespace(
        partition=partition, offset=offset, timestamp=7, key=None, value=value, headers=[("h", b"v")]
    )


@pytest.fixture
def fake_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def consumer(_: str, **__: Any) -> Iterator[FakeConsumer]:
        yield FakeConsumer()

    monkeypatch.setattr(connect, "consumer", consumer)


def test_consume_stops_at_the_end_it_found(fake_consumer: None) -> None:
    result = runner.invoke(app, ["consume", "logs"])
    assert result.exit_code == 0, result.output
    assert sorted(result.stdout_bytes.splitlines()) == [b"line 00", b"line 01", b"line 10", b"\xff"]


def test_consume_counts_and_shows_offsets(fake_consumer: None) -> None:
    result = runner.invoke(app, ["consume", "logs", "-n", "1", "--offsets"])
    assert result.stdout_bytes == b"0@0\t\tline 00\n"


def test_consume_as_json_keeps_bytes_that_are_no_text(fake_consumer: None) -> None:
    result = runner.invoke(app, ["consume", "logs", "--json"])
    last = json.loads(result.stdout.splitlines()[-1])
    assert last == {
        "partition": 1,
        "offset": 1,
        "timestamp": 7,
        "key": None,
        "value_base64": "/w==",
        "headers": [{"name": "h", "value": "v"}],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["consume", "nope"], "there is no topic nope"),
        (["consume", "logs", "-p", "5"], "topic logs has no partition 5: it has 2"),
    ],
)
def test_consume_names_what_is_missing(fake_consumer: None, arguments: list[str], message: str) -> None:
    assert str(runner.invoke(app, arguments).exception) == message


@pytest.mark.parametrize(
    ("indexed_offset", "complete", "trouble", "shown"),
    [
        (5, True, None, "up to date"),
        (3, True, None, "2 records to go"),
        (4, True, None, "1 record to go"),
        (5, True, "paused: no such model: install [it]", "paused: no such model: install [it]"),
        (-1, False, "loading: vector worker starting", "loading: vector worker starting"),
        (-1, False, None, "5 records to go"),
    ],
)
@pytest.mark.parametrize("end", [5, 0])
def test_an_index_that_cannot_follow_is_not_called_up_to_date(
    monkeypatch: pytest.MonkeyPatch, end: int, indexed_offset: int, complete: bool, trouble: str | None, shown: str
) -> None:
    partition = VectorSearchResponse.PartitionState(
        partition=0, last_stable_offset=end, high_watermark=end, indexed_offset=min(indexed_offset, end)
    )
    response = VectorSearchResponse(
        version=0, model="m", complete=complete, error_message=trouble, partition_states=[partition]
    )

    @contextlib.contextmanager
    def searcher(_: str) -> Iterator[Any]:
        yield SimpleNamespace(status=lambda _: parse_status(response))

    monkeypatch.setattr(connect, "searcher", searcher)
    result = runner.invoke(app, ["vector", "status", "logs"])
    assert result.exit_code == 0, result.output
    if end or trouble:
        assert shown in result.output
    well = complete and trouble is None and indexed_offset >= end
    assert ("not up to date" not in result.output and "up to date" in result.output) is well
    told = json.loads(runner.invoke(app, ["vector", "status", "logs", "--json"]).output)
    assert (told["trouble"], told["complete"]) == (trouble, complete)


@pytest.mark.parametrize(("columns", "width"), [("80", 80), (None, 160)])
def test_a_table_in_a_pipe_is_as_wide_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, columns: str | None, width: int
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert console().width == width
