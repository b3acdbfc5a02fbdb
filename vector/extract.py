"""From a record to the text that is embedded, or the reason why there is none. Pure."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal

from protocol.record_batch import Record

SkipReason = Literal["tombstone", "empty", "not_text", "no_key", "no_header", "too_long"]
_HEADER = "header:"
HASH_BYTES = 16


def extract_text(record: Record, field: str) -> tuple[str, None] | tuple[None, SkipReason]:
    """The text of `field` (`value`, `key` or `header:NAME`; of headers that repeat, the last), or why the record has none."""
    data, missing = _field(record, field)
    if data is None:
        return None, missing
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None, "not_text"
    if not text.strip():
        return None, "empty"
    # NUL is no text: it marks binary data that happens to be UTF-8.
    return (None, "not_text") if "\0" in text else (text, None)


def _field(record: Record, field: str) -> tuple[bytes | None, SkipReason]:
    if field == "value":
        return record.value, "tombstone"
    if field == "key":
        return record.key, "no_key"
    return _header(record.headers, field.removeprefix(_HEADER)), "no_header"


def _header(headers: Sequence[tuple[str, bytes | None]], name: str) -> bytes | None:
    return next((value for key, value in reversed(headers) if key == name), None)


def content_hash(text: str) -> bytes:
    """16 bytes that name a text. Model and dimensions are the index generation's, so they are not in it."""
    return blake2b(text.encode(), digest_size=HASH_BYTES).digest()
