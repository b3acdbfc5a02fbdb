"""Encoded values keep the order of what they stand for, and columns never claim to know what they have cut off."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vector.filter.values import Interval, between, encode_scalar, equal_to, is_exact_number, starting_with
from vector.index import fields
from vector.index.fields import Column, Fields, Values, cut

numbers = st.one_of(
    st.integers(-(2**84), 2**84), st.floats(allow_nan=False), st.integers(-3, 3), st.integers(2**53 - 3, 2**53 + 3)
)


@given(numbers, numbers)
def test_numbers_keep_their_order(one: float, other: float) -> None:
    assert (encode_scalar(one) < encode_scalar(other)) == (one < other)
    assert (encode_scalar(one) == encode_scalar(other)) == (one == other)


@given(st.integers().filter(lambda number: abs(number) > 2**84) | st.just(10**400), numbers.filter(is_exact_number))
def test_a_number_beyond_84_bits_is_in_order_with_all_a_filter_may_have(huge: int, wanted: float) -> None:
    if huge != wanted:
        assert (encode_scalar(huge) < encode_scalar(wanted)) == (huge < wanted)


@given(st.text(), st.text())
def test_strings_keep_the_order_of_code_points(one: str, other: str) -> None:
    assert (encode_scalar(one) < encode_scalar(other)) == (one < other)
    assert (encode_scalar(one) in starting_with(encode_scalar(other))) == one.startswith(other)


short = st.text("ab\xff", max_size=7).map(encode_scalar)
intervals = st.one_of(
    short.map(equal_to),
    short.map(starting_with),
    st.tuples(short, short).map(lambda pair: between(gte=pair[0], lt=pair[1])),
    st.tuples(short, short).map(lambda pair: between(gt=pair[0], lte=pair[1])),
)


@given(st.sets(short), intervals)
def test_what_was_cut_is_unknown_only_where_it_matters(whole: set[bytes], interval: Interval) -> None:
    """Every value is told right, or said to be unknown; and a value that was not cut is never unknown."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fields, "VALUE_BYTES_MAX", 4)
        kept = sorted({cut(value) for value in whole})
        column = Column(Values.of(kept), np.zeros(0, np.int32), np.zeros(0, np.int32))
        first, end, unknown = column.codes_in(interval)
        for value in whole:
            code = kept.index(cut(value))
            if code in unknown:
                assert len(value) > 4
            else:
                assert (first <= code < end) == (value in interval)


@given(st.lists(st.dictionaries(st.sampled_from(["key", "h:\ud800", "p:.a"]), st.lists(short, max_size=3)), max_size=8))
def test_fields_are_read_back_as_they_were(records: list[Any]) -> None:
    before = fields.fields_of([fields.RecordFields(values) for values in records])
    after: Fields = fields.decode(fields.encode(before))
    assert (after.count, list(after.columns)) == (before.count, list(before.columns))
    for name, column in before.columns.items():
        assert list(after.columns[name].values) == list(column.values)
        assert np.array_equal(after.columns[name].records, column.records)
        assert np.array_equal(after.columns[name].codes, column.codes)
    assert list(fields.check(after)) == []
