"""The `vector.*` topic configs and what they mean for one topic."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

_EMBEDDING_MODEL = re.compile(r"hashing(:[1-9]\d{0,4})?|(local|onnx|sentence-transformers|openai):\S+", re.ASCII)
_FIELD = re.compile(r"value|key|header:.+", re.DOTALL)
_LATER_MODEL = re.compile(r"none|http:.*", re.DOTALL)
_LATER_FIELD = re.compile(r".*\$.*", re.DOTALL)
_LATER_LONG_TEXT = re.compile("chunk")


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


def _matching(pattern: re.Pattern[str], later: re.Pattern[str], form: str) -> Callable[[str], str]:
    """Accepts `pattern`; what `later` matches is part of the design and gets the answer that it does not work yet."""

    def check(text: str) -> str:
        if later.fullmatch(text):
            raise ValueError(f"Not supported yet; value must be {form}")
        if not pattern.fullmatch(text):
            raise ValueError(f"Value must be {form}")
        return text

    return check


_MODEL_FORM = "local:NAME, onnx:DIRECTORY, sentence-transformers:NAME, openai:NAME, or hashing:DIMENSIONS (for tests)"
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
            _matching(_FIELD, _LATER_FIELD, "value, key or header:NAME"),
            "What is embedded: value, key or header:NAME.",
        ),
        ConfigKey(
            "vector.embedding.model",
            "string",
            None,
            _matching(_EMBEDDING_MODEL, _LATER_MODEL, _MODEL_FORM),
            f"The embedding model; unset: the broker's vector.embedding.model. {_MODEL_FORM}.",
        ),
        ConfigKey(
            "vector.dimensions",
            "int",
            "0",
            _between(0, 65536),
            "The vectors' dimensions, where the model lets one choose; 0: the model's.",
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
            "truncate",
            _matching(re.compile("truncate|skip"), _LATER_LONG_TEXT, "truncate or skip"),
            "What happens to a text longer than the model takes: truncate (hits say so) or skip.",
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
