"""The command line against a running broker: what a person does on the first day."""

import json
import subprocess
import sys

import pytest

from tests.broker_process import ROOT, BrokerProcess

TIMEOUT_S = 60


@pytest.fixture
def senselog(broker: BrokerProcess):
    def run(*arguments: str, stdin: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "senselog", *arguments, "--bootstrap", broker.bootstrap]
        done = subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, timeout=TIMEOUT_S)
        assert done.returncode == code, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        return done

    return run


def test_a_topic_from_creation_to_deletion(senselog) -> None:
    senselog("topic", "create", "life", "--partitions", "2", "--config", "retention.ms=100000")
    assert b"exists already" in senselog("topic", "create", "life", "--if-not-exists").stdout
    assert b"cannot create life: " in senselog("topic", "create", "life", code=1).stderr
    listed = json.loads(senselog("topic", "list", "--json").stdout)
    assert {"name": "life", "partitions": 2, "vector_enabled": False, "embedding_model": None} in listed
    senselog(
        "topic", "alter", "life", "--partitions", "3", "--config", "max.message.bytes=2000", "--reset", "retention.ms"
    )
    described = json.loads(senselog("topic", "describe", "life", "--json").stdout)
    assert described["configs"] == {"max.message.bytes": "2000"}
    assert [partition["end_offset"] for partition in described["partitions"]] == [0, 0, 0]
    senselog("topic", "delete", "life")
    assert b"cannot describe life: " in senselog("topic", "describe", "life", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--config", "retention.ms=soon"], b"retention.ms"),
        (["--config", "retention.moon=1"], b"retention.moon"),
        (["--vector-search", "--embedding-model", "wrong"], b"vector.embedding.model"),
    ],
)
def test_a_refused_config_is_named(senselog, arguments: list[str], reason: bytes) -> None:
    error = senselog("topic", "create", "refused", *arguments, code=1).stderr
    assert error.count(b"\n") == 1
    assert reason in error


def test_the_seeds_command_is_stored_as_configs(senselog) -> None:
    line = "topic create seed --partitions 3 --vector-search --embedding-model openai:text-embedding-3-small --vector-field value"
    senselog(*line.split())
    described = json.loads(senselog("topic", "describe", "seed", "--json").stdout)
    assert described["configs"] == {
        "vector.enabled": "true",
        "vector.embedding.model": "openai:text-embedding-3-small",
        "vector.field": "value",
    }
    senselog("topic", "delete", "seed")


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_lines_come_back_byte_for_byte(senselog, codec: str) -> None:
    topic = f"lines-{codec}"
    lines = [b"line %d \xff\xc3\xa9" % number for number in range(500)]
    senselog("topic", "create", topic)
    senselog("produce", topic, "--compression", codec, stdin=b"\n".join(lines))
    assert senselog("consume", topic).stdout.splitlines() == lines
    assert senselog("consume", topic, "--from", "498").stdout.splitlines() == lines[498:]
    assert senselog("consume", topic, "-n", "2", "--offsets").stdout.splitlines() == [
        b"0@0\t\t" + lines[0],
        b"0@1\t\t" + lines[1],
    ]


def test_keys_partitions_and_json(senselog) -> None:
    senselog("topic", "create", "keyed", "--partitions", "2")
    senselog("produce", "keyed", "--key-separator", "tab", "--partition", "1", stdin=b"alice\thello\nbob\t\n")
    records = [json.loads(line) for line in senselog("consume", "keyed", "-p", "1", "--json").stdout.splitlines()]
    assert [(record["offset"], record["key"], record["value"]) for record in records] == [
        (0, "alice", "hello"),
        (1, "bob", ""),
    ]
    assert senselog("consume", "keyed", "--partition", "0").stdout == b""


def test_a_search_finds_what_was_just_produced(senselog) -> None:
    senselog("topic", "create", "found", "--vector-search", "--embedding-model", "hashing:64", "--partitions", "2")
    senselog("produce", "found", stdin=b"the disk is full\nuser logged in\nthe disk is slow\n")
    answer = json.loads(senselog("search", "found", "disk is full", "-k", "2", "--latest", "--json").stdout)
    assert answer["results"][0]["value"] == "the disk is full"
    assert answer["freshness"]["complete"] is True
    assert answer["freshness"]["lag"] == 0
    table = senselog("search", "found", "disk is full", "--latest").stdout.decode()
    assert "the disk is full" in table
    assert "all 3 records searchable" in table
    status = json.loads(senselog("vector", "status", "found", "--json").stdout)
    assert sum(partition["indexed_offset"] for partition in status["partitions"]) == 3
    assert "up to date" in senselog("vector", "status", "found").stdout.decode()


def test_a_search_says_what_stands_in_its_way(senselog) -> None:
    senselog("topic", "create", "plain")
    assert b"plain" in senselog("search", "plain", "anything", code=1).stderr
    assert b"nowhere" in senselog("search", "nowhere", "anything", code=1).stderr
    assert b"nowhere" in senselog("vector", "status", "nowhere", code=1).stderr
