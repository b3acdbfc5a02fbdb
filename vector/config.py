"""The `vector.*` topic configs and what they mean for one topic."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from vector.extract import parse_field

NO_MODEL = "none"
"""The `vector.embedding.model` of a topic whose producers send the vectors."""
_EMBEDDING_MODEL = re.compile(
    r"none|hashing(:[1-9]\d{0,4})?|(local|onnx|sentence-transformers|openai):\S+|http:[\w-]+", re.ASCII
)


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One topic config key. `default` None: the broker's default applies. `validator` raises ValueError saying why not."""

    name: str
    type: Literal["boolean", "string", "int"]
    default: str | None
    validator: Callable[[str], object]
    documentation: str


def _one_of(*allowed: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"String must be one of: {', '.join(allowed)}")
        return text

    return check


def _between(minimum: int, maximum: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise ValueError(f"Value must be at least {minimum}")
        if value > maximum:
            raise ValueError(f"Value must be no more than {maximum}")
        return value

    return check


def _model(text: str) -> str:
    if not _EMBEDDING_MODEL.fullmatch(text):
        raise ValueError(f"Value must be {_MODEL_FORM}")
    return text


_MODEL_FORM = (
    "local:NAME, onnx:DIRECTORY, sentence-transformers:NAME, openai:NAME, http:NAME (the broker's vector.http.NAME), "
    "none (producers send vectors), or hashing:DIMENSIONS (for tests)"
)
_boolean = _one_of("true", "false")

TOPIC_KEYS: Mapping[str, ConfigKey] = {
    key.name: key
    for key in (
        ConfigKey(
            "vector.enabled",
            "boolean",
            "false",
            _boolean,
            "Index this topic for search by meaning; switching it on indexes the existing log from its start.",
        ),
        ConfigKey(
            "vector.field",
            "string",
            "value",
            parse_field,
            "What is embedded: value, key, header:NAME, a JSONPath such as $.message, or a template such as {$.title}: {$.body}. "
            "A record with the header senselog.vector (float32, little-endian) brings its own vector.",
        ),
        ConfigKey(
            "vector.embedding.model",
            "string",
            None,
            _model,
            f"The embedding model; unset: the broker's vector.embedding.model. {_MODEL_FORM}.",
        ),
        ConfigKey(
            "vector.dimensions",
            "int",
            "0",
            _between(0, 65536),
            "The vectors' dimensions, where the model lets one choose; 0: the model's. Required when the model is none.",
        ),
        ConfigKey(
            "vector.metric",
            "string",
            "cosine",
            _one_of("cosine", "dot", "l2"),
            "How vectors are compared: cosine, dot or l2.",
        ),
        ConfigKey(
            "vector.long.text",
            "string",
            "chunk",
            _one_of("chunk", "truncate", "skip"),
            "What happens to a text longer than the model takes: chunk (overlapping pieces, the best one counts), truncate (hits say "
            "so) or skip.",
        ),
        ConfigKey(
            "vector.paused",
            "boolean",
            "false",
            _boolean,
            "Stop indexing until this is false again; searches go on. `senselog vector pause` and `resume` set it.",
        ),
        ConfigKey(
            "vector.cutover",
            "string",
            "auto",
            _one_of("auto", "manual"),
            "When a generation that was built beside the live one takes its place: auto, as soon as it is complete, or manual, when "
            "`senselog vector cutover` says so.",
        ),
        ConfigKey(
            "vector.generation.retention.ms",
            "int",
            "86400000",
            _between(0, 2**31 - 1),
            "For how long the previous generation of the index is kept, for `senselog vector rollback`.",
        ),
        ConfigKey(
            "vector.text.index",
            "boolean",
            "true",
            _boolean,
            "Keep the texts, searchable by their words: for mode text and mode hybrid.",
        ),
        ConfigKey("vector.hnsw.m", "int", "16", _between(4, 128), "Links per node of the HNSW graph."),
        ConfigKey(
            "vector.hnsw.ef.construction",
            "int",
            "100",
            _between(8, 4096),
            "Candidates kept while the HNSW graph is built.",
        ),
        ConfigKey(
            "vector.hnsw.ef.search", "int", "64", _between(1, 4096), "Candidates kept while the HNSW graph is searched."
        ),
        ConfigKey(
            "vector.storage",
            "string",
            "sq8",
            _one_of("fp32", "fp16", "sq8"),
            "The codes in the graph: fp32, fp16 or sq8; hits are rescored from the stored vectors.",
        ),
    )
}


def check_together(configs: Mapping[str, str]) -> None:
    """What one key means for another. Raises ValueError whose message begins with the key."""
    enabled = configs.get("vector.enabled", "").lower() == "true"
    if (
        enabled
        and configs.get("vector.embedding.model") == NO_MODEL
        and int(configs.get("vector.dimensions", "0")) == 0
    ):
        raise ValueError(
            "vector.dimensions is required when vector.embedding.model is none: the vectors that producers send"
        )


@dataclass(frozen=True, slots=True)
class VectorConfig:
    """The `vector.*` configs of one topic that has vectors."""

    field: str
    embedding_model: str | None
    dimensions: int
    metric: str
    long_text: str
    hnsw_m: int
    hnsw_ef_construction: int
    hnsw_ef_search: int
    storage: str
    paused: bool = False
    cutover: str = "auto"
    generation_retention_ms: int = 86_400_000
    text_index: bool = True
