"""Scans against a plain look at every row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vector.index import columns as columns_module
from vector.index.columns import Columns, newest, newest_of_each
from vector.index.scan import nearest_rows
from vector.index.settings import Metric


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@given(
    metric=st.sampled_from(["cosine", "dot", "l2"]),
    values=st.lists(st.integers(-2, 2), min_size=0, max_size=60),
    masked=st.none()
    | st.lists(st.booleans(), min_size=60, max_size=60)
    | st.tuples(st.integers(0, 60), st.integers(0, 60)),
    wanted=st.integers(1, 30),
)
@settings(max_examples=150, deadline=None)
def test_the_nearest_rows_and_all_that_tie_are_found(
    dtype: type, metric: Metric, values: list[int], masked: object, wanted: int
) -> None:
    """Whatever the mask: scattered, a stretch of rows, or none; small whole numbers tie often."""
    random = np.random.default_rng(len(values))
    rows = random.integers(-2, 3, (len(values), 7)).astype(dtype)
    rows[:, 0] = values
    vector = random.integers(-2, 3, 7).astype(np.float32)
    mask = None
    if isinstance(masked, list):
        mask = np.array(masked[: len(values)], dtype=np.bool_)
    elif isinstance(masked, tuple):
        mask = np.zeros(len(values), dtype=np.bool_)
        mask[slice(*sorted(masked))] = True
    allowed = range(len(values)) if mask is None else np.flatnonzero(mask).tolist()
    wide = rows.astype(np.float64)
    exact = -((wide - vector) ** 2).sum(axis=1) if metric == "l2" else wide @ vector
    ranked = sorted((exact[row] for row in allowed), reverse=True)
    found = nearest_rows(rows, vector, metric, mask, wanted).tolist()
    assert len(set(found)) == len(found)
    assert set(found) <= set(allowed)
    if ranked:
        last = ranked[min(wanted, len(ranked)) - 1]
        assert set(found) >= {row for row in allowed if exact[row] >= last}


@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=8), count=st.integers(1, 6), seed=st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_the_newest_of_each_group_are_those_of_the_group_alone(sizes: list[int], count: int, seed: int) -> None:
    """Groups that are sorted together, and those that are looked through by themselves."""
    random = np.random.default_rng(seed)
    total = sum(sizes)
    columns = Columns(
        np.arange(total), random.integers(0, 4, total), np.zeros(total, dtype=np.uint8),
        np.zeros(total, dtype=np.int32), 1, 0, 4, chunked=False,
    )  # fmt: skip
    postings = random.permutation(total)
    places = np.repeat(np.arange(len(sizes)), sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns_module, "MANY_POSTINGS", 7)
        found_places, found = newest_of_each(columns, places, postings, count)
    for place in range(len(sizes)):
        expected = newest(columns, postings[places == place], count)
        assert sorted(found[found_places == place].tolist()) == sorted(expected.tolist())
