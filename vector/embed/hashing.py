"""A deterministic stand-in for a model: words hashed into a vector. For tests only; it knows nothing of meaning."""

import re
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from vector.arrays import Float32
from vector.embed.pieces import cut_at_characters
from vector.embed.port import Kind, TokenMeter

DEFAULT_DIMENSIONS = 64
_WORD = re.compile(r"\w+")


class HashingEmbedder:
    """Each word adds to three places of the vector, with a sign; texts that share words are similar. For tests only."""

    provider = "hashing"
    revision = "1, for tests only: shares words, not meaning"
    max_tokens = 4096
    texts_per_call = 512
    tokens_per_call = 1_000_000
    calls_at_once = 1
    symmetric = True

    def __init__(self, name: str, dimensions: int) -> None:
        self.tokens = TokenMeter()
        self.name = name
        self.dimensions = dimensions

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        """float32[n, d] of unit length; the kind makes no difference."""
        del kind
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in _WORD.findall(text.lower()) or [text]:
                digest = np.frombuffer(blake2b(word.encode(), digest_size=12).digest(), dtype="<u4")
                row[digest % self.dimensions] += np.where(digest & 0x8000_0000, 1.0, -1.0)
            if not row.any():
                row[0] = 1.0
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def close(self) -> None:
        """Nothing to free."""

    def prepare(self, kind: Kind) -> None:
        """Nothing to load."""

    def split(self, text: str, pieces_max: int) -> tuple[list[str], bool]:
        """Pieces of at most `max_tokens` characters."""
        return cut_at_characters(text, self.max_tokens, pieces_max)
