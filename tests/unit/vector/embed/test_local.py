"""The local model, where it is there (`make test` exports it); and what is said where it is not."""

from pathlib import Path

import numpy as np
import pytest

from vector.embed.export import ExportError, export, list_models
from vector.embed.local import MODEL_FILE, LocalEmbedder, local_model_path, model_directory
from vector.embed.port import EmbedError, EmbedSettings, ModelMissingError, PausedError
from vector.embed.registry import open_embedder

NAME = "all-MiniLM-L6-v2"
DIRECTORY = local_model_path(NAME, model_directory())
needs_model = pytest.mark.skipif(
    not (DIRECTORY / MODEL_FILE).is_file(), reason="no local model: senselog models export"
)


@pytest.fixture(scope="module")
def embedder() -> LocalEmbedder:
    return LocalEmbedder(f"local:{NAME}", DIRECTORY, threads=1)


@needs_model
def test_vectors_have_unit_length_and_do_not_depend_on_their_company(embedder: LocalEmbedder) -> None:
    texts = ["disk full", "the connection to the database was refused " * 8, "a", "Größe überschritten"]
    together = embedder.embed(texts, "passage")
    assert together.shape == (4, 384)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    alone = np.vstack([embedder.embed([text], "query") for text in texts])
    # int8: activations are scaled by the largest of the batch, so equal only nearly.
    assert ((together * alone).sum(axis=1) > 0.98).all()


@needs_model
def test_meaning_decides(embedder: LocalEmbedder) -> None:
    query, near, far = embedder.embed(
        ["cannot reach the database", "connection to postgres refused", "the cat sat on the mat"], "passage"
    )
    assert query @ near > query @ far + 0.2


@needs_model
def test_long_texts_are_cut_where_the_model_stops_reading(embedder: LocalEmbedder) -> None:
    assert embedder.split("short text", 1) == (["short text"], True)
    long = "error " * 1000
    (piece,), complete = embedder.split(long, 1)
    assert not complete
    assert long.startswith(piece)
    assert embedder.split(piece, 1) == ([piece], True)
    assert np.array_equal(embedder.embed([long], "query")[0], embedder.embed([piece], "query")[0])


@needs_model
def test_pieces_by_tokens_cover_the_text_and_fit_the_model(embedder: LocalEmbedder) -> None:
    words = [f"{'internationalization' if number % 7 == 0 else 'word'}{number}" for number in range(1500)]
    text = " ".join(words)
    pieces, complete = embedder.split(text, 256)
    assert complete
    assert len(pieces) > 5
    assert {word for piece in pieces for word in piece.split()} == set(words)
    for piece in pieces:
        assert embedder.split(piece, 1) == ([piece], True)
    first, whole = embedder.split(text, 3)
    assert (first, whole) == (pieces[:3], False)


def test_a_missing_model_says_how_to_get_it(tmp_path: Path) -> None:
    settings = EmbedSettings(str(tmp_path))
    with pytest.raises(ModelMissingError, match="senselog models export"):
        open_embedder(f"local:{NAME}", 0, settings)
    with pytest.raises(ModelMissingError, match=r"tokenizer\.json"):
        open_embedder(f"onnx:{tmp_path}", 0, settings)
    (listed,) = list_models(tmp_path)
    assert (listed.name, listed.installed) == (NAME, False)


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    settings = EmbedSettings(str(tmp_path))
    with pytest.raises(PausedError, match="no provider"):
        open_embedder("magic:x", 0, settings)
    with pytest.raises(PausedError, match=r"vector\.dimensions 8"):
        open_embedder("hashing:16", 8, settings)
    with pytest.raises(ExportError, match="known: all-MiniLM"):
        export("unknown", tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("model.json", MODEL_FILE, "tokenizer.json"):
        (broken / name).write_text("{}")
    with pytest.raises(EmbedError):
        open_embedder(f"onnx:{broken}", 0, settings)


def test_settings_do_not_show_the_key() -> None:
    assert "secret" not in repr(EmbedSettings(".", openai_key="secret"))
