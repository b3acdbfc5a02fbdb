"""Messages to bytes and back, for every API and version; compiled on first use (0.7 ms for each of them).

Decoding raises nothing but `MalformedMessage`. Bytes behind a whole message are ignored, as Kafka ignores them.
"""

import struct
from functools import cache
from types import ModuleType
from typing import Any

from protocol import fast_fetch, fast_produce, schema
from protocol.api_keys import ApiKey
from protocol.decoder import Decode, compile_decoder
from protocol.encoder import Encode, compile_encoder
from protocol.errors import MalformedMessage
from protocol.messages import Message, message_class
from protocol.wire import Buffer

_FAST: dict[int, ModuleType] = {ApiKey.PRODUCE: fast_produce, ApiKey.FETCH: fast_fetch}
"""Codecs written by hand, in front of the compiled ones."""

_decoders: dict[tuple[int, int, str], Decode] = {}
_encoders: dict[tuple[int, int, str], Encode] = {}


def decode_request(key: int, version: int, data: Buffer, position: int = 0) -> Any:
    """The request body that starts at `position`; its records fields are views into `data`."""
    decode = _decoders.get((key, version, "Request")) or _decoder(key, version, "Request")
    return _decode(decode, data, position)


def decode_response(key: int, version: int, data: Buffer, position: int = 0) -> Any:
    """The response body that starts at `position`; its records fields are views into `data`."""
    decode = _decoders.get((key, version, "Response")) or _decoder(key, version, "Response")
    return _decode(decode, data, position)


def encode_request(key: int, version: int, message: Message) -> list[Buffer]:
    """The request's body as buffers to be written one after the other; raises TypeError or ValueError for bad values."""
    encode = _encoders.get((key, version, "Request")) or _encoder(key, version, "Request")
    return _encode(encode, message, version)


def encode_response(key: int, version: int, message: Message) -> list[Buffer]:
    """The response's body as buffers to be written one after the other; raises TypeError or ValueError for bad values.

    Fields that `version` lacks are left out. Records are passed on as they are, never copied.
    """
    encode = _encoders.get((key, version, "Response")) or _encoder(key, version, "Response")
    return _encode(encode, message, version)


def request_decoder(key: int, version: int) -> Decode:
    """`decode_request` of one version, for callers that look it up once: (data, position, end) -> (message, position).

    On cut data it raises IndexError or struct.error, too.
    """
    return _decoders.get((key, version, "Request")) or _decoder(key, version, "Request")


def response_encoder(key: int, version: int) -> Encode:
    """`encode_response` of one version, for callers that look it up once; bad values raise whatever they cause."""
    return _encoders.get((key, version, "Response")) or _encoder(key, version, "Response")


def decode_data(name: str, version: int, data: Buffer, position: int = 0) -> Any:
    """A data structure that is neither request nor response, such as "OffsetCommitValue", without its version prefix."""
    return _decode(_compiled_decoder(name, version), data, position)


def encode_data(name: str, version: int, message: Message) -> bytes:
    """The counterpart of `decode_data`."""
    return b"".join(_encode(_compiled_encoder(name, version), message, version))


@cache
def request_schema(key: int) -> schema.Message:
    """The schema of the API's request; raises LookupError for keys without one."""
    try:
        return schema.load(f"{ApiKey(key).message_name}Request")
    except ValueError as error:
        raise LookupError(f"unknown API key {key}") from error


@cache
def flexible(key: int, version: int) -> bool:
    """Whether the version uses compact forms and tagged fields (KIP-482); raises LookupError for unknown keys."""
    return version in request_schema(key).flexible


def valid_versions(key: int) -> tuple[int, int]:
    """(lowest, highest) version that the codec knows and Kafka counts as released; raises LookupError for unknown keys."""
    found = request_schema(key)
    return found.versions[0], found.stable


def _decode(decode: Decode, data: Buffer, position: int) -> Message:
    view = data if type(data) is memoryview else memoryview(data)
    try:
        return decode(view, position, len(view))[0]
    except (IndexError, struct.error) as error:
        raise MalformedMessage("the message ends early") from error


def _encode(encode: Encode, message: Message, version: int) -> list[Buffer]:
    try:
        return encode(message)
    except (AttributeError, TypeError, ValueError, struct.error) as error:
        raise TypeError(f"{type(message).__name__} v{version} cannot be encoded: {error}: {message!r:.2000}") from error


def _decoder(key: int, version: int, direction: str) -> Decode:
    compiled = _compiled_decoder(f"{_message_name(key)}{direction}", version)
    fast = _FAST.get(key)
    if fast and direction == "Request" and version in fast.FLEXIBLE_VERSIONS:
        compiled = fast.decoder(version, compiled)
    _decoders[key, version, direction] = compiled
    return compiled


def _encoder(key: int, version: int, direction: str) -> Encode:
    compiled = _compiled_encoder(f"{_message_name(key)}{direction}", version)
    fast = _FAST.get(key)
    if fast and direction == "Response" and version in fast.FLEXIBLE_VERSIONS:
        compiled = fast.encoder(version, compiled)
    _encoders[key, version, direction] = compiled
    return compiled


def _message_name(key: int) -> str:
    try:
        return ApiKey(key).message_name
    except ValueError as error:
        raise LookupError(f"unknown API key {key}") from error


@cache
def _compiled_decoder(name: str, version: int) -> Decode:
    return compile_decoder(_schema(name, version), version, message_class(name))


@cache
def _compiled_encoder(name: str, version: int) -> Encode:
    return compile_encoder(_schema(name, version), version)


def _schema(name: str, version: int) -> schema.Message:
    found = schema.load(name)
    if version not in found.versions:
        raise LookupError(f"{name} has no version {version}")
    return found
