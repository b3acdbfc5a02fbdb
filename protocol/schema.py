"""Kafka's message schemas, parsed from the JSON files that the kafka-python wheel ships, and from ours.

The files are those of Apache Kafka ("Message definitions", clients/src/main/resources/common/message/README.md). They
are found without importing `kafka`, whose import takes 280 ms, and parsed one message at a time on first use.
"""

import importlib.util
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

NO_VERSIONS = range(0)
_LAST_VERSION = 32767
_OWN_SCHEMAS = Path(__file__).parent / "schemas"
_STRING_OR_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*')
_WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_INTEGERS = {"int8", "int16", "uint16", "int32", "uint32", "int64"}
PRIMITIVES = _INTEGERS | {"bool", "float64", "string", "bytes", "records", "uuid"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message; versions are ranges, `NO_VERSIONS` where there are none.

    `kind` is a primitive's name or "struct"; `array` says that the field holds a list of them. `nullable` belongs to the
    field itself, never to the elements of its array. `default` is a Python value; for arrays and structs None means null
    and `...` means empty.
    """

    name: str
    kind: str
    array: bool
    struct: "Struct | None"
    versions: range
    nullable: range
    tag: int
    tagged: range
    default: Any
    about: str

    @property
    def default_source(self) -> str:
        """The default of a field that is neither array nor struct, or null, as Python source."""
        return "float('nan')" if self.default != self.default else repr(self.default)  # NaN


@dataclass(frozen=True, slots=True)
class Struct:
    """A named group of fields; `name` is the schema's."""

    name: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """A request, a response or a data structure, with all its versions.

    `stable` is the last version that Kafka counts as released (`latestVersionUnstable`).
    """

    root: Struct
    kind: str
    api_key: int
    versions: range
    flexible: range
    stable: int


def snake_case(name: str) -> str:
    """Python's form of a schema's field name: `LogStartOffset` becomes `log_start_offset`."""
    return _WORD_BOUNDARY.sub("_", name).lower()


def parse_versions(text: str) -> range:
    """Kafka's notation for versions: `3+`, `0-4`, `7`, `none`."""
    if text == "none":
        return NO_VERSIONS
    if text.endswith("+"):
        return range(int(text[:-1]), _LAST_VERSION + 1)
    low, _, high = text.partition("-")
    return range(int(low), int(high or low) + 1)


@cache
def _directories() -> tuple[Path, ...]:
    spec = importlib.util.find_spec("kafka")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package kafka-python, which holds Kafka's message schemas, is not installed")
    return _OWN_SCHEMAS, Path(spec.origin).parent / "protocol" / "schemas" / "resources"


def schema_names() -> list[str]:
    """Names of all messages that have a schema, sorted."""
    return sorted({path.stem for directory in _directories() for path in directory.glob("*.json")})


@cache
def load(name: str) -> Message:
    """The schema of the message `name`, for example "MetadataRequest"; raises LookupError if there is none."""
    for directory in _directories():
        path = directory / f"{name}.json"
        if path.exists():
            return parse(path.read_text(encoding="utf-8"))
    raise LookupError(f"no schema for message {name}")


def parse(text: str) -> Message:
    """A message schema from Kafka's JSON with `//` comments."""
    source = json.loads(_STRING_OR_COMMENT.sub(lambda match: match[1] or "", text))
    common = {struct["name"]: struct for struct in source.get("commonStructs", ())}
    versions = parse_versions(source["validVersions"])
    return Message(
        root=Struct(source["name"], tuple(_field(field, common) for field in source["fields"])),
        kind=source["type"],
        api_key=source.get("apiKey", -1),
        versions=versions,
        flexible=parse_versions(source["flexibleVersions"]),
        stable=versions[-1] - bool(source.get("latestVersionUnstable", False)),
    )


def _field(source: dict[str, Any], common: dict[str, Any]) -> Field:
    kind: str = source["type"]
    array = kind.startswith("[]")
    element = kind.removeprefix("[]")
    struct = None
    if element not in PRIMITIVES:
        fields = source["fields"] if "fields" in source else common[element]["fields"]
        struct = Struct(element, tuple(_field(field, common) for field in fields))
    nullable = parse_versions(source.get("nullableVersions", "none"))
    return Field(
        name=snake_case(source["name"]),
        kind="struct" if struct else element,
        array=array,
        struct=struct,
        versions=parse_versions(source["versions"]),
        nullable=nullable,
        tag=source.get("tag", -1),
        tagged=parse_versions(source.get("taggedVersions", "none")),
        default=_default("" if array or struct else element, source.get("default")),
        about=source.get("about", ""),
    )


def _default(kind: str, given: Any) -> Any:
    """The default's Python value; `kind` is empty for arrays and structs."""
    if given == "null":
        return None
    if kind in _INTEGERS:
        return int(given, 0) if isinstance(given, str) and given else int(given or 0)
    if kind == "bool":
        return str(given).lower() == "true"
    if kind == "float64":
        return float(given or 0)
    if kind == "string":
        return given or ""
    return {"bytes": b"", "records": None, "uuid": bytes(16)}.get(kind, ...)
