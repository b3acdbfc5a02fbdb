"""Which text a record has, and why it has none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.record_batch import Record
from vector.extract import HASH_BYTES, content_hash, extract_text, parse_field, vector_hash


def record(**fields: object) -> Record:
    return Record(**{"offset": 0, "timestamp_ms": 0, "key": None, "value": None, **fields})  # type: ignore[arg-type]


def test_each_field_is_read_from_its_place() -> None:
    full = record(key=b"k", value=b"v", headers=[("a", b"first"), ("b", b"other"), ("a", b"last")])
    assert extract_text(full, "value") == ("v", None)
    assert extract_text(full, "key") == ("k", None)
    assert extract_text(full, "header:a") == ("last", None)


def test_every_skip_has_its_reason() -> None:
    assert extract_text(record(), "value") == (None, "tombstone")
    assert extract_text(record(value=b"v"), "key") == (None, "no_key")
    assert extract_text(record(value=b"v"), "header:a") == (None, "no_header")
    assert extract_text(record(headers=[("a", None)]), "header:a") == (None, "no_header")
    assert extract_text(record(value=b" \n\t"), "value") == (None, "empty")
    assert extract_text(record(value=b"\xff\xfe"), "value") == (None, "not_text")
    assert extract_text(record(value=b"a\0b"), "value") == (None, "not_text")


@given(st.binary())
def test_any_bytes_are_a_text_or_have_a_reason(value: bytes) -> None:
    text, reason = extract_text(record(value=value), "value")
    assert (text is None) != (reason is None)
    if text is not None:
        assert text.encode() == value


@given(st.text(), st.text())
def test_a_hash_names_a_text(first: str, second: str) -> None:
    encodable = [text.encode("utf-8", "ignore").decode() for text in (first, second)]
    hashes = [content_hash(text) for text in encodable]
    assert all(len(content) == HASH_BYTES for content in hashes)
    assert (hashes[0] == hashes[1]) == (encodable[0] == encodable[1])


DOCUMENT = {
    "title": "Disk full",
    "body": "on /dev/sda1",
    "code": 507,
    "fatal": True,
    "nothing": None,
    "a.b": {"c d": "deep"},
    "events": [{"text": "one"}, {"text": "two"}, {"other": 1}],
    "tags": ["x", "y"],
}


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("$.title", "Disk full"),
        ("$['title']", "Disk full"),
        ("$[\"a.b\"]['c d']", "deep"),
        ("$.code", "507"),
        ("$.fatal", "true"),
        ("$.tags", '["x", "y"]'),
        ("$.tags[0]", "x"),
        ("$.tags[-1]", "y"),
        ("$.events.text", "one\ntwo"),
        ("$.events[1].text", "two"),
        ("{$.title}: {$.body}", "Disk full: on /dev/sda1"),
        ('"{$.title}: {$.body}"', "Disk full: on /dev/sda1"),
        ("{key} {$.code} {header:h} {$.missing}!", "k 507 v !"),
        ("{{{$.code}}}", "{507}"),
    ],
)
def test_paths_and_templates_find_their_text(field: str, text: str) -> None:
    full = record(key=b"k", value=json.dumps(DOCUMENT).encode(), headers=[("h", b"v")])
    assert extract_text(full, field) == (text, None)


@pytest.mark.parametrize(
    ("value", "field", "reason"),
    [
        (b"{}", "$.title", "no_path"),
        (b'{"title": null}', "$.title", "no_path"),
        (b'{"title": []}', "$.title.x", "no_path"),
        (b'{"title": " "}', "$.title", "empty"),
        (b'{"title": "a\\u0000b"}', "$.title", "not_text"),
        (b'{"title": "\\ud800"}', "$.title", "not_text"),
        (b"not json", "$.title", "not_json"),
        (b"\xff", "$.title", "not_json"),
        (b'{"title": NaN}', "$.title", "not_json"),
        (b"[" * 100_000, "$.title", "not_json"),
        (b'{"title": ' + b"1" * 5000 + b"}", "$.title", "not_json"),
        (None, "$.title", "tombstone"),
        (b"{}", "{$.title}: {$.body}", "no_path"),
        (b"plain", "{$.title}: {$.body}", "not_json"),
    ],
)
def test_json_without_a_text_is_skipped_with_its_reason(value: bytes | None, field: str, reason: str) -> None:
    assert extract_text(record(value=value), field) == (None, reason)


@pytest.mark.parametrize(
    "field",
    [
        "",
        "Value",
        "header:",
        "$.",
        "$..a",
        "$.*",
        "$[*]",
        "$[?(@.a)]",
        "$.a b",
        "{",
        "a}",
        "{}",
        "{x}",
        "{{a}}",
        "text",
    ],
)
def test_fields_that_mean_nothing_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=r"value must be|not understood|a single|no placeholder"):
        parse_field(field)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_any_json_is_a_text_or_has_a_reason(document: object) -> None:
    value = json.dumps({"x": document}).encode()
    for field in ("$.x", "$.x.y", "$.x[0]", "{$.x} {$.x.a}"):
        text, reason = extract_text(record(value=value), field)
        assert (text is None) != (reason is None)


def test_a_vector_never_has_the_name_of_a_text() -> None:
    assert vector_hash(b"abcd") != content_hash("abcd")
