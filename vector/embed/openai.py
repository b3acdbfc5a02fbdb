"""Any server that speaks OpenAI's embeddings API; and what its errors mean (research/vector-search.md 4.1)."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vector.embed.pieces import cut_at_characters
from vector.embed.port import EmbedError, EmbedSettings, Float32, Kind, PausedError, PoisonError, TransientError

TEXTS_PER_CALL = 512  # of the 2,048 that OpenAI takes: a refusal costs less, and calls run in parallel
TOKENS_PER_CALL = 300_000
MAX_TOKENS = 8192
# There is no tokenizer here. Prose has 4 characters a token, log lines 2 to 3; a text this long that is refused after
# all is counted as failed, with the server's reason.
CHARACTERS_PER_TOKEN = 3
CALLS_AT_ONCE = 4
RETRY_AFTER_MAX_S = 600.0
DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
_POISON_STATUSES = frozenset({400, 413, 422})
_PAUSING_STATUSES = frozenset({401, 403, 404})
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


class OpenAIEmbedder:
    """`/embeddings` of one base URL. Retrying is the scheduler's, which knows the cooldown that all calls share."""

    calls_at_once = CALLS_AT_ONCE
    symmetric = True
    texts_per_call = TEXTS_PER_CALL
    tokens_per_call = TOKENS_PER_CALL
    max_tokens = MAX_TOKENS
    revision = "api"

    def __init__(self, name: str, model: str, settings: EmbedSettings, *, dimensions: int = 0) -> None:
        """Asks the server for the dimensions of a model it does not know. Raises EmbedError."""
        import openai

        self.name = name
        self.provider = settings.openai_base_url or "openai"
        self._model = model
        self._asked_dimensions = dimensions
        self._errors = openai
        # Servers without keys want none, the SDK does.
        key = settings.openai_key or "none"
        self._secret = settings.openai_key
        self._client = openai.OpenAI(
            base_url=settings.openai_base_url, api_key=key, max_retries=0, timeout=settings.timeout_s
        )
        self.dimensions = dimensions or DIMENSIONS.get(model, 0)
        if not self.dimensions:
            self.dimensions = len(self._call(["dimensions"])[0])

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        """float32[n, d] as the server made it, checked: count, order, dimensions, finite, not zero."""
        del kind
        vectors = np.asarray(self._call(texts), dtype=np.float32)
        if vectors.shape != (len(texts), self.dimensions):
            raise PausedError(f"{self.name} answered vectors of shape {vectors.shape[1:]}, expected {self.dimensions}")
        return vectors

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def prepare(self, kind: Kind) -> None:
        """Nothing to load."""

    def split(self, text: str, pieces_max: int) -> tuple[list[str], bool]:
        """Pieces of CHARACTERS_PER_TOKEN times the model's tokens, in characters."""
        return cut_at_characters(text, MAX_TOKENS * CHARACTERS_PER_TOKEN, pieces_max)

    def _call(self, texts: Sequence[str]) -> list[Float32]:
        arguments: dict[str, Any] = {"dimensions": self._asked_dimensions} if self._asked_dimensions else {}
        errors = self._errors
        try:
            answer = self._client.embeddings.create(model=self._model, input=list(texts), **arguments)
        except errors.APITimeoutError:
            raise TransientError(f"{self.name}: the server did not answer in time") from None
        except errors.APIConnectionError as error:
            raise TransientError(f"{self.name}: {self._reason(error.__cause__ or error)}") from None
        except errors.APIStatusError as error:
            reason = self._reason(_message(error))
            raise classify(self.name, error.status_code, error.code, reason, error.response.headers) from None
        except (errors.OpenAIError, ValueError) as error:
            # A gateway's HTML page or JSON of another shape.
            raise TransientError(f"{self.name}: the answer cannot be read: {self._reason(error)}") from None
        data = sorted(answer.data, key=lambda item: item.index)
        if [item.index for item in data] != list(range(len(texts))):
            raise TransientError(f"{self.name} answered {len(data)} vectors for {len(texts)} texts")
        return [np.asarray(item.embedding, dtype=np.float32) for item in data]

    def _reason(self, text: object) -> str:
        """What a server says may echo the key it was sent, and is shown in status and logs."""
        said = str(text)
        return _first_line(said.replace(self._secret, "***") if self._secret else said)


def classify(name: str, status: int, code: str | None, message: str, headers: Mapping[str, str]) -> EmbedError:
    """The error that an HTTP status means: wait and try again, pause for a person, or the input is bad."""
    text = f"{name}: HTTP {status}: {message}"
    if code == "insufficient_quota" or status in _PAUSING_STATUSES:
        return PausedError(text)
    if status in _POISON_STATUSES:
        return PoisonError(text)
    return TransientError(text, retry_after_s(headers))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the server asks to wait: Retry-After in seconds, else the longer of OpenAI's x-ratelimit-reset-* ("1s", "6m0s");
    None when it says nothing sensible: some gateways send -1."""
    lowered = {name.lower(): value for name, value in headers.items()}
    plain = _seconds(lowered.get("retry-after"), float)
    if plain is not None:
        return plain
    resets = (_seconds(lowered.get(f"x-ratelimit-reset-{what}"), _duration) for what in ("requests", "tokens"))
    return max((reset for reset in resets if reset is not None), default=None)


def _seconds(text: str | None, parse: Callable[[str], float]) -> float | None:
    try:
        seconds = math.nan if text is None else parse(text.strip())
    except ValueError:
        return None
    return min(seconds, RETRY_AFTER_MAX_S) if seconds > 0 else None


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if not match or not text:
        raise ValueError(text)
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _message(error: Any) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, Mapping) else None
    return str(message or error.message)


def _first_line(text: object) -> str:
    return str(text).splitlines()[0][:300] if str(text) else "no message"
