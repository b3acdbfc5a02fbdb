"""The texts of a segment, searchable by words: BM25 by tantivy, whose only importer this is. One document for each distinct text.

Words are cut at what is neither letter nor digit, lower-cased, freed of accents and reduced to English stems, which leaves words of
other languages nearly as they are. Stop words stay: measured on SciFact they change nothing (nDCG@10 0.684 without, 0.685 with), and
log lines consist of them. tantivy's BM25 has k1 = 1.2, b = 0.75.
"""

import math
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tantivy

from vector.arrays import Float32, Int64
from vector.index.files import read_by

WRITER_BYTES = 15_000_000
"""What tantivy asks for at least, about; it is freed when the writing ends."""
_TOKENIZER, _TEXT, _NODE = "senselog", "text", "node"
_WORD_BYTES_MAX = 64
_LOCK_SUFFIX = ".lock"

WeightedTerms = Sequence[tuple[str, float]]


def _analyzer() -> tantivy.TextAnalyzer:
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple()).filter(
        tantivy.Filter.remove_long(_WORD_BYTES_MAX)
    )
    builder = builder.filter(tantivy.Filter.lowercase()).filter(tantivy.Filter.ascii_fold())
    return builder.filter(tantivy.Filter.stemmer("english")).build()


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field(_TEXT, stored=True, tokenizer_name=_TOKENIZER, index_option="freq")
    builder.add_unsigned_field(_NODE, fast=True, indexed=True)
    return builder.build()


_ANALYZER = _analyzer()
_SCHEMA = _schema()


def words_of(text: str) -> list[str]:
    """The words of a text as they stand in the index, in order."""
    return list(_ANALYZER.analyze(text))


class Texts:
    """What a search sees of a segment's texts; never changes."""

    def __init__(self, index: tantivy.Index) -> None:
        self._searcher = index.searcher()
        self.count: int = self._searcher.num_docs

    def frequency(self, term: str) -> int:
        """In how many texts a word stands."""
        return int(self._searcher.doc_freq(_TEXT, term))

    def inverse_frequency(self, term: str) -> float:
        """The weight that tantivy gives the word in this segment."""
        return inverse_frequency(self.frequency(term), self.count)

    def search(self, terms: WeightedTerms, count: int, nodes: Int64 | None = None) -> tuple[Float32, Int64]:
        """The `count` best texts with any of the words, among `nodes` if given: scores float32[n] falling, nodes int64[n].

        A term's factor multiplies the weight it has here.
        """
        should = tantivy.Occur.Should
        query = tantivy.Query.boolean_query(
            [(should, tantivy.Query.boost_query(_term(t), factor)) for t, factor in terms]
        )
        if nodes is not None:
            among = tantivy.Query.const_score_query(tantivy.Query.term_set_query(_SCHEMA, _NODE, nodes.tolist()), 0.0)
            query = tantivy.Query.boolean_query([(tantivy.Occur.Must, query), (tantivy.Occur.Must, among)])
        hits = self._searcher.search(query, max(1, count), count=False).hits
        found = self._searcher.fast_field_values(_NODE, [address for _, address in hits])
        return np.array([score for score, _ in hits], dtype=np.float32), np.asarray(found, dtype=np.int64)

    def by_node(self) -> Iterator[tuple[int, str]]:
        """Every text with its node."""
        hits = self._searcher.search(tantivy.Query.all_query(), max(1, self.count), count=False).hits
        nodes = self._searcher.fast_field_values(_NODE, [address for _, address in hits])
        for (_, address), node in zip(hits, nodes, strict=True):
            yield int(node or 0), str(self._searcher.doc(address).get_first(_TEXT))


def inverse_frequency(frequency: int, count: int) -> float:
    """BM25's weight of a word that stands in `frequency` of `count` texts."""
    return math.log1p((count - frequency + 0.5) / (frequency + 0.5))


def _term(term: str) -> tantivy.Query:
    return tantivy.Query.term_query(_SCHEMA, _TEXT, term, "freq")


class GrowingTexts:
    """The texts of a growing segment, in memory. Indexed when a search asks, so that topics nobody searches by words pay nothing."""

    def __init__(self) -> None:
        self._index = _opened(tantivy.Index(_SCHEMA))
        self._lock = threading.Lock()
        self._indexed = 0
        self._texts: Texts | None = None

    def texts(self, texts: Sequence[str | None]) -> Texts:
        """`texts` by node: at least those that were asked for before."""
        with self._lock:
            if self._texts is None or self._indexed < len(texts):
                new = enumerate(texts[self._indexed :], self._indexed)
                _write(self._index, ((node, text) for node, text in new if text is not None))
                self._indexed = len(texts)
                self._index.reload()
                self._texts = Texts(self._index)
            return self._texts


def write_texts(directory: Path, texts: Iterable[tuple[int, str]]) -> list[str]:
    """Makes the index of a sealed segment in `directory`, a new one; the names of its files, to be synced."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    _write(_opened(tantivy.Index(_SCHEMA, path=str(directory))), texts)
    return sorted(path.name for path in directory.iterdir() if path.suffix != _LOCK_SUFFIX)


def open_texts(directory: Path) -> Texts:
    """Memory-mapped. Verify the files first. Raises DamagedFile, OSError."""
    with read_by("tantivy", directory):
        return Texts(_opened(tantivy.Index.open(str(directory))))


def _opened(index: tantivy.Index) -> tantivy.Index:
    index.register_tokenizer(_TOKENIZER, _ANALYZER)
    return index


def _write(index: tantivy.Index, texts: Iterable[tuple[int, str]]) -> None:
    writer = index.writer(WRITER_BYTES, num_threads=1)
    for node, text in texts:
        document = tantivy.Document()
        document.add_text(_TEXT, text)
        document.add_unsigned(_NODE, node)
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()


def word_counts(parts: Sequence[Texts], terms: Iterable[str]) -> tuple[int, dict[str, int]]:
    """How many texts there are, and in how many of them each word stands."""
    return sum(part.count for part in parts), {term: sum(part.frequency(term) for part in parts) for term in terms}


def weights_of(count: int, frequencies: Mapping[str, int]) -> dict[str, float]:
    """BM25's weight of each word that stands in any text."""
    return {term: inverse_frequency(frequency, count) for term, frequency in frequencies.items() if frequency}


def factors(part: Texts, weights: Mapping[str, float]) -> list[tuple[str, float]]:
    """What to multiply a segment's weights with, so that a word weighs the same in all of them: as in one index of all texts."""
    return [(term, weight / part.inverse_frequency(term)) for term, weight in weights.items()]
