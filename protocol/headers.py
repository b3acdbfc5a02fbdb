"""Headers of requests and responses.

Which form a header has follows from the schema alone: flexible versions use request header v2 and response header v1
(a tag buffer at the end), others request header v1 and response header v0. ApiVersions' response header is always v0, so
that a client can read it before it knows anything (KIP-511).
"""

import struct
from typing import NamedTuple

from protocol.api_keys import ApiKey
from protocol.codec import flexible
from protocol.errors import MalformedMessage
from protocol.wire import skip_tags

_REQUEST = struct.Struct(">hhih")
_CORRELATION_ID = struct.Struct(">i")
_FLEXIBLE_RESPONSE = struct.Struct(">ix")
_FLEXIBLE_REQUEST_TAGS = b"\x00"


class RequestHeader(NamedTuple):
    """A request's header; `body_position` is where its body starts in the frame."""

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str | None
    body_position: int


def decode_request_header(data: memoryview) -> RequestHeader:
    """The header of a request frame (without its length); raises MalformedMessage, also for unknown API keys.

    Versions are not checked here: ApiVersions answers those that it does not know.
    """
    try:
        key, version, correlation_id, length = _REQUEST.unpack_from(data)
        position = 10
        client_id = None
        if length >= 0:
            position += length
            if position > len(data):
                raise MalformedMessage("the client id is longer than the request")
            # A legacy string in every version: even header v2 keeps it so that brokers can parse it (KIP-511).
            client_id = str(data[10:position], "utf-8", "replace")
        if flexible(key, version):
            if data[position] == 0:
                position += 1
            else:
                position = skip_tags(data, position, len(data))
    except (IndexError, struct.error) as error:
        raise MalformedMessage("the request ends within its header") from error
    except LookupError as error:
        raise MalformedMessage(str(error)) from error
    return RequestHeader(key, version, correlation_id, client_id, position)


def encode_request_header(key: int, version: int, correlation_id: int, client_id: str | None) -> bytes:
    """The header in front of a request's body."""
    name = None if client_id is None else client_id.encode()
    fixed = _REQUEST.pack(key, version, correlation_id, -1 if name is None else len(name))
    return fixed + (name or b"") + (_FLEXIBLE_REQUEST_TAGS if flexible(key, version) else b"")


def encode_response_header(key: int, version: int, correlation_id: int) -> bytes:
    """The header in front of a response's body."""
    if key != ApiKey.API_VERSIONS and flexible(key, version):
        return _FLEXIBLE_RESPONSE.pack(correlation_id)
    return _CORRELATION_ID.pack(correlation_id)


def decode_response_header(key: int, version: int, data: memoryview) -> tuple[int, int]:
    """(correlation id, position of the body) of a response frame without its length; raises MalformedMessage."""
    try:
        correlation_id: int = _CORRELATION_ID.unpack_from(data)[0]
        if key != ApiKey.API_VERSIONS and flexible(key, version):
            return correlation_id, skip_tags(data, _CORRELATION_ID.size, len(data))
    except (IndexError, struct.error) as error:
        raise MalformedMessage("the response ends within its header") from error
    return correlation_id, _CORRELATION_ID.size
