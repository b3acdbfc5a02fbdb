"""The real broker as a process of its own, for tests that need sockets, signals and kill -9."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
STOP_TIMEOUT_S = 5  # what the command line promises
LOG_TIMEOUT_S = 10


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class BrokerProcess:
    """A Senselog on fixed ports and one data directory, started, stopped and killed as often as a test likes."""

    def __init__(self, directory: Path, *settings: str) -> None:
        self.directory = directory
        self.settings = settings
        self.bootstrap = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self.grpc = f"127.0.0.1:{free_port()}"
        self.environment: dict[str, str] = {}
        """What it has beyond that of the tests."""
        self.process: subprocess.Popen[str] | None = None

    @property
    def data_directory(self) -> Path:
        """The broker's data directory."""
        return self.directory / "data"

    def start(self) -> None:
        """Starts the broker and waits for its ready line; raises RuntimeError with its log when it does not come."""
        command = [sys.executable, "-m", "senselog", "serve", "--data-dir", str(self.data_directory)]
        command += ["--listen", self.bootstrap, "--http", self.http, "--grpc", self.grpc]
        for setting in self.settings:
            command += ["--set", setting]
        with (self.directory / "broker.log").open("ab") as log:
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line != f"senselog ready kafka={self.bootstrap} http={self.http} grpc={self.grpc}\n":
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"the broker did not start: {line}{self.log()[-3000:]}")

    def log(self) -> str:
        """What the broker has logged so far."""
        return (self.directory / "broker.log").read_text()

    def wait_for_log(self, words: str) -> None:
        """Until the broker has logged these words: a client may see an event before it is told there. Raises AssertionError."""
        deadline = time.monotonic() + LOG_TIMEOUT_S
        while words not in self.log():
            assert time.monotonic() < deadline, f"not logged: {words}"
            time.sleep(0.02)

    def children(self) -> list[psutil.Process]:
        """The broker's own processes: its vector workers."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> None:
        """kill -9; then the vector workers, having lost their broker, must end by themselves."""
        assert self.process is not None
        workers = self.children()
        self.kill_alone()
        _, alive = psutil.wait_procs(workers, timeout=20)
        if alive:
            raise RuntimeError(f"vector workers outlive their broker: {[process.pid for process in alive]}")

    def kill_alone(self) -> None:
        """kill -9; the vector workers end by themselves, sooner or later."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._close_output()

    def stop(self) -> int:
        """SIGTERM and the exit code; raises TimeoutExpired when the stop takes longer than promised."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_TIMEOUT_S)
        self._close_output()
        return code

    def end(self) -> None:
        """Stops the broker if it still runs; for tear-downs."""
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def _close_output(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.stdout.close()
