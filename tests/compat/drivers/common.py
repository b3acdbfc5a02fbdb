"""What the Python drivers share: the line protocol, members that poll in a thread, the copy loop.

A driver reads one JSON object a line from stdin, `{"op": NAME, …arguments}`, and answers with one line: `{"ok": VALUE}` or
`{"error": TEXT}`. A record is `[partition, offset, key, value, headers]`. Runs in each client's own virtual environment, so it
imports nothing but the standard library.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

TIMEOUT_S = 60
SESSION_TIMEOUT_MS = 6_000
HEARTBEAT_MS = 500

Record = list[Any]
Settings = dict[str, Any]


class Member:
    """One member of a group: `poll` runs in a thread of its own until closed; an error of the thread shows in `state`."""

    def __init__(
        self, poll: Callable[[], list[Record]], assignment: Callable[[], set[int]], close: Callable[[], None]
    ) -> None:
        self._poll, self._assignment, self._close = poll, assignment, close
        self._got: list[Record] = []
        self._owned: set[int] = set()  # written by the thread: the clients are not to be asked from another one
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="member", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                got = self._poll()
                self._got.extend(got)
                self._owned = self._assignment()
            self._close()
        except BaseException as error:
            self._error = error

    def state(self) -> dict[str, Any]:
        """The partitions owned, and the records read since the last call."""
        if self._error:
            raise self._error
        got = list(self._got)
        del self._got[: len(got)]
        return {"assigned": sorted(self._owned), "records": got}

    def close(self) -> list[Record]:
        """Leaves the group; returns what was read since the last `state`."""
        self._stop.set()
        self._thread.join(TIMEOUT_S)
        if self._error:
            raise self._error
        return self._got


class Driver:
    """What every Python driver has: the connection's settings, and its producers and members by name."""

    def __init__(self) -> None:
        self.bootstrap = ""
        self.security: Settings = {}
        self.producers: dict[str, Any] = {}
        self.members: dict[str, Member] = {}
        self._admin: Any = None

    def connect(self, bootstrap: str, security: Settings) -> None:
        self.bootstrap, self.security = bootstrap, security
        self._admin = None

    def admin(self) -> Any:
        """The client for calls of administration, made when first asked for."""
        self._admin = self._admin or self.new_admin()
        return self._admin

    def new_admin(self) -> Any:
        raise NotImplementedError

    def member(self, name: str, **options: Any) -> None:
        self.members[name] = self.join(**options)

    def join(self, **options: Any) -> Member:
        raise NotImplementedError

    def state(self, name: str) -> dict[str, Any]:
        return self.members[name].state()

    def leave(self, name: str) -> list[Record]:
        return self.members.pop(name).close()


def until(count: int, poll: Callable[[], list[Record]], timeout_s: float = TIMEOUT_S) -> list[Record]:
    """Polls until that many records came; what came when the time is over."""
    got: list[Record] = []
    deadline = time.monotonic() + timeout_s
    while len(got) < count and time.monotonic() < deadline:
        got += poll()
    return got


def serve(driver: Driver) -> None:
    """Answers requests until stdin ends. What libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(driver, request.pop("op"))(**request)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()
    os._exit(0)  # members of a killed test may still poll
