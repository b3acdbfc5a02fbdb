"""The one thing a coordinator reads in a consumer's own metadata: the topics it subscribes to."""

import struct

_VERSION_AND_COUNT = struct.Struct(">hi")
_LENGTH = struct.Struct(">h")


def subscribed_topics(metadata: bytes) -> frozenset[str] | None:
    """The topics of a ConsumerProtocolSubscription of any version; None when the bytes are not one.

    Layout since version 0: int16 version, int32 topic count, then int16-prefixed UTF-8 names; what follows is not needed.
    """
    try:
        version, count = _VERSION_AND_COUNT.unpack_from(metadata)
        # A name takes two bytes at least, so the count is checked before anything is built from it.
        if version < 0 or not 0 <= count <= len(metadata) // _LENGTH.size:
            return None
        position, topics = _VERSION_AND_COUNT.size, set()
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(metadata, position)
            position += _LENGTH.size
            if length < 0 or position + length > len(metadata):
                return None
            topics.add(metadata[position : position + length].decode())
            position += length
    except (struct.error, UnicodeDecodeError):
        return None
    return frozenset(topics)
