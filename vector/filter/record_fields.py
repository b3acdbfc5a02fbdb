"""What of a record filters can ask for: its key, headers, and the paths of a JSON value. Pure."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from vector.filter.tree import KEY, header_column, path_column
from vector.filter.values import CONTAINER, encode_bytes, encode_scalar

VECTOR_HEADER = "senselog.vector"
"""A record's own vector: float32[d], little-endian. That it is there can be asked for, not its bytes: they would be a fifth of an index."""
ENTRIES_MAX = 256
"""Values of one record that are kept in the index; a record that has more is read from the log when a filter asks for it."""
JSON_BYTES_MAX = 64 * 1024
"""Larger values are not taken apart while indexing (0.5 ms for this many bytes), but when a filter asks for them."""
STEPS_MAX = 32
"""Steps of a path; nothing deeper can be asked for."""


@dataclass(frozen=True, slots=True)
class RecordFields:
    """Encoded values by column. `fits`: these are all there are; otherwise only reading the record tells."""

    values: dict[str, list[bytes]] = field(default_factory=dict)
    fits: bool = True


class _TooManyError(Exception):
    """More entries than asked for."""


def record_fields(
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes | None]],
    *,
    entries_max: int | None = ENTRIES_MAX,
    json_bytes_max: int | None = JSON_BYTES_MAX,
) -> RecordFields:
    """The fields of a record; None as a bound: all of them. A value that is no JSON object or array has no paths."""
    found = _Fields(entries_max)
    fits = True
    try:
        if key is not None:
            found.add(KEY, encode_bytes(bytes(key)))
        for name, data in headers:
            encoded = CONTAINER if name == VECTOR_HEADER else encode_bytes(None if data is None else bytes(data))
            found.add(header_column(name), encoded)
        if value is not None and value[:64].lstrip()[:1] in (b"{", b"[", b""):
            if json_bytes_max is not None and len(value) > json_bytes_max:
                fits = False
            else:
                _add_json(found, bytes(value))
    except _TooManyError:
        fits = False
    return RecordFields(found.values, fits)


class _Fields:
    def __init__(self, entries_max: int | None) -> None:
        self.values: dict[str, list[bytes]] = {}
        self._left = entries_max

    def add(self, column: str, value: bytes) -> None:
        if self._left is not None:
            if self._left == 0:
                raise _TooManyError
            self._left -= 1
        self.values.setdefault(column, []).append(value)


def _add_json(found: _Fields, data: bytes) -> None:
    document = parse_json(data)
    if isinstance(document, dict | list):
        _add_members(found, document, ())


def _add_members(found: _Fields, container: dict[str, Any] | list[Any], steps: tuple[str, ...]) -> None:
    if len(steps) == STEPS_MAX and isinstance(container, dict):
        found.add(path_column(steps), CONTAINER)  # it exists, and nothing below it can be asked for
        return
    members = container.items() if isinstance(container, dict) else ((None, member) for member in container)
    if not container and steps:
        found.add(path_column(steps), CONTAINER)
    for name, member in members:
        path = steps if name is None else (*steps, name)
        if isinstance(member, dict | list):
            _add_members(found, member, path)
        elif path:
            found.add(path_column(path), encode_scalar(member))


def parse_json(data: bytes) -> Any:
    """A JSON document; None for what is none: not UTF-8, NaN and Infinity, nested beyond what Python parses."""
    try:
        return json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def all_values(
    key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]
) -> dict[str, list[bytes]]:
    """Every value of a record, however many and however large."""
    return record_fields(key, value, headers, entries_max=None, json_bytes_max=None).values
