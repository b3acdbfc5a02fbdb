"""JSON paths of filters: `$.name`, `$.name.other`, `$['any name']`; arrays are looked through, so they need no step. Pure."""

import re
from typing import NoReturn

from protocol.errors import ErrorCode, KafkaError
from vector.filter.record_fields import STEPS_MAX
from vector.filter.tree import KEY, header_column, path_column

# A quoted name is that of RFC 9535; escapes are the backslash's own and the quotes'.
_STEP = re.compile(
    r"""\.(?P<plain>[^\s.\[\]'"*$@,:()?]+)|\['(?P<single>(?:[^'\\]|\\.)*)'\]|\["(?P<double>(?:[^"\\]|\\.)*)"\]"""
)
_ARRAY_STEP = re.compile(r"\[(\d+|-\d+|\*)\]|\.\*")
_HEADER = "header:"
_ESCAPE = re.compile(r"\\(.)")


def parse_path(given: object, place: str) -> str:
    """The column of a path. Raises KafkaError naming `place`."""
    if not isinstance(given, str):
        _refuse(place, f"{given!r} is not a path such as $.level"[:200])
    if not given.startswith("$"):
        _refuse(place, f"{given[:100]!r} does not begin with $, as $.level does")
    steps: list[str] = []
    position = 1
    while position < len(given):
        found = _STEP.match(given, position)
        if found is None:
            if _ARRAY_STEP.match(given, position):
                _refuse(place, f"{given[:100]!r} selects in an array; leave that out, arrays are looked through")
            _refuse(place, f"{given[:100]!r} is not understood from character {position} on; write $.a.b or $['a b']")
        quoted = found["single"] if found["single"] is not None else found["double"]
        steps.append(found["plain"] if quoted is None else _ESCAPE.sub(r"\1", quoted))
        position = found.end()
    if not steps:
        _refuse(place, "$ is the whole value; name something in it, as $.level does")
    if len(steps) > STEPS_MAX:
        raise KafkaError(ErrorCode.POLICY_VIOLATION, f"{place}: {len(steps)} steps are above the limit of {STEPS_MAX}")
    return path_column(steps)


def parse_column(given: str, place: str) -> str:
    """`key`, `header:NAME` or a path, as a column's name. Raises KafkaError naming `place`."""
    if given == KEY:
        return KEY
    if given.startswith(_HEADER):
        return header_column(given.removeprefix(_HEADER))
    if not given.startswith("$"):
        _refuse(place, f"{given[:100]!r} is none of text, key, header:NAME and a path such as $.level")
    return parse_path(given, place)


def _refuse(place: str, reason: str) -> NoReturn:
    raise KafkaError(ErrorCode.INVALID_REQUEST, f"{place}: {reason}")
