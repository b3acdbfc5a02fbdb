"""No model: the producers of the topic send the vectors."""

from collections.abc import Sequence

from vector.arrays import Float32
from vector.config import NO_MODEL
from vector.embed.port import Kind, PausedError, PoisonError, TokenMeter


class NoEmbedder:
    """Refuses every text; its dimensions are those of the vectors that are sent."""

    name = NO_MODEL
    provider = NO_MODEL
    revision = ""
    max_tokens = 0
    texts_per_call = 1
    tokens_per_call = 1
    calls_at_once = 1
    symmetric = False

    def __init__(self, dimensions: int) -> None:
        """Raises PausedError without dimensions."""
        if not dimensions:
            raise PausedError("vector.dimensions is required when vector.embedding.model is none")
        self.tokens = TokenMeter()
        self.dimensions = dimensions

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        """Raises PoisonError, always."""
        del texts, kind
        raise PoisonError("vector.embedding.model is none, the producers send the vectors; search by vector or record")

    def prepare(self, kind: Kind) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Nothing to free."""

    def split(self, text: str, pieces_max: int) -> tuple[list[str], bool]:
        """As it is: no piece is ever embedded."""
        del pieces_max
        return [text], True
