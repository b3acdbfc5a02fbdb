"""A real S3 API server, and a proxy before it that fails as networks and object stores do."""

import socket
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

BUCKET = "bucket"
FAULTS = ("refused", "lost answer", "500", "503 slow down", "cut body", "flipped byte")


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "FaultyS3"

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""

    def handle_request(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        fault = server.next_fault(self.command)
        if fault == "refused":
            self._hang_up()
            return
        if fault in ("500", "503 slow down"):
            self._answer(int(fault[:3]), [], b"<Error><Code>SlowDown</Code></Error>")
            return
        upstream = HTTPConnection(*server.upstream, timeout=20)
        try:
            upstream.request(
                self.command, self.path, body, {k: v for k, v in self.headers.items() if k.lower() != "host"}
            )
            response = upstream.getresponse()
            answer, headers = response.read(), response.getheaders()
        finally:
            upstream.close()
        server.passed[self.command] += 1
        if fault == "lost answer":
            self._hang_up()
        elif fault == "cut body" and answer:
            self._answer(response.status, headers, answer, send=len(answer) // 2)
        elif fault == "flipped byte" and answer:
            self._answer(response.status, headers, answer[:-1] + bytes([answer[-1] ^ 1]))
        else:
            self._answer(response.status, headers, answer)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_request

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, send: int | None = None) -> None:
        self.send_response(status)
        given = {name.lower(): value for name, value in headers}
        if self.command != "HEAD":
            given["content-length"] = str(len(body))
        for name in ("transfer-encoding", "connection", "server", "date"):
            given.pop(name, None)
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:send])
        if send is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


class FaultyS3(ThreadingHTTPServer):
    """Passes requests on to `upstream`; `faults` are used up one request each, `None` is none. `only` names the methods that fail."""

    daemon_threads = True

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Proxy)
        self.upstream = upstream
        self.faults: deque[str | None] = deque()
        self.only: frozenset[str] | None = None
        self.passed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next_fault(self, method: str) -> str | None:
        with self._lock:
            if not self.faults or (self.only is not None and method not in self.only):
                return None
            return self.faults.popleft()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no error here."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def environment(self) -> dict[str, str]:
        """What lets any S3 client find it."""
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
        }


@contextmanager
def s3() -> Iterator[FaultyS3]:
    """The server with an empty bucket."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    proxy = FaultyS3(moto.get_host_and_port())
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        # moto keeps its buckets for the life of the process.
        for method, path in (("POST", "/moto-api/reset"), ("PUT", f"/{BUCKET}")):
            connection = HTTPConnection(*proxy.upstream)
            connection.request(method, path)
            assert connection.getresponse().status == 200
            connection.close()
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        moto.stop()


@pytest.fixture
def faulty_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    with s3() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server
