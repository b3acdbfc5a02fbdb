"""Any server that speaks OpenAI's embeddings API."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vector.arrays import Float32
from vector.embed.answers import classify, readable
from vector.embed.pieces import cut_at_characters
from vector.embed.port import EmbedSettings, Kind, PausedError, TokenMeter, TransientError

TEXTS_PER_CALL = 512  # of the 2,048 that OpenAI takes: a refusal costs less, and calls run in parallel
TOKENS_PER_CALL = 300_000
MAX_TOKENS = 8192
# There is no tokenizer here. Prose has 4 characters a token, log lines 2 to 3; a text this long that is refused after
# all is counted as failed, with the server's reason.
CHARACTERS_PER_TOKEN = 3
CALLS_AT_ONCE = 4
# A gateway's HTML page, or JSON of another shape: the SDK passes on what it runs into.
_UNREADABLE = (ValueError, TypeError, AttributeError, KeyError, RecursionError)
DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}


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
        self.tokens = TokenMeter()
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
        except errors.OpenAIError as error:
            raise TransientError(f"{self.name}: {self._reason(error)}") from None
        except _UNREADABLE as error:
            raise TransientError(f"{self.name}: the answer cannot be read: {self._reason(error)}") from None
        vectors = self._vectors(answer, len(texts))
        used = getattr(getattr(answer, "usage", None), "total_tokens", None)
        if isinstance(used, int):  # servers that only look like OpenAI's leave it out
            self.tokens.add(used)
        return vectors

    def _vectors(self, answer: Any, count: int) -> list[Float32]:
        try:
            data = sorted(answer.data, key=lambda item: item.index)
            if [item.index for item in data] != list(range(count)):
                raise TransientError(f"{self.name} answered {len(data)} vectors for {count} texts")
            return [np.asarray(item.embedding, dtype=np.float32) for item in data]
        except _UNREADABLE as error:
            raise TransientError(f"{self.name}: the answer cannot be read: {self._reason(error)}") from None

    def _reason(self, text: object) -> str:
        return readable(text, self._secret)


def _message(error: Any) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, Mapping) else None
    return str(message or error.message)
