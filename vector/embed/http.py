"""Embedding servers with an API of their own: text-embeddings-inference, Ollama, Cohere, Voyage, and the plain {"texts": []}.

A shape says how a request is written and where its answer has the vectors; all else is the same for all of them.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vector.arrays import Float32
from vector.embed.answers import classify, readable
from vector.embed.endpoint import HttpEndpoint
from vector.embed.pieces import cut_at_characters
from vector.embed.port import Kind, PausedError, TokenMeter, TransientError

ANSWER_BYTES_MAX = 256 * 1024 * 1024
"""2,048 vectors of 3,072 numbers in JSON are half of it; a server that sends more for ever must not fill the memory."""
# There is no tokenizer here: prose has 4 characters a token, log lines 2 to 3.
CHARACTERS_PER_TOKEN = 3
NORM_MIN = 1e-12

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Call:
    """What is asked; `dimensions` 0: the model's."""

    model: str
    texts: list[str]
    kind: Kind
    dimensions: int


@dataclass(frozen=True, slots=True)
class _Shape:
    """`write` makes the body of a call; `read` finds the vectors in an
    answer; `dimensions`: whether the server can be asked for fewer. The rest are the server's own limits."""

    path: str
    write: Callable[[_Call], Body]
    read: Callable[[Any], Any]
    dimensions: bool
    texts_per_call: int
    tokens_per_call: int
    max_tokens: int


def _with(body: Body, **optional: Any) -> Body:
    return body | {name: value for name, value in optional.items() if value}


def _by_index(answer: Any) -> Any:
    rows = sorted(answer["data"], key=lambda row: row["index"])
    if [row["index"] for row in rows] != list(range(len(rows))):
        raise ValueError("indices that are not 0, 1, 2 …")
    return [row["embedding"] for row in rows]


# A server that cuts texts says nothing of it, so none may: texts are cut here, and flagged.
_SHAPES: Mapping[str, _Shape] = {
    "tei": _Shape(
        "/embed",
        lambda call: _with({"inputs": call.texts, "truncate": False, "normalize": True}, dimensions=call.dimensions),
        lambda answer: answer,
        dimensions=True,
        texts_per_call=32,
        tokens_per_call=16_384,
        max_tokens=512,
    ),
    "ollama": _Shape(
        "/api/embed",
        lambda call: _with({"model": call.model, "input": call.texts, "truncate": False}, dimensions=call.dimensions),
        lambda answer: answer["embeddings"],
        dimensions=True,
        texts_per_call=64,
        tokens_per_call=32_768,
        max_tokens=2048,
    ),
    "cohere": _Shape(
        "/v2/embed",
        lambda call: _with(
            {
                "model": call.model,
                "texts": call.texts,
                "input_type": "search_query" if call.kind == "query" else "search_document",
                "embedding_types": ["float"],
                "truncate": "NONE",
            },
            output_dimension=call.dimensions,
        ),
        lambda answer: answer["embeddings"]["float"],
        dimensions=True,
        texts_per_call=96,
        tokens_per_call=100_000,
        max_tokens=512,
    ),
    "voyage": _Shape(
        "/v1/embeddings",
        lambda call: _with(
            {
                "model": call.model,
                "input": call.texts,
                "input_type": "query" if call.kind == "query" else "document",
                "truncation": False,
            },
            output_dimension=call.dimensions,
        ),
        _by_index,
        dimensions=True,
        texts_per_call=128,
        tokens_per_call=120_000,
        max_tokens=32_000,
    ),
    "texts": _Shape(
        "",
        lambda call: _with({"texts": call.texts}, model=call.model),
        lambda answer: answer["embeddings"],
        dimensions=False,
        texts_per_call=64,
        tokens_per_call=32_768,
        max_tokens=512,
    ),
}
_TYPED = ("cohere", "voyage")
"""Shapes that tell queries from passages by a field of their own."""


class HttpEmbedder:
    """One endpoint of the broker's configuration. Retrying is the scheduler's, which knows the cooldown that all calls share."""

    def __init__(self, name: str, endpoint: HttpEndpoint, *, dimensions: int = 0) -> None:
        """`dimensions`: 0, or as many as the vectors are to have. Asks the server how many it makes. Raises EmbedError."""
        import httpx

        self.name = name
        shape = self._shape = _SHAPES[endpoint.format]
        self.tokens = TokenMeter()
        self._endpoint = endpoint
        self._url = endpoint.url.rstrip("/") + shape.path
        self.provider = f"{endpoint.format} {endpoint.url}"
        self.revision = _revision(endpoint)
        self.symmetric = endpoint.query_prefix == endpoint.passage_prefix and endpoint.format not in _TYPED
        self.texts_per_call = endpoint.texts_per_call or shape.texts_per_call
        self.tokens_per_call = endpoint.tokens_per_call or shape.tokens_per_call
        self.max_tokens = endpoint.max_tokens or shape.max_tokens
        self.calls_at_once = endpoint.calls_at_once
        self._asked = dimensions if shape.dimensions and not endpoint.matryoshka else 0
        self._errors = httpx
        self._client = httpx.Client(timeout=endpoint.timeout_ms / 1000, follow_redirects=False)
        self.dimensions = dimensions
        made = len(self._call(["dimensions"], "passage")[0])
        if dimensions > made or (dimensions and dimensions != made and not endpoint.matryoshka):
            raise PausedError(f"vector.dimensions {dimensions}: {name} makes vectors of {made}")
        self._made = made
        self.dimensions = dimensions or made

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        """float32[n, d] as the server made it, checked: count, order, dimensions; shortened and of unit length under matryoshka."""
        rows = self._call(texts, kind)
        if rows.shape[1] != self._made:
            raise PausedError(f"{self.name} answered vectors of {rows.shape[1]} dimensions, expected {self._made}")
        if self.dimensions == self._made:
            return rows
        cut = rows[:, : self.dimensions]
        return np.asarray(cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), NORM_MIN), dtype=np.float32)

    def prepare(self, kind: Kind) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def split(self, text: str, pieces_max: int) -> tuple[list[str], bool]:
        """Pieces of CHARACTERS_PER_TOKEN times the model's tokens, in characters."""
        prefix = max(len(self._endpoint.query_prefix), len(self._endpoint.passage_prefix))
        most = max(CHARACTERS_PER_TOKEN * self.max_tokens - prefix, CHARACTERS_PER_TOKEN)
        return cut_at_characters(text, most, pieces_max)

    def _call(self, texts: Sequence[str], kind: Kind) -> Float32:
        endpoint = self._endpoint
        prefix = endpoint.query_prefix if kind == "query" else endpoint.passage_prefix
        body = self._shape.write(_Call(endpoint.model, [prefix + text for text in texts], kind, self._asked))
        key = read_key(endpoint.api_key_file, endpoint.api_key_env)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        errors = self._errors
        try:
            status, answered, data = self._exchange(body, headers)
        except errors.TimeoutException:
            raise TransientError(f"{self.name}: the server did not answer in time") from None
        except (errors.HTTPError, errors.InvalidURL) as error:
            raise TransientError(f"{self.name}: {readable(error or type(error).__name__, key)}") from None
        if status != 200:
            code, reason = _error_of(data)
            raise classify(self.name, status, code, readable(reason, key), answered)
        try:
            answer = json.loads(data)
            rows = np.asarray(self._shape.read(answer), dtype=np.float32)
        except (ValueError, TypeError, KeyError, RecursionError) as error:  # a gateway's page, or JSON of another shape
            raise TransientError(f"{self.name}: the answer cannot be read: {readable(error, key)}") from None
        if rows.ndim != 2 or len(rows) != len(texts):
            raise TransientError(f"{self.name} answered {rows.shape} for {len(texts)} texts")
        used = _tokens_of(answer, answered)
        if used is not None:
            self.tokens.add(used)
        return rows

    def _exchange(self, body: Body, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer, within time and size: a server that drips bytes would pass every read's time-out."""
        deadline = time.monotonic() + self._endpoint.timeout_ms / 1000
        data = bytearray()
        with self._client.stream("POST", self._url, json=body, headers=dict(headers)) as response:
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > ANSWER_BYTES_MAX:
                    raise TransientError(f"{self.name}: the answer is larger than {ANSWER_BYTES_MAX} bytes")
                if time.monotonic() > deadline:
                    raise TransientError(f"{self.name}: the server did not answer in time")
            return response.status_code, response.headers, bytes(data)


def _tokens_of(answer: Any, headers: Mapping[str, str]) -> int | None:
    """How many tokens the server says it has read: Voyage, Ollama, Cohere in the answer, text-embeddings-inference in a header."""
    found: Any = headers.get("x-compute-tokens")
    if found is None and isinstance(answer, Mapping):
        for path in (("usage", "total_tokens"), ("prompt_eval_count",), ("meta", "billed_units", "input_tokens")):
            found = answer
            for name in path:
                found = found.get(name) if isinstance(found, Mapping) else None
            if found is not None:
                break
    try:
        return None if found is None else int(found)
    except (TypeError, ValueError):
        return None


def read_key(file: str | None, variable: str | None) -> str | None:
    """The key of a provider, read anew for each call, so that a new one is used at once. Raises PausedError."""
    if file:
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise PausedError(f"cannot read the API key in {file}: {error}") from None
    if not variable:
        return None
    key = os.environ.get(variable)
    if not key:
        raise PausedError(f"the API key is to be in the environment variable {variable}, which is not set")
    return key


def _error_of(data: bytes) -> tuple[str | None, object]:
    """(code, message) of an error's body, of whichever of the servers."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None, data[:1000].decode(errors="replace")
    if not isinstance(body, Mapping):
        return None, body
    error = body.get("error")
    if isinstance(error, Mapping):
        return error.get("code"), error.get("message")
    return body.get("code"), error or body.get("message") or body.get("detail")


def _revision(endpoint: HttpEndpoint) -> str:
    """What decides the vectors, as far as the configuration tells; not the address: a server that moves makes the same ones."""
    decisive = (endpoint.format, endpoint.model, endpoint.query_prefix, endpoint.passage_prefix, endpoint.revision)
    return f"{endpoint.format}-{hashlib.sha256(repr(decisive).encode()).hexdigest()[:12]}"


def open_http(name: str, endpoint_name: str, endpoints: Mapping[str, HttpEndpoint], dimensions: int) -> HttpEmbedder:
    """The endpoint `vector.http.NAME` of the broker's configuration. Raises EmbedError."""
    endpoint = endpoints.get(endpoint_name)
    if endpoint is None:
        known = ", ".join(sorted(endpoints)) or "none"
        raise PausedError(f"the broker's configuration has no endpoint vector.http.{endpoint_name}; it has: {known}")
    return HttpEmbedder(name, endpoint, dimensions=dimensions)
