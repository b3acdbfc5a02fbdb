"""The OpenAI provider against a server on loopback that answers as it is told."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from vector.embed.answers import RETRY_AFTER_MAX_S, retry_after_s
from vector.embed.openai import OpenAIEmbedder
from vector.embed.port import EmbedError, EmbedSettings, PausedError, PoisonError, Refusal, TransientError
from vector.embed.scheduler import EmbedScheduler
from vector.extract import content_hash

Answer = tuple[int, dict[str, str], Any]


class Server(ThreadingHTTPServer):
    """Answers `POST /v1/embeddings` by `script`; keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.script: Callable[[dict[str, Any]], Answer] = vectors

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.requests.append(body)
        server.authorizations.append(self.headers["Authorization"])
        status, headers, answer = server.script(body)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def vector_of(text: str) -> list[float]:
    return [float(len(text)), 1.0, -1.0]


def vectors(body: dict[str, Any], *, dimensions: int = 3) -> Answer:
    rows = [
        {"object": "embedding", "index": index, "embedding": _encode(vector_of(text)[:dimensions], body)}
        for index, text in enumerate(body["input"])
    ]
    rows.reverse()  # the index says which is which, not the place
    return 200, {}, {"object": "list", "data": rows, "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}


def _encode(vector: list[float], body: dict[str, Any]) -> Any:
    if body.get("encoding_format") == "base64":
        return base64.b64encode(np.array(vector, dtype="<f4").tobytes()).decode()
    return vector


def failure(status: int, code: str | None = None, headers: dict[str, str] | None = None) -> Answer:
    return status, headers or {}, {"error": {"message": "the reason", "type": "t", "param": None, "code": code}}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def embedder(server: Server) -> Iterator[OpenAIEmbedder]:
    settings = EmbedSettings(".", openai_base_url=server.url, openai_key="secret", timeout_s=5)
    opened = OpenAIEmbedder("openai:unknown-model", "unknown-model", settings)
    server.requests.clear()
    yield opened
    opened.close()


def test_vectors_come_back_in_the_order_of_the_texts(server: Server, embedder: OpenAIEmbedder) -> None:
    assert embedder.dimensions == 3
    found = embedder.embed(["a", "abc", "ab"], "passage")
    assert found.tolist() == [vector_of("a"), vector_of("abc"), vector_of("ab")]
    assert server.requests[0]["model"] == "unknown-model"
    assert "dimensions" not in server.requests[0]
    assert set(server.authorizations) == {"Bearer secret"}


def test_chosen_dimensions_are_asked_for(server: Server) -> None:
    server.script = lambda body: vectors(body, dimensions=body["dimensions"])
    settings = EmbedSettings(".", openai_base_url=server.url)
    opened = OpenAIEmbedder("openai:m", "m", settings, dimensions=2)
    assert opened.embed(["a"], "query").shape == (1, 2)
    opened.close()


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (429, "rate_limit_exceeded", TransientError),
        (429, "insufficient_quota", PausedError),
        (401, "invalid_api_key", PausedError),
        (403, None, PausedError),
        (404, "model_not_found", PausedError),
        (400, None, PoisonError),
        (413, None, PoisonError),
        (422, None, PoisonError),
        (408, None, TransientError),
        (500, None, TransientError),
        (503, None, TransientError),
    ],
)
def test_what_a_status_means(
    server: Server, embedder: OpenAIEmbedder, status: int, code: str | None, error: type[EmbedError]
) -> None:
    server.script = lambda _: failure(status, code)
    with pytest.raises(error, match="the reason") as raised:
        embedder.embed(["a"], "passage")
    assert type(raised.value) is error
    assert "secret" not in str(raised.value)
    assert len(server.requests) == 1, "retrying is the scheduler's"


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_server_that_echoes_the_key_does_not_spread_it(server: Server, embedder: OpenAIEmbedder, status: int) -> None:
    message = "x" * 295 + " secret is not a valid key"  # not even the beginning of it, where the message is cut
    server.script = lambda _: (status, {}, {"error": {"message": message, "code": None}})
    with pytest.raises(EmbedError) as raised:
        embedder.embed(["a"], "passage")
    assert "xxx" in str(raised.value)
    assert " se" not in str(raised.value)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "0.5", "x-ratelimit-reset-tokens": "9s"}, 0.5),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s"}, RETRY_AFTER_MAX_S),
        ({"Retry-After": "99999"}, RETRY_AFTER_MAX_S),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "0"}, None),
        ({"Retry-After": "soon", "x-ratelimit-reset-tokens": ""}, None),
        ({"Retry-After": "nan"}, None),
        ({}, None),
    ],
)
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_the_wish_to_wait_reaches_the_scheduler(server: Server, embedder: OpenAIEmbedder) -> None:
    server.script = lambda _: failure(429, headers={"Retry-After": "3"})
    with pytest.raises(TransientError) as raised:
        embedder.embed(["a"], "passage")
    assert raised.value.retry_after_s == 3.0


def test_a_server_that_is_not_there_may_come_back() -> None:
    settings = EmbedSettings(".", openai_base_url="http://127.0.0.1:9/v1", timeout_s=1)
    opened = OpenAIEmbedder("openai:text-embedding-3-small", "text-embedding-3-small", settings)
    with pytest.raises(TransientError):
        opened.embed(["a"], "passage")
    opened.close()


@pytest.mark.parametrize("answer", [b"<html>", {"data": []}, {"data": [{"index": 0, "embedding": [1.0]}]}, {}])
def test_an_answer_of_another_shape_is_no_vector(server: Server, embedder: OpenAIEmbedder, answer: Any) -> None:
    server.script = lambda _: (200, {}, answer)
    with pytest.raises((TransientError, PausedError)):
        embedder.embed(["a", "b"], "passage")


async def test_poison_is_found_by_bisecting_and_the_rest_is_embedded(server: Server, embedder: OpenAIEmbedder) -> None:
    def script(body: dict[str, Any]) -> Answer:
        return failure(400) if "poison" in body["input"] else vectors(body)

    server.script = script
    scheduler = EmbedScheduler(embedder)
    texts = [f"text {number}" for number in range(20)] + ["poison"]
    found = await scheduler.vectors({content_hash(text): text for text in texts})
    assert found.pop(content_hash("poison")) == Refusal("openai:unknown-model: HTTP 400: the reason")
    assert all(found[content_hash(text)] is not None for text in texts[:-1])
    assert len(server.requests) <= 2 * 21
    assert scheduler.counters.poisoned == 1
    assert "the reason" in scheduler.failures[0]
    scheduler.close()


async def test_overload_is_waited_out_and_shown(server: Server, embedder: OpenAIEmbedder) -> None:
    answers = [failure(429, headers={"Retry-After": "0.01"}), failure(503)]
    server.script = lambda body: answers.pop(0) if answers else vectors(body)
    scheduler = EmbedScheduler(embedder)
    found = await scheduler.vectors({content_hash("a"): "a"})
    assert found[content_hash("a")] is not None
    assert scheduler.counters.retries == 2
    assert scheduler.trouble is None
    scheduler.close()
