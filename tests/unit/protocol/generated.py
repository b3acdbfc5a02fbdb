"""Random messages for property tests, made from the schemas; every API and version that Kafka 4.3 has and we know."""

from typing import Any

from hypothesis import strategies as st

from protocol import codec, schema
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import message_class

BODIES = [
    (key, version, direction)
    for key in ApiKey
    for version in range(codec.valid_versions(key)[0], codec.valid_versions(key)[1] + 1)
    for direction in ("Request", "Response")
]
"""(API key, version, direction) of every request and response body."""

BODY_IDS = [f"{key.message_name}{direction}-v{version}" for key, version, direction in BODIES]

_BITS = {"bool": 0, "int8": 8, "int16": 16, "int32": 32, "int64": 64}
_OPERATIONS = st.sampled_from([0, 8, 256 + 8])
_TEXT = st.text(max_size=6) | st.text(alphabet="abc", min_size=120, max_size=140)


def messages(key: ApiKey, version: int, direction: str) -> st.SearchStrategy[Any]:
    """Messages of one API, version and direction; fields that the version lacks keep their defaults."""
    name = f"{key.message_name}{direction}"
    root = message_class(name)
    return _structs(schema.load(name).root, version, root)


def encode(key: ApiKey, version: int, direction: str, message: Any) -> bytes:
    """One body, joined."""
    encoder = codec.encode_request if direction == "Request" else codec.encode_response
    return b"".join(encoder(key, version, message))


def decode(key: ApiKey, version: int, direction: str, data: bytes) -> Any:
    """One body."""
    decoder = codec.decode_request if direction == "Request" else codec.decode_response
    return decoder(key, version, data)


def _structs(struct: schema.Struct, version: int, root: type[Any]) -> st.SearchStrategy[Any]:
    cls = root if struct.name == root.__name__ else getattr(root, struct.name)
    fields = {field.name: _field(field, version, root) for field in struct.fields if version in field.versions}
    return st.builds(cls, **fields)


def _field(field: schema.Field, version: int, root: type[Any]) -> st.SearchStrategy[Any]:
    element = _structs(field.struct, version, root) if field.struct else _values(field)
    strategy = st.lists(element, max_size=3) if field.array else element
    return st.none() | strategy if version in field.nullable else strategy


def _values(field: schema.Field) -> st.SearchStrategy[Any]:
    """Any value of the field's kind that the oracles can express too: kio turns times and error codes into objects."""
    name, kind = field.name, field.kind
    if name.endswith("error_code"):
        return st.sampled_from([int(code) for code in ErrorCode])
    if name.endswith("authorized_operations") and kind == "int32":
        return _OPERATIONS
    if kind in ("int32", "int64") and ("timestamp" in name or "time" in name.split("_") or name.endswith("_ms")):
        return st.integers(0, 2**31 - 1)
    if kind in _BITS:
        bits = _BITS[kind]
        return st.booleans() if not bits else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return {
        "uint16": st.integers(0, 2**16 - 1),
        "float64": st.floats(allow_nan=False),
        "string": _TEXT,
        "bytes": st.binary(max_size=6) | st.binary(min_size=126, max_size=130),
        "records": st.binary(max_size=200),
        "uuid": st.binary(min_size=16, max_size=16),
    }[kind]
