"""Random records and filters, and what a filter means, said by looking at the record itself: the reference of the property tests."""

import json
from typing import Any

from hypothesis import strategies as st

from protocol.record_batch import Record

PARTITION = 1
NAMES = ("a", "b", "c.d", "e\\", "f")
TEXTS = ("", "x", "xy", "xyz", "xyzzy", "xyzzy!", "xyzzz", "ä", "n", "\ud800", "zz")
NUMBERS = (0, -0.0, 1, 1.0, -1, 0.1, 2**53, 2**53 + 1, -(2**63), 2**64 - 1, 1e300, 10**40)

scalars = st.one_of(st.sampled_from(TEXTS), st.sampled_from(NUMBERS), st.booleans(), st.none())
documents: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
data = st.one_of(st.sampled_from([b"", b"x", b"xyzzy", b"xyzzy!", b"\xff\xfe", b"\xff", b"xyz"]))
values = st.one_of(
    st.none(),
    documents.map(lambda document: json.dumps(document).encode()),
    st.dictionaries(st.sampled_from(NAMES), documents, max_size=4).map(lambda document: json.dumps(document).encode()),
    st.sampled_from(
        [b"plain text", b"\xff\xfe{", b"{", b'{"a": NaN}', b'{"a": 1} ', b'  [{"a": "x"}]', b'{"a": 1, "a": 2}', b"42"]
    ),
)
headers = st.lists(st.tuples(st.sampled_from(NAMES), st.none() | data), max_size=3)


@st.composite
def records(draw: st.DrawFn, offset: int) -> Record:
    return Record(offset, draw(st.integers(1000, 1010)), draw(st.none() | data), draw(values), draw(headers))


@st.composite
def logs(draw: st.DrawFn) -> tuple[Record, ...]:
    return tuple(draw(records(offset)) for offset in range(draw(st.integers(0, 25))))


# Filters

words = st.one_of(st.sampled_from([text for text in TEXTS if text != "\ud800"]), st.just({"base64": "//4="}))
exact_numbers = st.sampled_from([number for number in NUMBERS if number != 10**40])
json_values = st.one_of(st.sampled_from(TEXTS), exact_numbers, st.booleans(), st.none())
bounds = st.sampled_from(["gte", "gt", "lt", "lte"])
ranges = st.one_of(
    st.dictionaries(bounds, st.sampled_from(TEXTS), min_size=1),
    st.dictionaries(bounds, exact_numbers, min_size=1),
)
byte_tests = st.one_of(
    st.fixed_dictionaries({"eq": words}),
    st.fixed_dictionaries({"any": st.lists(words, max_size=3)}),
    st.fixed_dictionaries({"prefix": words}),
)
path_tests = st.one_of(
    st.fixed_dictionaries({"eq": json_values}),
    st.fixed_dictionaries({"any": st.lists(json_values, max_size=3)}),
    st.fixed_dictionaries({"prefix": st.sampled_from(TEXTS)}),
    st.fixed_dictionaries({"range": ranges}),
    st.fixed_dictionaries({"exists": st.booleans()}),
)
steps = st.lists(st.sampled_from((*NAMES, "nowhere")), min_size=1, max_size=3)
paths = steps.map(lambda names: "$" + "".join(f"[{json.dumps(name)}]" for name in names))
offset_bounds = st.dictionaries(bounds, st.integers(0, 40), min_size=1)
time_bounds = st.dictionaries(bounds, st.integers(999, 1011), min_size=1)


@st.composite
def leaves(draw: st.DrawFn) -> dict[str, Any]:
    match draw(st.integers(0, 7)):
        case 0 | 1 | 2:
            return {"path": draw(paths), **draw(path_tests)}
        case 3:
            name = draw(st.sampled_from((*NAMES, "nowhere")))
            return {
                "header": name,
                **draw(byte_tests | st.fixed_dictionaries({"exists": st.booleans()}) | st.just({"eq": None})),
            }
        case 4:
            return {"key": draw(byte_tests)}
        case 5:
            return {
                "offset": draw(offset_bounds),
                "min_offset": draw(st.integers(0, 9)),
                "max_offset": draw(st.integers(5, 40)),
            }
        case 6:
            return {"timestamp": draw(time_bounds)}
        case _:
            own = draw(st.dictionaries(st.sampled_from(["0", "1"]), offset_bounds, max_size=2))
            return {"partitions": draw(st.sampled_from([[0], [1], [0, 1], [1, 2]])), "offsets": own}


@st.composite
def filters(draw: st.DrawFn, depth: int = 0) -> dict[str, Any]:
    """A filter object, groups nested up to three deep."""
    inner = leaves() if depth == 2 else leaves() | filters(depth + 1)
    given: dict[str, Any] = {}
    for name in draw(st.sets(st.sampled_from(["must", "must_not", "should", "key"]), min_size=1, max_size=2)):
        given[name] = draw(byte_tests) if name == "key" else draw(st.lists(inner, min_size=1, max_size=3))
    if "should" in given and draw(st.booleans()):
        given["min_should"] = draw(st.integers(0, len(given["should"])))
    return given


# Meaning


def meets(given: dict[str, Any], record: Record) -> bool:
    """Whether a condition holds for a record of PARTITION."""
    if "path" in given:
        found = _at(record.value, json.loads("[" + given["path"][2:-1].replace("][", ",") + "]"))
        return _tested(given, found, [one for one in found if not isinstance(one, dict | list)])
    if "header" in given:
        having = [value for name, value in record.headers if name == given["header"]]
        return _tested(given, having, having)
    checks = [_lies(given, record)]
    if "key" in given:
        checks.append(record.key is not None and _tested(given["key"], [record.key], [record.key]))
    checks += [meets(one, record) for one in given.get("must", [])]
    checks += [not meets(one, record) for one in given.get("must_not", [])]
    if "should" in given:
        checks.append(sum(meets(one, record) for one in given["should"]) >= given.get("min_should", 1))
    return all(checks)


def _lies(given: dict[str, Any], record: Record) -> bool:
    own = given.get("offsets", {}).get(str(PARTITION), {})
    return (
        PARTITION in given.get("partitions", [PARTITION])
        and given.get("min_offset", 0) <= record.offset <= given.get("max_offset", record.offset)
        and _inside(record.offset, given.get("offset", {}))
        and _inside(record.offset, own)
        and _inside(record.timestamp_ms, given.get("timestamp", {}))
    )


def _inside(value: Any, limits: dict[str, Any]) -> bool:
    return (
        ("gte" not in limits or value >= limits["gte"])
        and ("gt" not in limits or value > limits["gt"])
        and ("lt" not in limits or value < limits["lt"])
        and ("lte" not in limits or value <= limits["lte"])
    )


def _at(value: bytes | None, names: list[str]) -> list[Any]:
    """Everything at a path, arrays looked through."""
    try:
        document = json.loads((value or b"").decode(), parse_constant=lambda _: 1 // 0)
    except (ValueError, ZeroDivisionError):
        return []
    if not isinstance(document, dict | list):
        return []
    places = [document]
    for name in names:
        places = [place[name] for place in _elements(places) if isinstance(place, dict) and name in place]
    return [*places, *(one for one in _elements(places) if not isinstance(one, list))]


def _elements(places: list[Any]) -> list[Any]:
    flat = []
    for place in places:
        flat += _elements(place) if isinstance(place, list) else [place]
    return flat


def _tested(given: dict[str, Any], having: list[Any], scalar: list[Any]) -> bool:
    if "exists" in given:
        return bool(having) == given["exists"]
    return any(_holds(given, value) for value in scalar)


def _holds(given: dict[str, Any], value: Any) -> bool:
    if "eq" in given:
        return _same(given["eq"], value)
    if "any" in given:
        return any(_same(one, value) for one in given["any"])
    if "prefix" in given:
        wanted = given["prefix"]
        if isinstance(value, bytes):
            return value.startswith(_bytes(wanted))
        return isinstance(value, str) and isinstance(wanted, str) and value.startswith(wanted)
    limits = given["range"]
    text = isinstance(next(iter(limits.values())), str)
    right = isinstance(value, str) if text else isinstance(value, int | float) and not isinstance(value, bool)
    return right and _inside(value, limits)


def _same(wanted: Any, value: Any) -> bool:
    if isinstance(value, bytes):
        return wanted is not None and value == _bytes(wanted)
    if isinstance(wanted, bool) or isinstance(value, bool) or wanted is None or value is None:
        return wanted is value
    return isinstance(wanted, str) == isinstance(value, str) and bool(wanted == value)


def _bytes(wanted: Any) -> bytes:
    return b"\xff\xfe" if isinstance(wanted, dict) else wanted.encode("utf-8", "surrogatepass")
