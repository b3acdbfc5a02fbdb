"""A vector worker on another machine: joins over TLS, gets what was sealed from the object store, shares no disk with the broker."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import cable
from tests.broker_process import ROOT, BrokerProcess, free_port
from tests.cable import Cable
from tests.integration.secure import Certificates
from tests.s3_server import BUCKET, FaultyS3, faulty_s3

__all__ = ["faulty_s3"]

URL = f"s3://{BUCKET}/indexes"
RECORDS = 13_000
SEALED = 10_000
MODEL = "vector.embedding.model=hashing:32"


class WorkerProcess:
    """`senselog worker` with a folder of its own."""

    def __init__(self, directory: Path, certificates: Certificates, port: int) -> None:
        self.directory = directory / "elsewhere"
        self.certificates = certificates
        self.port = port
        self.log = directory / "worker.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.host = "localhost"
        self.cable: Cable | None = None

    def start(self) -> "WorkerProcess":
        command = [sys.executable, "-m", "senselog", "worker", "--broker", f"{self.host}:{self.port}"]
        command += ["--data-dir", str(self.directory), "--keystore", str(self.certificates.user)]
        command += ["--truststore", str(self.certificates.authority)]
        if self.cable is not None:
            command = self.cable.command(command)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=log)
        return self

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    (tmp_path / "certificates").mkdir()
    return Certificates.make(tmp_path / "certificates", "worker")


@pytest.fixture
def worker(tmp_path: Path, certificates: Certificates) -> Iterator[WorkerProcess]:
    process = WorkerProcess(tmp_path, certificates, free_port())
    yield process
    if process.process is not None and process.process.poll() is None:
        process.end()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path, MODEL)
    yield process
    process.end()


def places(worker: WorkerProcess, here: int, elsewhere: int) -> tuple[str, ...]:
    """Settings of a broker with so many workers."""
    return (
        f"vector.workers={here}",
        f"vector.remote.workers={elsewhere}",
        f"vector.worker.listen={'127.0.0.1' if worker.cable is None else worker.host}:{worker.port}",
        f"vector.worker.ssl.keystore.location={worker.certificates.broker}",
        f"vector.worker.ssl.truststore.location={worker.certificates.authority}",
    )


def create(broker: BrokerProcess, partitions: int) -> None:
    body = {"name": "logs", "partitions": partitions, "configs": {"vector.enabled": True}}
    httpx.post(f"http://{broker.http}/v1/topics", json=body, timeout=30).raise_for_status()


def produce(broker: BrokerProcess, first: int, count: int, partitions: int = 1) -> None:
    for start in range(first, first + count, 5000):
        numbers = range(start, min(start + 5000, first + count))
        records = [{"value": f"line {n} of {n % 97}", "partition": n % partitions} for n in numbers]
        url = f"http://{broker.http}/v1/topics/logs/records"
        httpx.post(url, json={"records": records}, timeout=60).raise_for_status()


def search(broker: BrokerProcess, **fields: Any) -> Any:
    """The answer; None while it is not all there."""
    body = {"query": "line 77 of 12", "consistency": {"level": "latest", "wait_ms": 60_000}, **fields}
    answer = httpx.post(f"http://{broker.http}/v1/topics/logs/search", json=body, timeout=90)
    return answer.json() if answer.status_code == 200 else None


def hits(answer: Any) -> list[tuple[int, int, float]]:
    return [(hit["partition"], hit["offset"], round(hit["score"], 4)) for hit in answer["results"]]


def status(broker: BrokerProcess) -> Any:
    return httpx.get(f"http://{broker.http}/v1/topics/logs/vector", timeout=30).json()


def until(look: Callable[[], Any]) -> Any:
    """What it finds, once it finds something."""
    deadline = time.monotonic() + 90
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_an_index_moves_to_another_machine_without_being_embedded_again(
    faulty_s3: FaultyS3, broker: BrokerProcess, worker: WorkerProcess
) -> None:
    """Sealed segments come from the store, the rest from the log; the worker is killed, and the broker, and both go on."""
    store = f"storage.objects.url={URL}"
    broker.settings = (MODEL, store)
    broker.start()
    create(broker, 1)
    produce(broker, 0, RECORDS)
    before = hits(until(lambda: search(broker)))
    until(lambda: status(broker)["objects"]["bytes_put"])
    broker.stop()
    broker.settings = (MODEL, store, *places(worker, 0, 1))
    broker.start()
    assert broker.children() == []
    answer = httpx.post(f"http://{broker.http}/v1/topics/logs/search", json={"query": "line"}, timeout=30)
    assert (answer.status_code, "vector worker waiting" in answer.text) == (503, True)
    worker.start()
    assert hits(until(lambda: search(broker))) == before
    told = status(broker)
    assert told["state"] == "green"
    assert 0 < told["embedder"]["texts_embedded"] <= RECORDS - SEALED
    assert told["partitions"][0]["segments"][0]["kind"] == "sealed"
    assert list(worker.directory.glob("vector/*/1/0/*.vec"))
    worker.end(signal.SIGKILL)
    produce(broker, RECORDS, 10)
    worker.start()
    whole = hits(until(lambda: search(broker)))
    assert status(broker)["partitions"][0]["indexed"] == RECORDS + 10
    assert status(broker)["embedder"]["texts_embedded"] < 5000
    broker.kill()
    broker.start()
    assert hits(until(lambda: search(broker))) == whole
    assert status(broker)["embedder"]["texts_embedded"] == 0
    assert worker.end() == 0


def test_a_worker_here_and_one_elsewhere_answer_together(broker: BrokerProcess, worker: WorkerProcess) -> None:
    """Each indexes its own partitions; the one that leads is here, a change of the model reaches both."""
    broker.start()
    create(broker, 4)
    produce(broker, 0, 400, 4)
    before = hits(until(lambda: search(broker, k=50)))
    broker.stop()
    broker.settings = (MODEL, *places(worker, 1, 1))
    broker.start()
    worker.start()
    assert hits(until(lambda: search(broker, k=50))) == before
    told = status(broker)
    assert sorted(one["worker"] for one in told["partitions"]) == [0, 0, 1, 1]
    theirs = {str(one["partition"]) for one in told["partitions"] if one["worker"] == 1}
    assert {path.name for path in worker.directory.glob("vector/*/1/?")} == theirs
    assert not theirs & {path.name for path in broker.data_directory.glob("vector/*/1/?")}, (
        "nobody follows the log there"
    )
    url = f"http://{broker.http}/v1/topics/logs/vector/reembed"
    httpx.post(url, json={"model": "hashing:16"}, timeout=60).raise_for_status()
    until(lambda: status(broker)["generation"] == 2)
    assert len(until(lambda: search(broker, k=1000))["results"]) == 400
    worker.end(signal.SIGKILL)
    part = until(lambda: search(broker, k=1000, consistency={"level": "eventual", "on_timeout": "partial"}))
    assert (part["freshness"]["complete"], len(part["results"])) == (False, 200)
    httpx.delete(f"http://{broker.http}/v1/topics/logs", timeout=30).raise_for_status()
    create(broker, 1)
    worker.start()
    until(lambda: len(list(worker.directory.glob("vector/*"))) <= 1)


@pytest.fixture
def pulled(worker: WorkerProcess) -> Iterator[Cable]:
    """What connects the worker's machine with this one."""
    worker.cable = Cable()
    worker.host = cable.HERE
    yield worker.cable
    if worker.process is not None and worker.process.poll() is None:
        worker.end()
    worker.cable.remove()


@pytest.mark.slow
@pytest.mark.skipif(bool(cable.MISSING), reason=cable.MISSING)
def test_both_ends_notice_a_cable_that_is_pulled_out_and_go_on_when_it_is_back(
    broker: BrokerProcess, worker: WorkerProcess, pulled: Cable
) -> None:
    """No end is told, as no loopback test can show: the broker by its pings, the worker by the kernel, which gets no acknowledgement."""
    broker.settings = (MODEL, *places(worker, 1, 1))
    broker.start()
    worker.start()
    create(broker, 2)
    produce(broker, 0, 400, 2)
    first = {"max_offset": 199}
    before = hits(until(lambda: search(broker, k=50, filter=first)))
    here = next(one["partition"] for one in status(broker)["partitions"] if one["worker"] == 0)
    pulled.pull_out()
    produce(broker, 400, 2, 2)
    until(lambda: "vector worker left" in broker.log())
    part = until(lambda: search(broker, k=1000, consistency={"level": "eventual", "on_timeout": "partial"}))
    assert (part["freshness"]["complete"], {hit["partition"] for hit in part["results"]}) == (False, {here})
    until(lambda: "has gone" in worker.log.read_text())
    pulled.plug_in()
    assert hits(until(lambda: search(broker, k=50, filter=first))) == before
    assert [one["indexed"] for one in status(broker)["partitions"]] == [201, 201]
    assert status(broker)["embedder"]["texts_embedded"] <= 402
    assert worker.end() == 0


def test_who_has_no_certificate_of_the_workers_authority_is_refused(
    tmp_path: Path, broker: BrokerProcess, worker: WorkerProcess
) -> None:
    """A user of the broker is no worker: those may read every topic."""
    broker.settings = (MODEL, *places(worker, 1, 1))
    broker.start()
    (tmp_path / "others").mkdir()
    others = Certificates.make(tmp_path / "others")
    for certificate in (None, others.user):
        context = ssl.create_default_context(cafile=worker.certificates.authority)
        if certificate is not None:
            context.load_cert_chain(certificate)
        with socket.create_connection(("127.0.0.1", worker.port), timeout=10) as raw, pytest.raises(OSError):
            with context.wrap_socket(raw, server_hostname="localhost") as encrypted:
                encrypted.sendall(b"\0\0\0\1\x90")
                if not encrypted.recv(1):
                    raise OSError
    assert broker.log().count("vector worker refused") == 2


def test_a_broker_whose_certificate_is_another_s_is_not_joined(
    tmp_path: Path, broker: BrokerProcess, worker: WorkerProcess
) -> None:
    broker.settings = (MODEL, *places(worker, 1, 1))
    broker.start()
    (tmp_path / "others").mkdir()
    worker.certificates = Certificates.make(tmp_path / "others")
    worker.start()
    until(lambda: "CERTIFICATE_VERIFY_FAILED" in worker.log.read_text())
    assert worker.end() == 0


def test_a_worker_too_many_is_told_so(tmp_path: Path, broker: BrokerProcess, worker: WorkerProcess) -> None:
    broker.settings = (MODEL, *places(worker, 1, 1))
    broker.start()
    worker.start()
    until(lambda: "worker 1 of the broker" in worker.log.read_text())
    (tmp_path / "second").mkdir()
    second = WorkerProcess(tmp_path / "second", worker.certificates, worker.port).start()
    until(lambda: "all 1 places of vector.remote.workers are taken" in second.log.read_text())
    assert second.end() == 0
    third = WorkerProcess(tmp_path, worker.certificates, worker.port).start()
    assert third.process is not None
    assert third.process.wait(20) == 1, "a folder has one worker"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (("vector.workers=0",), "both 0"),
        (("vector.remote.workers=1",), "needs vector.worker.listen"),
        (("vector.remote.workers=1", "vector.worker.listen=127.0.0.1:0"), "vector.worker.ssl.truststore.location"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_start(tmp_path: Path, settings: tuple[str, ...], reason: str) -> None:
    command = [sys.executable, "-m", "senselog", "serve", "--data-dir", str(tmp_path)]
    command += ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=os.environ, check=False)
    assert done.returncode == 1
    assert reason in done.stderr
