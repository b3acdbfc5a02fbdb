"""Models of the sentence-transformers library, on torch: slower to start and on a CPU, but any model and any GPU."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vector.arrays import Float32
from vector.embed.local import MODELS
from vector.embed.pieces import CHARACTERS_READ_MAX, cut_at_windows, overlap
from vector.embed.port import Kind, ModelMissingError, TokenMeter

BATCH_TEXTS = 32


class SentenceTransformersEmbedder:
    """A SentenceTransformer in the precision it was saved in."""

    texts_per_call = 64
    tokens_per_call = 16_384
    calls_at_once = 1
    symmetric = False

    def __init__(self, name: str, model: str, *, threads: int = 0, dimensions: int = 0) -> None:
        """`dimensions`: the first so many of each vector, of unit length, for models trained for that (Matryoshka); 0: all.

        Raises ModelMissingError when the library or the model is not on this machine; nothing is downloaded."""
        # Read when the library is imported: a broker does not reach out by itself.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        try:
            import sentence_transformers
            import torch
        except ImportError as error:
            raise ModelMissingError(f"{error.name} is missing: pip install 'senselog[sentence-transformers]'") from None
        if threads:
            torch.set_num_threads(threads)
        try:
            model_object: Any = sentence_transformers.SentenceTransformer(
                _path_of(model), truncate_dim=dimensions or None
            )
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ModelMissingError(f"sentence-transformers has no model {model!r} on this machine: {reason}") from None
        self._model = model_object
        self.tokens = TokenMeter()
        self.name = self.provider = name
        self.dimensions = int(self._model.get_embedding_dimension())
        self.max_tokens = int(self._model.max_seq_length or 512)
        self.revision = f"sentence-transformers-{sentence_transformers.__version__.split('.')[0]}"

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        """float32[n, d] of unit length, with the prompts that the model has for queries and passages."""
        encode = self._model.encode_query if kind == "query" else self._model.encode_document
        vectors = encode(list(texts), batch_size=BATCH_TEXTS, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    def close(self) -> None:
        """The model ends with the object."""

    def prepare(self, kind: Kind) -> None:
        """Nothing to load."""

    def split(self, text: str, pieces_max: int) -> tuple[list[str], bool]:
        """Cut by the tokens that the model reads, where its tokenizer tells."""
        if len(text) <= self.max_tokens - 2:
            return [text], True
        read, shared = text[:CHARACTERS_READ_MAX], overlap(self.max_tokens)
        tokens = self._model.tokenizer(
            read,
            truncation=True,
            max_length=self.max_tokens,
            stride=shared,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        every = [
            [place for place, special in zip(offsets, mask, strict=True) if not special]
            for offsets, mask in zip(tokens["offset_mapping"], tokens["special_tokens_mask"], strict=True)
        ]
        if len(every) == 1:
            return [read], len(read) == len(text)
        pieces = cut_at_windows(read, every[: pieces_max + 1], shared)[:pieces_max]
        return pieces, len(every) <= pieces_max and len(read) == len(text)


def _path_of(model: str) -> str:
    """The folder of a model that a package carries, else the name as it stands."""
    packaged = MODELS.get(model.removeprefix("sentence-transformers/"))
    spec = importlib.util.find_spec(packaged.module) if packaged else None
    return str(Path(spec.origin).parent / "model") if spec and spec.origin else model
