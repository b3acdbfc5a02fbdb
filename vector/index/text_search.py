"""Records that have the words of a text, best first by BM25 over all segments as if they were one."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vector.arrays import Float32, Int64
from vector.index.search import Found, Part, Rows, expand, ranked

if TYPE_CHECKING:
    from vector.index.lexical import Texts

TERMS_MAX = 1024
"""Distinct words of a query that are looked for, the first ones."""
NODES_ASKED_FOR_MAX = 2000
"""Up to so many matching nodes are named in the query; beyond, the best texts are fetched and those that match are kept."""


def terms_of(text: str) -> list[str]:
    """The distinct words of a query, as they stand in the index."""
    from vector.index.lexical import words_of

    return list(dict.fromkeys(words_of(text)))[:TERMS_MAX]


def counted_words(parts: Sequence[Part], terms: Sequence[str]) -> tuple[int, dict[str, int]]:
    """How many texts the parts' segments have, and in how many of them each word stands: what the weights of words come from."""
    from vector.index.lexical import word_counts

    return word_counts([texts for part in parts if (texts := part.view.texts()) is not None], terms)


def word_weights(count: int, frequencies: Mapping[str, int]) -> dict[str, float]:
    """Weights as `best_texts` takes them: of the words that stand in any of all texts, wherever these are."""
    from vector.index.lexical import weights_of

    return weights_of(count, frequencies)


def best_texts(parts: Sequence[Part], weights: Mapping[str, float], limit: int, *, collapse: bool) -> list[Found]:
    """The min(limit, matches) records with any of the words, in order; with `collapse` one for each text."""
    from vector.index.lexical import factors

    found: list[Rows] = []
    for part in parts if weights else ():
        texts = part.view.texts()
        if texts is not None and texts.count:
            found.append(_search_part(part, texts, factors(texts, weights), limit, collapse=collapse))
    return ranked(found, limit, collapse=collapse)


def _search_part(part: Part, texts: "Texts", terms: list[tuple[str, float]], limit: int, *, collapse: bool) -> Rows:
    # A chunk's content may be left only older records, when the newest is a hit by another chunk: then all of them are looked at.
    count = part.matching.nodes if collapse and part.view.columns.chunked else limit
    while True:
        scores, nodes = _best_nodes(part, texts, terms, count)
        found = expand(part, nodes, scores, limit, collapse=collapse)
        hits = len(np.unique(found.nodes)) if collapse else found.records
        if hits >= limit or len(nodes) < count:
            return found
        count *= 4  # chunks of the same few records filled the list


def _best_nodes(part: Part, texts: "Texts", terms: list[tuple[str, float]], count: int) -> tuple[Float32, Int64]:
    """The `count` best nodes that match, and all that tie with the last of them; fewer when there are no more."""
    matching, node_count = part.matching, part.view.columns.node_count
    if matching.mask is not None and matching.nodes <= NODES_ASKED_FOR_MAX:
        return texts.search(terms, matching.nodes, np.flatnonzero(matching.mask))
    fetch = count + 8
    while True:
        fetch = min(fetch, texts.count)
        scores, nodes = texts.search(terms, fetch)
        allowed = nodes < node_count  # texts of a growing segment that came after the view was taken
        if matching.mask is not None:
            allowed[allowed] = matching.mask[nodes[allowed]]
        last = scores[-1] if len(scores) else 0.0
        kept_scores, kept = scores[allowed], nodes[allowed]
        if len(nodes) < fetch or fetch == texts.count:
            return kept_scores, kept
        if len(kept) > count and kept_scores[count - 1] > last:
            tied = kept_scores >= kept_scores[count - 1]
            return kept_scores[tied], kept[tied]
        fetch *= 4
