"""The `vector.*` topic configs and what they mean for one topic."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

_EMBEDDING_MODEL = re.compile(r"none|hashing(:\d+)?|(local|onnx|sentence-transformers|openai|http):\S+", re.ASCII)
_FIELD = re.compile(r"value|key|header:.+|\$.*|.*\{\$.*\}.*", re.ASCII | re.DOTALL)


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


def _matching(pattern: re.Pattern[str], form: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text and not pattern.fullmatch(text):
            raise ValueError(f"Value must be {form}")
        return text

    return check


_MODEL_FORM = "local:NAME, onnx:PATH, sentence-transformers:NAME, openai:NAME, http:NAME or none"
_FIELD_FORM = "value, key, header:NAME, a JSONPath such as $.message, or a template such as {$.title}: {$.body}"
_boolean = _one_of("true", "false")

TOPIC_KEYS: Mapping[str, ConfigKey] = {
    key.name: key
    for key in (
        ConfigKey("vector.enabled", "boolean", "false", _boolean, "Index this topic for search by meaning; switching it on indexes the existing log from its start."),
        ConfigKey("vector.field", "string", "value", _matching(_FIELD, _FIELD_FORM), "What is embedded: value, key, header:NAME, a JSONPath or a template."),
        ConfigKey("vector.embedding.model", "string", None, _matching(_EMBEDDING_MODEL, _MODEL_FORM), "The embedding model; unset: the broker's default. none: producers send vectors in the header senselog.vector."),
        ConfigKey("vector.dimensions", "int", "0", _between(0, 65536), "The vectors' dimensions; 0: the model's. Required for the model none."),
        ConfigKey("vector.metric", "string", "cosine", _one_of("cosine", "dot", "l2"), "How vectors are compared: cosine, dot or l2."),
        ConfigKey("vector.long.text", "string", "chunk", _one_of("chunk", "truncate", "skip"), "What happens to a text longer than the model takes: chunk, truncate or skip."),
        ConfigKey("vector.text.index", "boolean", "true", _boolean, "Keep a lexical index beside the vectors, for hybrid search."),
        ConfigKey("vector.hnsw.m", "int", "16", _between(4, 128), "Links per node of the HNSW graph."),
        ConfigKey("vector.hnsw.ef.construction", "int", "100", _between(8, 4096), "Candidates kept while the HNSW graph is built."),
        ConfigKey("vector.hnsw.ef.search", "int", "64", _between(1, 4096), "Candidates kept while the HNSW graph is searched."),
        ConfigKey("vector.storage", "string", "sq8", _one_of("fp32", "fp16", "sq8"), "The codes in the graph: fp32, fp16 or sq8; hits are rescored from the stored vectors."),
    )
}


@dataclass(frozen=True, slots=True)
class VectorConfig:
    """The `vector.*` configs of one topic that has vectors."""

    field: str
    embedding_model: str | None
    dimensions: int
    metric: str
    long_text: str
    text_index: bool
    hnsw_m: int
    hnsw_ef_construction: int
    hnsw_ef_search: int
    storage: str
