"""What a graph is believed is what walks that look right find, however many look wrong."""

import faiss
import numpy as np

from vector.index.build import calibrate
from vector.index.segment import closeness
from vector.index.settings import IndexSettings

ROWS = 3_000
DIMENSIONS = 32


class LostWalks:
    """A graph whose answers are exact but for one query in `every`: that walk ended elsewhere, with the nearest row alone right."""

    def __init__(self, vectors: faiss.IndexFlat, every: int) -> None:
        self._vectors = vectors
        self._every = every

    def search(self, queries: np.ndarray, k: int, params: object) -> tuple[np.ndarray, np.ndarray]:
        scores, nodes = self._vectors.search(queries, ROWS)
        found_scores, found = scores[:, :k].copy(), nodes[:, :k].copy()
        lost = slice(0, None, self._every)
        found_scores[lost, 1:], found[lost, 1:] = scores[lost, -k + 1 :], nodes[lost, -k + 1 :]
        return found_scores, found


def clusters() -> faiss.IndexFlat:
    random = np.random.default_rng(1)
    centres = random.standard_normal((30, DIMENSIONS))
    rows = centres[np.arange(ROWS) % 30] + 0.4 * random.standard_normal((ROWS, DIMENSIONS))
    vectors = faiss.IndexFlat(DIMENSIONS, faiss.METRIC_INNER_PRODUCT)
    vectors.add((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    return vectors


def test_walks_that_ended_elsewhere_neither_widen_the_others_nor_count_as_a_worse_graph():
    """They are told by their tenth hit and asked again: the first width is believed for the rest, and recall is theirs. (Recall of all
    walks varied so much from sample to sample that graphs which had been added to were made anew.)"""
    vectors = clusters()
    settings = IndexSettings(dimensions=DIMENSIONS)
    trust, recall = calibrate(LostWalks(vectors, every=5), vectors, settings)
    assert recall == 1.0
    assert trust[0].levels[0] == (settings.ef_search, 10)


def test_where_too_many_walks_end_elsewhere_no_width_is_believed():
    """Half of them: each search would pay for a walk that is not believed."""
    vectors = clusters()
    assert calibrate(LostWalks(vectors, every=2), vectors, IndexSettings(dimensions=DIMENSIONS))[0] == ()


def test_a_query_between_two_rows_is_told_from_a_new_one_of_a_cluster():
    """By its nearest row it is not: that is about as close."""
    random = np.random.default_rng(2)
    centres = random.standard_normal((20, 256))

    def around(count: int) -> np.ndarray:
        rows = centres[np.arange(count) % 20] + 0.7 * random.standard_normal((count, 256))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    rows, new = around(1_000), around(100)
    vectors = faiss.IndexFlat(256, faiss.METRIC_INNER_PRODUCT)
    vectors.add(rows)
    between = rows[:100] + rows[101:201]
    between /= np.linalg.norm(between, axis=1, keepdims=True)
    of_new, of_between = (vectors.search(queries, 10)[0] for queries in (new, between))
    assert np.median(of_between[:, 0]) > np.percentile(of_new[:, 0], 5)
    assert closeness(of_between, between, "cosine").max() < closeness(of_new, new, "cosine").min()
