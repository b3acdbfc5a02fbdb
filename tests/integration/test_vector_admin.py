"""What people do with an index from the command line, over HTTP: see what failed, retry, pause, change the model, go back."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from senselog_client import SenselogClient

from tests.broker_process import ROOT, BrokerProcess


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path, "vector.embedding.model=hashing:32")
    process.start()
    admin = AdminClient({"bootstrap.servers": process.bootstrap})
    admin.create_topics([NewTopic("logs", 1, config={"vector.enabled": "true"})])["logs"].result()
    yield process
    process.end()


def senselog(broker: BrokerProcess, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "senselog", "vector", *arguments]
    environment = {**os.environ, "SENSELOG_HTTP": broker.http, "SENSELOG_BOOTSTRAP": broker.bootstrap, "COLUMNS": "160"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def produce(broker: BrokerProcess, *records: tuple[str, list[tuple[str, bytes]]]) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap})
    for value, headers in records:
        producer.produce("logs", value, headers=headers)
    assert producer.flush(30) == 0


def found(broker: BrokerProcess, text: str, **options: Any) -> Any:
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
        return client.search("logs", text, latest=True, max_wait_ms=20_000, timeout_ms=10_000, **options)


def test_an_index_is_administered_while_it_is_searched(broker: BrokerProcess) -> None:
    bad = ("record with a bad vector", [("senselog.vector", b"abc")])
    produce(broker, *[(f"disk {number} is full", []) for number in range(50)], bad)
    assert len(found(broker, "disk", limit=100)) == 50

    listed = json.loads(senselog(broker, "failures", "logs", "--json"))
    (failure,) = listed["failures"]
    assert (failure["offset"], failure["model"], listed["total"]) == (50, "hashing:32", 1)
    assert "3 bytes, expected 128" in failure["reason"]
    assert "3 bytes, expected 128" in senselog(broker, "failures", "logs")

    assert "generation 2 is searched: hashing:16" in senselog(
        broker, "reembed", "logs", "--model", "hashing:16", "--wait"
    )
    hits = found(broker, "disk", limit=100)
    assert (hits.model, hits.dimensions, hits.generation, len(hits)) == ("hashing:16", 16, 2, 50)

    assert "generation 1 is searched: hashing:32" in senselog(broker, "rollback", "logs", "--wait")
    assert found(broker, "disk").model == "hashing:32"

    assert "0 mended, 1 failed again" in senselog(broker, "retry", "logs", "--wait")
    assert found(broker, "disk", limit=100).generation == 3

    senselog(broker, "pause", "logs")
    broker.stop()
    broker.start()
    produce(broker, ("written while it is paused", []))
    assert "paused" in senselog(broker, "status", "logs")
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
        assert len(client.search("logs", "disk", limit=100, max_wait_ms=20_000, min_offsets={0: 51})) == 50
    senselog(broker, "resume", "logs")
    assert len(found(broker, "disk", limit=100)) == 51

    senselog(broker, "reembed", "logs", "--field", "{value}!", "--manual", "--wait")
    assert found(broker, "disk").generation == 3
    assert "generation 4 is searched" in senselog(broker, "cutover", "logs")


def test_what_cannot_be_done_is_said(broker: BrokerProcess) -> None:
    produce(broker, ("disk is full", []))
    found(broker, "disk")
    assert "there is no topic 'nowhere'" in senselog(broker, "pause", "nowhere", code=1)
    assert "no generation is being built" in senselog(broker, "cutover", "logs", code=1)
    assert "no previous generation" in senselog(broker, "rollback", "logs", code=1)
    assert "vector.embedding.model" in senselog(broker, "reembed", "logs", "--model", "nonsense", code=1)
    assert "no record has failed" in senselog(broker, "failures", "logs")
    assert "no record has failed" in senselog(broker, "retry", "logs")
    assert "no broker answers" in senselog(broker, "pause", "logs", "--http", "127.0.0.1:9", code=1)
