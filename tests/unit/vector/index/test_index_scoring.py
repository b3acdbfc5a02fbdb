"""Similarities, what can be stored, and what a query may be."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from protocol.errors import ErrorCode, KafkaError
from vector.index.query import IndexQuery, query_vector
from vector.index.scoring import rough_scores, rounding_margin, similarities, storable, stored_form
from vector.index.settings import IndexSettings

components = st.floats(-100, 100, width=32)
matrices = arrays(np.float32, (7, 5), elements=components)
vectors = arrays(np.float32, 5, elements=components)


@given(matrices, vectors)
def test_similarity_is_what_the_design_says(rows: np.ndarray, vector: np.ndarray) -> None:
    """cosine: dot of unit vectors in [-1, 1]; dot: raw; l2: 1 / (1 + distance)."""
    dots = [math.fsum(float(a) * float(b) for a, b in zip(row, vector, strict=True)) for row in rows]
    distances = [math.dist(row.tolist(), vector.tolist()) for row in rows]
    assert similarities(rows, vector, "dot") == pytest.approx(dots, rel=1e-6, abs=1e-6)
    assert similarities(rows, vector, "l2") == pytest.approx([1 / (1 + d) for d in distances], rel=1e-6)
    assert similarities(rows, vector, "cosine") == pytest.approx(
        [min(1.0, max(-1.0, d)) for d in dots], rel=1e-6, abs=1e-6
    )


@given(matrices, vectors, st.sampled_from(["cosine", "dot", "l2"]))
def test_rough_scores_order_like_similarities_up_to_the_margin(
    rows: np.ndarray, vector: np.ndarray, metric: str
) -> None:
    if metric == "cosine":
        rows, vector = rows / 1000, vector / 1000  # at most unit length
    rough = rough_scores(rows, vector, metric)
    fine = similarities(rows, vector, metric).astype(np.float64)
    margin = rounding_margin(rough, vector, metric)
    for a in range(len(rows)):
        for b in range(len(rows)):
            if rough[a] > rough[b] + 2 * margin:
                assert fine[a] >= fine[b]


def test_a_score_does_not_depend_on_the_batch_it_is_computed_in() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((5000, 48)).astype(np.float32)
    vector = random.standard_normal(48).astype(np.float32)
    together = similarities(rows, vector, "cosine")
    assert [float(similarities(rows[i : i + 1], vector, "cosine")[0]) for i in range(0, 5000, 97)] == together[
        ::97
    ].tolist()


def test_poison_is_told_from_vectors() -> None:
    rows = np.array([[1, 0], [np.nan, 1], [np.inf, 1], [0, 0], [1e30, 1]], dtype=np.float32)
    assert storable(rows, IndexSettings(2)).tolist() == [True, False, False, False, True]
    assert storable(rows, IndexSettings(2, metric="dot")).tolist() == [True, False, False, True, False]
    assert storable(rows, IndexSettings(2, metric="l2", storage="fp32")).tolist() == [True, False, False, True, True]


def test_cosine_rows_are_kept_at_unit_length_in_half_precision() -> None:
    rows = stored_form(np.array([[3, 4], [1e-20, 0]], dtype=np.float32), IndexSettings(2))
    assert rows.tolist() == [[float(np.float16(0.6)), float(np.float16(0.8))], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("vector", "word"),
    [([1, 2, 3], "3 dimensions"), ([[1, 2]], "1x2"), ([np.nan, 1], "NaN"), ([np.inf, 1], "infinite"), ([0, 0], "zero")],
)
def test_a_bad_query_vector_is_refused_by_name(vector: list[float], word: str) -> None:
    with pytest.raises(KafkaError, match=word) as caught:
        query_vector(IndexQuery(np.array(vector, dtype=np.float32)), IndexSettings(2))
    assert caught.value.code == ErrorCode.INVALID_REQUEST
