"""A server on loopback that speaks every shape of embedding API, and fails as it is told."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

DIMENSIONS = 4
KEY = "sk-very-secret"


def vector_of(text: str) -> list[float]:
    """The server's vector of a text; the first two components alone tell texts apart as well."""
    return [float(len(text)), float(sum(map(ord, text)) % 97), 1.0, -1.0]


def tokens_of(texts: list[str]) -> int:
    """As the server counts them."""
    return sum(len(text.split()) for text in texts)


@dataclass
class Asked:
    """One request: its texts, and the rest of its body."""

    path: str
    texts: list[str]
    body: dict[str, Any]
    authorization: str | None


@dataclass
class Fault:
    """Instead of vectors: a status with a message, or what else is set."""

    status: int = 200
    message: str = "the reason"
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    delay_s: float = 0.0
    cut: bool = False
    drip_s: float = 0.0
    """Seconds between the bytes of the answer."""
    vectors: Callable[[list[str]], list[list[float]]] | None = None


Script = Callable[[Asked], Fault | None]


class EmbeddingServer(ThreadingHTTPServer):
    """`script` sees each request and may answer a fault; `asked` keeps them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Asked] = []
        self.script: Script = lambda _: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that give up are part of the tests."""


@contextmanager
def running() -> Iterator[EmbeddingServer]:
    """A server in a thread of its own."""
    with EmbeddingServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, EmbeddingServer)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = next(body[name] for name in ("input", "inputs", "texts") if name in body)
        asked = Asked(self.path, texts, body, self.headers["Authorization"])
        server.asked.append(asked)
        fault = server.script(asked) or Fault()
        time.sleep(fault.delay_s)
        data = fault.raw
        if data is None:
            data = json.dumps(_error(fault, asked) if fault.status != 200 else _answer(fault, asked)).encode()
        self.send_response(fault.status)
        told = {"x-compute-tokens": str(tokens_of(texts))} if asked.path == "/embed" else {}
        for name, value in {"Content-Type": "application/json", **told, **fault.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault.cut:
            self.wfile.write(data[: len(data) // 2])
            self.connection.close()
        elif fault.drip_s:
            for byte in data:
                self.wfile.write(bytes([byte]))
                time.sleep(fault.drip_s)
        else:
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def _error(fault: Fault, asked: Asked) -> Any:
    if asked.path == "/v1/embeddings":
        return {"error": {"message": fault.message, "type": "t", "param": None, "code": fault.code}}
    return {"error": fault.message, "code": fault.code}


def _answer(fault: Fault, asked: Asked) -> Any:
    size = asked.body.get("dimensions") or asked.body.get("output_dimension") or DIMENSIONS
    rows = (fault.vectors or (lambda texts: [vector_of(text)[:size] for text in texts]))(asked.texts)
    match asked.path:
        case "/embed":
            return rows
        case "/v2/embed":
            return {"embeddings": {"float": rows}, "meta": {"billed_units": {"input_tokens": tokens_of(asked.texts)}}}
        case "/api/embed":
            return {"embeddings": rows, "prompt_eval_count": tokens_of(asked.texts)}
        case "/v1/embeddings":
            data = [
                {"object": "embedding", "index": i, "embedding": _encoded(row, asked)} for i, row in enumerate(rows)
            ]
            usage = {"prompt_tokens": 1, "total_tokens": tokens_of(asked.texts)}
            return {"object": "list", "data": data[::-1], "model": "m", "usage": usage}  # the index says which is which
        case _:
            return {"embeddings": rows}


def _encoded(row: list[float], asked: Asked) -> Any:
    if asked.body.get("encoding_format") == "base64":
        return base64.b64encode(np.array(row, dtype="<f4").tobytes()).decode()
    return row
