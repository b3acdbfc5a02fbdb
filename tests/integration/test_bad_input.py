"""Bad input, as issue and design list it: the error of the design, one line in the log, and nothing for anybody else.

What single bytes and codes must look like is in test_wire.py and test_search_doors.py; here each kind is held against the
broker's log and a bystander's connection.
"""

import math
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from protocol.messages import MetadataRequest, VectorSearchRequest
from tests.broker_process import ROOT, BrokerProcess
from tests.integration.raw import RawConnection, batch, fetch_request, frame
from tests.integration.test_wire import damaged, header

VECTORS, PLAIN, DIMENSIONS = "vectors", "plain", 8
LOG_DEADLINE_S = 5
EXIT_FAILED = 1


@pytest.fixture(scope="module")
def topics(broker: BrokerProcess) -> None:
    with RawConnection(broker.bootstrap) as connection:
        connection.create_topic(PLAIN)
        connection.create_topic(VECTORS, vector_enabled="true", vector_embedding_model=f"hashing:{DIMENSIONS}")
        connection.produce(VECTORS, batch(b"one line"))
        deadline = time.monotonic() + 30
        while connection.call(100, 0, search(VECTORS, "one")).error_code:
            assert time.monotonic() < deadline, "the vector worker does not come up"
            time.sleep(0.05)


@pytest.fixture
def bystander(broker: BrokerProcess, topics: None) -> Iterator[RawConnection]:
    """A connection with a poll under way, which must be answered after the bad input as if there had been none."""
    with RawConnection(broker.bootstrap) as connection:
        end = connection.fetch(PLAIN, 0).high_watermark
        connection.push(connection.request(1, 12, fetch_request(PLAIN, end, max_wait_ms=15_000)))
        yield connection
        with RawConnection(broker.bootstrap) as other:
            assert other.produce(PLAIN, batch(b"still here")).base_offset == end
        assert connection.receive()[1].responses[0].partitions[0].high_watermark == end + 1
        assert connection.call(3, 9, MetadataRequest(topics=[])).brokers


@pytest.fixture
def one_line(broker: BrokerProcess, bystander: RawConnection) -> Iterator[Callable[[str], None]]:
    """Checks that the test adds one line to the log, which holds the given text."""
    wanted: list[str] = []
    before = len(broker.log())
    yield wanted.append
    deadline = time.monotonic() + LOG_DEADLINE_S
    while not (lines := broker.log()[before:].splitlines()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(lines) == 1, lines
    assert wanted[0] in lines[0]


def search(topic: str, text: str | None = None, vector: bytes | None = None, **fields: Any) -> VectorSearchRequest:
    return VectorSearchRequest(
        topic_name=topic,
        queries=[VectorSearchRequest.Query(text=text, vector=vector)],
        **{"timeout_ms": 5000, **fields},
    )


RANDOM = random.Random(3).randbytes


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (frame(header(999, 0)), "unknown API key 999"),
        (frame(header(-7, 0)), "unknown API key -7"),
        (frame(header(3, 99, flexible=True)), "unsupported METADATA v99"),
        (frame(header(0, 2)), "unsupported PRODUCE v2"),
        (frame(header(100, 1, flexible=True)), "unsupported VECTOR_SEARCH v1"),
        (struct.pack(">i", 2**31 - 1) + RANDOM(1000), "frame of 2147483647 bytes"),
        (struct.pack(">i", -5), "frame of -5 bytes"),
        (frame(b"\0\3\0"), "malformed request"),
        (frame(header(3, 9, flexible=True) + b"\x05\x10log"), "malformed request"),
        (frame(header(0, 9, flexible=True) + RANDOM(300)), "malformed request"),
        (frame(header(1, 12, flexible=True) + RANDOM(300)), "malformed request"),
        (frame(header(19, 5, flexible=True) + RANDOM(300)), "malformed request"),
        (frame(header(100, 0, flexible=True) + RANDOM(300)), "malformed request"),
        (RANDOM(5000), "connection closed"),
        (b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n", "frame of 1195725856 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bytes_that_are_no_request(
    broker: BrokerProcess, one_line: Callable[[str], None], data: bytes, line: str
) -> None:
    one_line(line)
    with RawConnection(broker.bootstrap) as bad:
        bad.push(data)
        assert bad.receive_frame() is None


def test_a_frame_of_2_gb_reserves_no_memory(broker: BrokerProcess, bystander: RawConnection) -> None:
    import psutil

    assert broker.process is not None
    process = psutil.Process(broker.process.pid)
    before = process.memory_info().rss
    with RawConnection(broker.bootstrap) as bad:
        bad.push(struct.pack(">i", 2**31 - 1))
        assert bad.receive_frame() is None
    with RawConnection(broker.bootstrap) as large:  # the largest legal one, of which nothing comes
        large.push(struct.pack(">i", 100 * 2**20) + header(0, 9))
        assert bystander.socket.fileno() > 0
        assert process.memory_info().rss - before < 20 * 2**20


def test_a_frame_that_ends_early_waits_for_nobody(broker: BrokerProcess, bystander: RawConnection) -> None:
    before = broker.log()
    for cut in range(1, 12):
        with RawConnection(broker.bootstrap) as bad:
            bad.push(frame(header(18, 0))[:cut])
            bad.socket.shutdown(socket.SHUT_WR)
            assert bad.receive_frame() is None
    assert broker.log() == before, "a client that goes away is nothing to report"


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ({"crc": 1}, 2),
        ({"batch_length": -1}, 2),
        ({"batch_length": 10_000}, 87),
        ({"record_count": 7}, 87),
        ({"magic": 9}, 2),
    ],
    ids=str,
)
def test_damaged_batches(
    broker: BrokerProcess, one_line: Callable[[str], None], damage: dict[str, int], code: int
) -> None:
    one_line("batch refused")
    with RawConnection(broker.bootstrap) as connection:
        before = connection.fetch(PLAIN, 0).high_watermark
        assert connection.produce(PLAIN, damaged(batch(b"a", b"b"), **damage)).error_code == code
        assert connection.fetch(PLAIN, 0).high_watermark == before


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        (search(VECTORS, vector=floats(1, 2, 3)), 42, "3"),
        (search(VECTORS, vector=floats(*[math.nan] * DIMENSIONS)), 42, "vector"),
        (search(VECTORS, vector=b"\0" * (4 * DIMENSIONS + 1)), 42, "vector"),
        (search("nowhere", "anything"), 3, "nowhere"),
        (search(PLAIN, "anything"), 40, PLAIN),
        (search(VECTORS, "anything", mode=9), 42, "mode"),
        (search(VECTORS, "anything", limit=100_000), 44, "limit"),
        (search(VECTORS, "anything", filter='{"nonsense": 1}'), 42, "nonsense"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_searches_over_kafka(
    broker: BrokerProcess, one_line: Callable[[str], None], request_: VectorSearchRequest, code: int, says: str
) -> None:
    one_line("search refused")
    with RawConnection(broker.bootstrap) as connection:
        answer = connection.call(100, 0, request_)
        assert answer.error_code == code, answer
        assert says in answer.error_message
        assert not connection.call(100, 0, search(VECTORS, "one line")).error_code


@pytest.mark.parametrize(
    ("topic", "body", "status", "says"),
    [
        (VECTORS, '{"query": "x", "nonsense": 1}', 400, "nonsense"),
        (VECTORS, '{"query": "x", "filter": {"nonsense": 1}}', 400, "nonsense"),
        (VECTORS, '{"query": {"vector": [1, 2, 3]}}', 422, "3"),
        (VECTORS, '{"query": {"vector": [NaN, 1, 1, 1, 1, 1, 1, 1]}}', 422, "vector"),
        (VECTORS, '{"query": ', 400, "JSON"),
        (VECTORS, '{"query": "x", "k": 100000}', 400, "limit"),
        ("nowhere", '{"query": "x"}', 404, "nowhere"),
        (PLAIN, '{"query": "x"}', 409, PLAIN),
    ],
)
def test_searches_over_rest(
    broker: BrokerProcess, one_line: Callable[[str], None], topic: str, body: str, status: int, says: str
) -> None:
    one_line("request refused")
    url = f"http://{broker.http}/v1/topics/{topic}/search"
    answer = httpx.post(url, content=body, headers={"Content-Type": "application/json"}, timeout=30)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]["message"]


def test_a_second_broker_on_the_same_data_says_who_has_it(broker: BrokerProcess, bystander: RawConnection) -> None:
    assert broker.process is not None
    addresses = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
    command = [sys.executable, "-m", "senselog", "serve", "--data-dir", str(broker.data_directory), *addresses]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == EXIT_FAILED
    assert str(broker.process.pid) in second.stderr
    assert "Traceback" not in second.stderr
    assert "ready" not in second.stdout


def test_a_data_directory_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a directory")
    command = [sys.executable, "-m", "senselog", "serve", "--data-dir", str(file), "--listen", "127.0.0.1:0"]
    failed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert failed.returncode == EXIT_FAILED
    assert str(file) in failed.stderr
    assert "Traceback" not in failed.stderr
