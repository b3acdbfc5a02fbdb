"""Which text a record has, and why it has none."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.record_batch import Record
from vector.extract import HASH_BYTES, content_hash, extract_text


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
