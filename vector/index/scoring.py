"""Similarity, one meaning everywhere: higher is better (design/search-api.md). Pure.

A vector is scored from what its segment stores (fp16, or fp32 where the topic asks for it), never from sq8 codes, and the
sum is taken in float64 and rounded to float32: the same vector gets the same score in every kind of segment, in every batch.
"""

import numpy as np

from vector.arrays import Bool, Float32, Float64
from vector.index.settings import IndexSettings, Metric

NORM_MIN = 1e-12
RESCORE_ROWS_MAX = 4096
"""Rows scored at a time; bounds the float64 copies to 13 MB at 384 dimensions."""
FLOAT16_MAX = 65504.0


def storable(vectors: Float32, settings: IndexSettings) -> Bool:
    """Which rows of float32[n, d] an index can hold: bool[n]. False = poison: NaN, infinite, too large, or zero under cosine."""
    bound = (
        FLOAT16_MAX if settings.vector_dtype.itemsize == 2 and settings.metric != "cosine" else np.finfo(np.float32).max
    )
    good = np.asarray(np.abs(vectors).max(axis=1, initial=0.0) <= bound, dtype=np.bool_)  # NaN compares false
    if settings.metric == "cosine":
        with np.errstate(invalid="ignore", over="ignore"):
            good &= np.linalg.norm(vectors.astype(np.float64), axis=1) > NORM_MIN
    return good


def stored_form(vectors: Float32, settings: IndexSettings) -> Float32:
    """Rows as the index keeps them: unit length for cosine, rounded to the stored precision; float32[n, d]."""
    if settings.metric == "cosine":
        wide = vectors.astype(np.float64)
        vectors = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
    return vectors.astype(settings.vector_dtype).astype(np.float32)


def similarities(rows: Float32, vector: Float32, metric: Metric) -> Float32:
    """Similarity of each row of float32[n, d] to float32[d]: float32[n]; cosine in [-1, 1], dot raw, l2 as 1 / (1 + distance)."""
    result = np.empty(len(rows), dtype=np.float32)
    wide_vector = vector.astype(np.float64)
    for start in range(0, len(rows), RESCORE_ROWS_MAX):
        part: Float64 = rows[start : start + RESCORE_ROWS_MAX].astype(np.float64)
        if metric == "l2":
            part -= wide_vector
            score = 1.0 / (1.0 + np.sqrt(np.einsum("ij,ij->i", part, part)))
        else:
            score = np.einsum("ij,j->i", part, wide_vector)
            if metric == "cosine":
                score = np.clip(score, -1.0, 1.0)
        result[start : start + RESCORE_ROWS_MAX] = score
    return result


def as_rough_scores(similar: Float32, metric: Metric) -> Float64:
    """Of `similarities` what `rough_scores` are, float64[n]: dot, or minus the squared distance."""
    wide = similar.astype(np.float64)
    return -((1.0 / wide - 1.0) ** 2) if metric == "l2" else wide


def rough_scores(rows: Float32, vector: Float32, metric: Metric) -> Float32:
    """Scores that order like `similarities` up to rounding, in float32 by one matrix product: dot, or minus the squared distance."""
    product: Float32 = rows @ vector
    if metric == "l2":
        return np.asarray(2.0 * product - np.einsum("ij,ij->i", rows, rows) - float(vector @ vector), dtype=np.float32)
    return product


def rounding_margin(scores: Float32, vector: Float32, metric: Metric) -> float:
    """How far two equal vectors' float32 scores may lie apart, so that a cut keeps all ties: sums of d products, any order."""
    scale = float(np.abs(scores).max(initial=0.0))
    if metric == "l2":
        # ||x||^2 + ||q||^2 - 2xq cancels: the error is that of the terms, not of the small difference.
        scale += 4.0 * float(vector @ vector)
    elif metric == "dot":
        scale += float(np.abs(vector).max(initial=0.0))
    else:
        scale = 1.0
    return 1e-5 * scale
