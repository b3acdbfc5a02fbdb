"""What an embedding provider is, and how it fails (design/vector.md, Providers and Failures)."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from vector.arrays import Float32
from vector.embed.endpoint import HttpEndpoint

Kind = Literal["query", "passage"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a text has no vector: the model refuses it, or gives one that is zero or not finite."""

    reason: str


class TokenMeter:
    """Tokens that a model has read, queries included, as it counts them itself: what a provider asks money for. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count: int | None = None

    def add(self, tokens: int) -> None:
        """Of one call."""
        with self._lock:
            self._count = (self._count or 0) + tokens

    @property
    def count(self) -> int | None:
        """None: it does not tell."""
        return self._count


class Embedder(Protocol):
    """A model that turns texts into vectors. Safe to call from several threads at once.

    `name` is what `vector.embedding.model` says, `revision` changes whenever the vectors would; together with `dimensions` they say
    which vectors may be compared.
    """

    name: str
    provider: str
    """Who answers: models of one provider share a cooldown."""
    revision: str
    dimensions: int
    max_tokens: int
    texts_per_call: int
    """The most texts of one `embed` call."""
    tokens_per_call: int
    """The most tokens of one call, as `estimated_tokens` counts them; a single text may have more."""
    calls_at_once: int
    """How many calls make sense in parallel."""
    tokens: TokenMeter
    symmetric: bool
    """Whether a text gets the same vector as a query and as a passage."""

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        """float32[n, d] in the order of `texts`, all finite and not zero. Raises EmbedError."""
        ...

    def prepare(self, kind: Kind) -> None:
        """Loads what the first call of this kind would load; called by the thread that makes the calls. Raises EmbedError."""
        ...

    def close(self) -> None:
        """Frees what the model holds."""
        ...

    def split(self, text: str, pieces_max: int) -> tuple[list[str], bool]:
        """The text in pieces that the model reads whole (see `vector.embed.pieces`), at most `pieces_max` of them, and whether
        they are all of it. One piece: what the model reads of the text."""
        ...


def estimated_tokens(text: str) -> int:
    """Rather more than the tokens of a text, for batching where no tokenizer is at hand: log lines have 2.2 characters a token,
    prose 4, other scripts about one token for two bytes of UTF-8."""
    return (len(text) if text.isascii() else len(text.encode())) // 2 + 1


class EmbedError(Exception):
    """Base of what can go wrong with a call; the message is for people and holds no secret."""


class TransientError(EmbedError):
    """Trying again later may help: overload, time-outs, connections. `retry_after_s` is what the server asked for."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PausedError(EmbedError):
    """Only a person can help: a wrong key, no quota left, no such model."""


class PoisonError(EmbedError):
    """The server refuses the input; when there were several texts, bisecting finds the one."""


class ModelMissingError(PausedError):
    """The model is not on this machine; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class EmbedSettings:
    """What the broker's configuration says about providers. Times in seconds, `threads` 0: all cores.

    `openai_key` comes from the environment or a file; it is never shown.
    """

    model_directory: str
    threads: int = 0
    openai_base_url: str | None = None
    openai_key: str | None = None
    timeout_s: float = 30.0
    endpoints: Mapping[str, HttpEndpoint] = field(default_factory=dict)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> "EmbedSettings":
        """The inverse of `dataclasses.asdict`, for the channel."""
        endpoints = {name: HttpEndpoint(**endpoint) for name, endpoint in message["endpoints"].items()}
        return cls(**{**message, "endpoints": endpoints})

    def __repr__(self) -> str:
        return f"EmbedSettings(model_directory={self.model_directory!r}, openai_base_url={self.openai_base_url!r})"
