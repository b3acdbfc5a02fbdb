"""A client library as a process of its own that does what one line of JSON says, and answers with another."""

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

DRIVERS = Path(__file__).resolve().parent / "drivers"
# Longer than any driver waits for its own client (60 s), so that the driver's word on what failed is heard.
ANSWER_TIMEOUT_S = 130


class ClientError(Exception):
    """What the client library raised, as text."""


class Driver:
    """One running client. `driver.send(name="p", …)` asks for the operation `send`; `drivers/common.py` has the protocol."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by kill)
        self.process = subprocess.Popen(
            command,
            cwd=DRIVERS,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # kcat's driver has members of its own, and a kill is to reach them
            text=True,
        )

    def __getattr__(self, operation: str) -> Any:
        return lambda **arguments: self._ask({"op": operation, **arguments})

    def _ask(self, request: Mapping[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise ClientError(f"the driver has ended: {self.log()}") from None
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_TIMEOUT_S)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            raise ClientError(f"no answer to {request['op']}: {self.log()}")
        answer = json.loads(line)
        if "error" in answer:
            raise ClientError(f"{request['op']}: {answer['error']}\n{self.log()}")
        return answer["ok"]

    def log(self) -> str:
        """The end of what the client printed."""
        self._log.seek(0)
        return self._log.read()[-3000:]

    def kill(self) -> None:
        """kill -9, as a crash; also the end of every driver."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._log.close()


@contextlib.contextmanager
def running(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Driver]:
    """A driver for the time of a block."""
    driver = Driver(command, environment)
    try:
        yield driver
    finally:
        driver.kill()
