"""Start and stop the brokers that are measured, each pinned to one core, and read the CPU seconds they used."""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker: where it listens and which process to account for."""

    name: str
    bootstrap: str
    pid: int
    http: str | None = None
    grpc: str | None = None

    def cpu_seconds(self) -> float:
        """CPU seconds (user + system) of the broker process so far, without its children (the vector worker is one)."""
        # The clock of that process, in nanoseconds (clock_getcpuclockid): /proc counts in ticks of 10 ms, a tenth of a round.
        return time.clock_gettime((~self.pid << 3) | 2)


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_core() -> int:
    """The core the broker is pinned to; the load runs on the others."""
    return max(os.sched_getaffinity(0))


def client_cores() -> set[int]:
    """The cores of the load: all but the broker's, when there is more than one."""
    cores = os.sched_getaffinity(0)
    return cores - {last_core()} or cores


def prewarm(directory: Path, size_bytes: int) -> None:
    """Touches as much page cache as the load will use: the first touch of a cold guest page costs 13 to 17 times a warm one."""
    path = directory / "prewarm"
    block = bytes(1 << 20)
    with path.open("wb", buffering=0) as file:
        for _ in range(size_bytes >> 20):
            file.write(block)
    path.unlink()


def start_senselog(
    directory: Path, settings: Sequence[str] = (), *, pin: bool = True, places: Broker | None = None
) -> tuple["subprocess.Popen[str]", Broker]:
    """A Senselog on the data directory, ready; `settings` are `key=value` of its configuration. RuntimeError with its log if not.

    `places`: where one was that is started again."""
    command = [sys.executable, "-m", "senselog", "serve", "--data-dir", str(directory)]
    listeners = (places.bootstrap, places.http, places.grpc) if places else ()
    for name, place in itertools.zip_longest(("--listen", "--http", "--grpc"), listeners):
        command += [name, place or "127.0.0.1:0"]
    for setting in settings:
        command += ["--set", setting]
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("senselog ready"):
        process.kill()
        process.wait()
        raise RuntimeError(f"senselog did not start: {line}{(directory / 'log').read_text()[-2000:]}")
    at = dict(part.split("=", 1) for part in line.split()[2:])
    if pin:
        for thread in psutil.Process(process.pid).threads():
            os.sched_setaffinity(thread.id, {last_core()})
    return process, Broker("senselog", at["kafka"], process.pid, at.get("http"), at.get("grpc"))


def stop_senselog(process: "subprocess.Popen[str]") -> None:
    """SIGTERM, and SIGKILL if that takes too long."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()


@contextlib.contextmanager
def senselog(settings: Sequence[str] = (), *, pin: bool = True) -> Iterator[Broker]:
    """A fresh Senselog in a temporary data directory; `settings` are `key=value` of its configuration."""
    directory = Path(tempfile.mkdtemp(prefix="senselog-bench-"))
    try:
        process, broker = start_senselog(directory, settings, pin=pin)
        try:
            yield broker
        finally:
            stop_senselog(process)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def apache_kafka(launcher: Path, properties: Sequence[str] = ()) -> Iterator[Broker]:
    """A fresh one-node Apache Kafka by `launcher` (`up PORT key=value…`, `down`), pinned like Senselog."""
    port = free_port()
    home = Path(tempfile.mkdtemp(prefix="kafka-bench-"))
    environment = {**os.environ, "KAFKA_HOME_DIR": str(home)}
    command = ["taskset", "-c", str(last_core()), str(launcher), "up", str(port), *properties]
    started = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False
    )
    if started.returncode:
        raise RuntimeError(f"Apache Kafka did not start: {started.stderr}")
    pid = int(started.stdout.split()[-1])
    try:
        yield Broker("kafka", f"127.0.0.1:{port}", pid)
    finally:
        subprocess.run([str(launcher), "down"], env=environment, check=False, capture_output=True)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while psutil.pid_exists(pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        if psutil.pid_exists(pid):
            psutil.Process(pid).kill()
        shutil.rmtree(home, ignore_errors=True)
