"""From a record to the text that is embedded, or the vector its producer sent, or the reason why there is neither. Pure.

JSONPath here is what RFC 9535 calls a singular query, `$.a['b c'][0]`, and a name asked of an array is asked of its elements. The
libraries know filters and slices too, take 20 times as long, and run as long as the path's author likes: a record is one text.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from protocol.record_batch import Record
from vector.filter.record_fields import VECTOR_HEADER

SkipReason = Literal[
    "tombstone", "empty", "not_text", "no_key", "no_header", "not_json", "no_path", "no_vector", "too_long"
]
HASH_BYTES = 16
NORM_MIN = 1e-12
_HEADER = "header:"
_FORM = "value, key, header:NAME, a JSONPath such as $.message, or a template such as {$.title}: {$.body}"
_STEP = re.compile(
    r"""\.(?P<plain>[^\s.\[\]{}'"*$@,:()?]+)|\[(?P<index>-?\d{1,9})\]|\['(?P<single>[^'\]]*)'\]|\["(?P<double>[^"\]]*)"\]"""
)
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a text comes from; `name` of a header, `steps` of a JSONPath."""

    kind: Literal["value", "key", "header", "path"]
    name: str = ""
    steps: tuple[str | int, ...] = ()


@lru_cache(maxsize=256)
def parse_field(field: str) -> tuple[str | _Place, ...]:
    """A `vector.field` as literal texts and places; exactly one place when it is no template. Raises ValueError."""
    bare = field[1:-1] if len(field) > 1 and field[0] == field[-1] == '"' else field
    if "{" not in bare and "}" not in bare:
        return (_place(bare),)
    parts: list[str | _Place] = []
    position = 0
    for found in _PLACEHOLDER.finditer(bare):
        parts.append(bare[position : found.start()])
        position = found.end()
        if found[0] in ("{{", "}}"):
            parts.append(found[0][0])
        elif found[1] is None:
            raise ValueError(
                f"a single {found[0]} at character {found.start()}; write {found[0] * 2} for the character"
            )
        else:
            parts.append(_place(found[1]))
    parts.append(bare[position:])
    if not any(isinstance(part, _Place) for part in parts):
        raise ValueError(f"the template has no placeholder; value must be {_FORM}")
    return tuple(part for part in parts if part != "")


def _place(text: str) -> _Place:
    if text in ("value", "key"):
        return _Place(text)  # type: ignore[arg-type]
    if text.startswith(_HEADER) and text != _HEADER:
        return _Place("header", text.removeprefix(_HEADER))
    if not text.startswith("$"):
        raise ValueError(f"value must be {_FORM}")
    steps: list[str | int] = []
    position = 1
    while position < len(text):
        found = _STEP.match(text, position)
        if found is None:
            raise ValueError(
                f"{text} is not understood from character {position} on; write $.name, $['any name'] or $[0]"
            )
        if found["index"] is not None:
            steps.append(int(found["index"]))
        else:
            steps.append(next(name for name in (found["plain"], found["single"], found["double"]) if name is not None))
        position = found.end()
    return _Place("path", text, tuple(steps))


def extract_text(record: Record, field: str) -> tuple[str, None] | tuple[None, SkipReason]:
    """The text of `field` (see `parse_field`; of headers that repeat, the last), or why the record has none.

    In a template what is missing is empty; when all of it is, the record has no text.
    """
    parts = parse_field(field)
    reader = _Reader(record)
    texts: list[str] = []
    missing: SkipReason | None = None
    found = False
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        text, reason = reader.read(part)
        if text is None:
            missing = missing or reason
        else:
            found = found or bool(text.strip())
            texts.append(text)
    if not found:
        return None, missing or "empty"
    whole = "".join(texts)
    return (whole, None) if _is_text(whole) else (None, "not_text")


def _is_text(text: str) -> bool:
    # NUL is no text: it marks binary data that happens to be UTF-8. JSON can spell half a surrogate pair, which is none either.
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Reader:
    """One record; its value is parsed once, however many paths are asked for."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._document: Any = None
        self._parsed: SkipReason | Literal["yes"] | None = None

    def read(self, place: _Place) -> tuple[str, None] | tuple[None, SkipReason]:
        record = self._record
        if place.kind == "value":
            return _decoded(record.value, "tombstone")
        if place.kind == "key":
            return _decoded(record.key, "no_key")
        if place.kind == "header":
            return _decoded(last_header(record.headers, place.name), "no_header")
        if self._parsed is None:
            self._parsed = self._parse()
        if self._parsed != "yes":
            return None, self._parsed
        values = _follow([self._document], place.steps)
        texts = [_rendered(value) for value in values if value is not None]
        return ("\n".join(texts), None) if texts else (None, "no_path")

    def _parse(self) -> SkipReason | Literal["yes"]:
        if self._record.value is None:
            return "tombstone"
        try:
            self._document = json.loads(bytes(self._record.value).decode(), parse_constant=_refuse)
        except (ValueError, RecursionError):  # not UTF-8, not JSON, NaN, numbers or nesting beyond what Python parses
            return "not_json"
        return "yes"


def _decoded(data: bytes | None, missing: SkipReason) -> tuple[str, None] | tuple[None, SkipReason]:
    if data is None:
        return None, missing
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, "not_text"


def _follow(values: list[Any], steps: Sequence[str | int]) -> list[Any]:
    for step in steps:
        if isinstance(step, int):
            values = [one[step] for one in values if isinstance(one, list) and -len(one) <= step < len(one)]
            continue
        flat = [part for one in values for part in (one if isinstance(one, list) else (one,))]
        values = [one[step] for one in flat if isinstance(one, dict) and step in one]
    return values


def _rendered(value: Any) -> str:
    """A string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def last_header(headers: Sequence[tuple[str, bytes | None]], name: str) -> bytes | None:
    """Of headers that repeat, the last."""
    return next((value for key, value in reversed(headers) if key == name), None)


def read_vector(data: bytes, dimensions: int) -> npt.NDArray[np.float32]:
    """float32[d] out of a `senselog.vector` header. Raises ValueError saying what is wrong with it."""
    if len(data) != 4 * dimensions:
        raise ValueError(
            f"header {VECTOR_HEADER}: {len(data)} bytes, expected {4 * dimensions} ({dimensions} float32 values)"
        )
    vector = np.frombuffer(data, dtype="<f4").astype(np.float32)
    if not np.isfinite(vector).all():
        raise ValueError(f"header {VECTOR_HEADER}: a component is NaN or infinite")
    if float(np.linalg.norm(vector.astype(np.float64))) <= NORM_MIN:
        raise ValueError(f"header {VECTOR_HEADER}: all components are zero")
    return vector


def content_hash(text: str) -> bytes:
    """16 bytes that name a text. Model and dimensions are the index generation's, so they are not in it."""
    return blake2b(text.encode(), digest_size=HASH_BYTES).digest()


def vector_hash(data: bytes) -> bytes:
    """16 bytes that name a vector that was sent; never those of a text."""
    return blake2b(data, digest_size=HASH_BYTES, person=b"senselog.vector").digest()
