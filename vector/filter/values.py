"""Values of keys, headers and JSON paths as bytes whose order is the values' own. Pure.

One tag byte, then: numbers (all in one order, integers of any size up to 84 bits exact), strings and byte strings as they are.
So every condition on a value (equal, prefix, range, exists) is a list of intervals of such bytes, wherever it is evaluated.
"""

import math
import struct
from dataclasses import dataclass

CONTAINER, FALSE, NUMBER, STRING, TRUE, NULL = b"c", b"f", b"n", b"s", b"t", b"z"
_AFTER_NUMBERS, _AFTER_STRINGS = b"o", b"t"
_SIGN = 1 << 63
_DOUBLE = struct.Struct(">d")
_REMAINDER_MAX = 2**31 - 1
"""Stands for "this or more"; no filter has such a value, so what is beyond is in order with all that a filter may have."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Encoded values from `low` inclusive to `high` exclusive; None: no upper end."""

    low: bytes
    high: bytes | None

    def __contains__(self, value: bytes) -> bool:
        return value >= self.low and (self.high is None or value < self.high)


EVERYTHING = Interval(b"", None)


def encode_scalar(value: str | float | bool | None) -> bytes:
    """A JSON scalar."""
    if isinstance(value, str):
        return encode_text(value)
    if value is None:
        return NULL
    if isinstance(value, bool):
        return TRUE if value else FALSE
    return _encode_number(value)


def encode_text(text: str) -> bytes:
    """A string; lone surrogates, which JSON can spell, keep their place in the order of code points."""
    return STRING + text.encode("utf-8", "surrogatepass")


def encode_bytes(data: bytes | None) -> bytes:
    """A key or header value; a header's may be null."""
    return NULL if data is None else STRING + data


def _encode_number(value: float) -> bytes:
    """The nearest double in an order-preserving form, then what an integer differs from it by: 1 == 1.0, 2**53 != 2**53 + 1."""
    double, remainder = _parts(value)
    (bits,) = struct.unpack(">Q", _DOUBLE.pack(double + 0.0))  # -0.0 + 0.0 == 0.0
    ordered = bits ^ (2**64 - 1) if bits & _SIGN else bits | _SIGN
    return NUMBER + struct.pack(">QI", ordered, remainder + 2**31)


def _parts(value: float) -> tuple[float, int]:
    try:
        double = float(value)
    except OverflowError:
        return (math.inf, _REMAINDER_MAX) if value > 0 else (-math.inf, -_REMAINDER_MAX)
    if isinstance(value, float):
        return double, 0
    return double, max(-_REMAINDER_MAX, min(_REMAINDER_MAX, value - int(double)))


def is_exact_number(value: float) -> bool:
    """Whether a filter can compare with this number: finite, and an integer beyond 84 bits only where a double can hold it."""
    double, remainder = _parts(value)
    return math.isfinite(double) and abs(remainder) < _REMAINDER_MAX


def equal_to(value: bytes) -> Interval:
    """The one encoded value."""
    return Interval(value, value + b"\0")


def starting_with(prefix: bytes) -> Interval:
    """Strings that begin with an encoded one."""
    stripped = prefix.rstrip(b"\xff")
    return Interval(prefix, stripped[:-1] + bytes([stripped[-1] + 1]))  # the tag is below 255, so something is left


def between(
    gte: bytes | None = None, gt: bytes | None = None, lt: bytes | None = None, lte: bytes | None = None
) -> Interval:
    """What all bounds allow, all encoded, all strings or all numbers, at least one; values of the other kind are never in a range."""
    kind = next(bound for bound in (gte, gt, lt, lte) if bound is not None)[:1]
    lows = [bound for bound in (kind, gte, None if gt is None else gt + b"\0") if bound is not None]
    end = _AFTER_NUMBERS if kind == NUMBER else _AFTER_STRINGS
    highs = [bound for bound in (end, lt, None if lte is None else lte + b"\0") if bound is not None]
    return Interval(max(lows), min(highs))
