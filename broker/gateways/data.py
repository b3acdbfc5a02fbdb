"""Bytes in JSON, which has none: text where they are UTF-8, else base64 under another name."""

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any


def json_data(name: str, data: bytes | None) -> dict[str, str | None]:
    """`name` as text, or null and `name_base64` beside it."""
    if data is None:
        return {name: None}
    try:
        return {name: bytes(data).decode()}
    except UnicodeDecodeError:
        return {name: None, f"{name}_base64": base64.b64encode(data).decode()}


def bytes_of(value: Any, encoded: str | None) -> bytes | None:
    """What `json_data` gave: a text, or base64; any other JSON value is stored as JSON. Raises ValueError."""
    if encoded is not None:
        if value is not None:
            raise ValueError("given twice, as it is and in base64")
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("not base64") from None
    if value is None:
        return None
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair, which no UTF-8 has") from None
    except ValueError:
        raise ValueError("holds NaN or infinity, which no JSON has") from None


def milliseconds(value: int | str) -> int:
    """Milliseconds since 1970 of a number or an ISO 8601 time (UTC unless it names a zone). Raises ValueError."""
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        value = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if not 0 <= value < 2**63:
        raise ValueError("is before 1970, and no record's timestamp is" if value < 0 else "is above 2^63 - 1")
    return value
