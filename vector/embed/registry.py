"""From the name in `vector.embedding.model` to its provider, imported only then."""

from pathlib import Path

from vector.config import NO_MODEL
from vector.embed.port import Embedder, EmbedSettings, PausedError


def open_embedder(name: str, dimensions: int, settings: EmbedSettings) -> Embedder:
    """Opens the model `name`; `dimensions` 0: the model's own. Slow: reads weights, may ask a server. Raises EmbedError."""
    provider, _, model = name.partition(":")
    embedder = _open(provider, model, name, dimensions, settings)
    if dimensions and dimensions != embedder.dimensions:
        raise PausedError(f"vector.dimensions {dimensions}: {name} makes vectors of {embedder.dimensions}")
    return embedder


def _open(provider: str, model: str, name: str, dimensions: int, settings: EmbedSettings) -> Embedder:
    if provider == "hashing":
        from vector.embed.hashing import DEFAULT_DIMENSIONS, HashingEmbedder

        return HashingEmbedder(name, int(model) if model else dimensions or DEFAULT_DIMENSIONS)
    if provider == NO_MODEL:
        from vector.embed.none import NoEmbedder

        return NoEmbedder(dimensions)
    if provider in ("local", "onnx"):
        from vector.embed.local import LocalEmbedder, local_model_path

        directory = local_model_path(model, Path(settings.model_directory)) if provider == "local" else Path(model)
        return LocalEmbedder(name, directory, threads=settings.threads, dimensions=dimensions)
    if provider == "sentence-transformers":
        from vector.embed.sentence_transformers import SentenceTransformersEmbedder

        return SentenceTransformersEmbedder(name, model, threads=settings.threads, dimensions=dimensions)
    if provider == "openai":
        from vector.embed.openai import OpenAIEmbedder

        return OpenAIEmbedder(name, model, settings, dimensions=dimensions)
    if provider == "http":
        from vector.embed.http import open_http

        return open_http(name, model, settings.endpoints, dimensions)
    raise PausedError(f"no provider {provider!r} for the model {name!r}")
