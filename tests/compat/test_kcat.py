"""kcat (librdkafka 2.0.2, whose feature probe is the oldest we meet): codecs, keys, offsets by time, a group of two."""

import itertools
import json
import shutil
import subprocess
import time
import uuid

import pytest

from tests.compat.clients import CLIENTS

LINES = [f"line {number} of the log" for number in range(500)]


@pytest.fixture(autouse=True)
def _kcat() -> None:
    if shutil.which("kcat") is None:
        pytest.skip("no kcat (scripts/compat.sh installs it)")


def kcat(bootstrap: str, *arguments: str, stdin: str | None = None) -> str:
    """Runs kcat to its end and returns what it printed."""
    done = subprocess.run(
        ["kcat", "-b", bootstrap, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "does not support" not in done.stderr
    return done.stdout


@pytest.fixture
def topic(bootstrap: str) -> str:
    """A new topic of one partition."""
    name = f"kcat-{uuid.uuid4().hex[:8]}"
    CLIENTS[0].create(bootstrap, name, 1)
    return name


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("idempotent", ["true", "false"])
def test_codec(bootstrap: str, topic: str, codec: str, idempotent: str) -> None:
    """Lines produced with each codec come back in order, at consecutive offsets."""
    kcat(
        bootstrap,
        "-P",
        "-t",
        topic,
        "-z",
        codec,
        "-X",
        f"enable.idempotence={idempotent}",
        stdin="\n".join(LINES) + "\n",
    )
    shown = kcat(bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%o %s\n").splitlines()
    assert shown == [f"{offset} {line}" for offset, line in enumerate(LINES)]


def test_from_an_offset_a_tail_and_a_time(bootstrap: str, topic: str) -> None:
    """Reading may start at an offset, some records before the end, or at a time."""
    kcat(bootstrap, "-P", "-t", topic, stdin="a\nb\nc\n")
    time.sleep(0.05)
    since_ms = int(time.time() * 1000)
    kcat(bootstrap, "-P", "-t", topic, stdin="d\ne\n")
    read = lambda start: kcat(bootstrap, "-C", "-t", topic, "-o", start, "-e", "-q").split()  # noqa: E731
    assert read("1") == ["b", "c", "d", "e"]
    assert read("-2") == ["d", "e"]
    assert read(f"s@{since_ms}") == ["d", "e"]


def test_metadata(bootstrap: str, topic: str) -> None:
    """The metadata listing names the topic, one broker and its leader."""
    listed = json.loads(kcat(bootstrap, "-L", "-J", "-t", topic))
    assert [entry["topic"] for entry in listed["topics"]] == [topic]
    assert listed["topics"][0]["partitions"][0]["leader"] == listed["brokers"][0]["id"]


def test_group_of_two(bootstrap: str) -> None:
    """Two balanced consumers read every record once between them."""
    topic, group = f"kcat-{uuid.uuid4().hex[:8]}", f"kcat-{uuid.uuid4().hex[:8]}"
    CLIENTS[0].create(bootstrap, topic, 4)
    command = [
        "kcat",
        "-b",
        bootstrap,
        "-u",
        "-q",
        "-f",
        "%p %o\n",
        "-X",
        "auto.offset.reset=earliest",
        "-G",
        group,
        topic,
    ]
    members = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(2)
    ]
    try:
        for partition in range(4):
            kcat(bootstrap, "-P", "-t", topic, "-p", str(partition), stdin="\n".join(LINES[:50]) + "\n")
        time.sleep(8)  # kcat cannot say that it has read all there is as a group member
    finally:
        for member in members:
            member.terminate()
    shown = [tuple(map(int, line.split())) for member in members for line in member.communicate()[0].splitlines()]
    assert set(shown) == set(itertools.product(range(4), range(50)))
