"""An embedding server as the broker's configuration names it. Imports nothing: the configuration is read by every command."""

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True)
class HttpEndpoint:
    """A server of the broker's configuration, `vector.http.NAME.*`, which topics name as `http:NAME`.

    Limits of 0 are the format's own. `matryoshka`: fewer dimensions are the first ones of each vector, made of unit length.
    `revision`: to be changed by hand when the server makes other vectors under the same name. The key comes from a file or the
    environment of the worker, is read for each call, and is never kept, shown or logged.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    format: Literal["tei", "ollama", "cohere", "voyage", "texts"]
    url: str
    model: str = ""
    api_key_file: str | None = None
    api_key_env: str | None = None
    query_prefix: str = ""
    passage_prefix: str = ""
    max_tokens: int = 0
    texts_per_call: int = 0
    tokens_per_call: int = 0
    calls_at_once: int = 4
    timeout_ms: int = 60_000
    matryoshka: bool = False
    revision: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url {self.url!r} does not begin with http:// or https://")
        for name in ("max_tokens", "texts_per_call", "tokens_per_call"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} is below 0")
        for name in ("calls_at_once", "timeout_ms"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is below 1")
