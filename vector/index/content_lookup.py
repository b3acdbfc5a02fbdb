"""Which node of a sealed segment has a content: by its hash."""

from collections.abc import Sequence

import numpy as np

from vector.arrays import Hashes, Int32, Int64, UInt32
from vector.index.settings import HASH_BYTES


class ContentLookup:
    """Content hashes of nodes and their order, as the columns file has them, and on the heap the first four bytes of each, in order.

    Four bytes tell all but one in ten thousand hashes from a million others: ten are found in 12 us. Looking into the mapped hashes at each
    step of a search took 60, and numpy's own search by a sorting order begins with an int64 copy of it.
    """

    def __init__(self, hashes: Hashes, order: Int32) -> None:
        """`hashes` S16[n] in node order, `order` int32[n] sorts them."""
        self._hashes = hashes
        self._order = order
        self._beginnings = _beginnings(hashes)[order]

    @property
    def nbytes(self) -> int:
        """What it keeps on the heap."""
        return self._beginnings.nbytes

    def nodes_of(self, wanted: Sequence[bytes]) -> Int64:
        """The node of each content, -1 where there is none: int64[len(wanted)]."""
        nodes = np.full(len(wanted), -1, dtype=np.int64)
        count = len(self._order)
        if not count:  # compaction has taken every record
            return nodes
        keys = np.array(wanted, dtype=self._hashes.dtype)
        beginnings = _beginnings(keys)
        places = self._beginnings.searchsorted(beginnings)
        alike = self._beginnings[np.minimum(places, count - 1)] == beginnings
        for number in alike.nonzero()[0].tolist():
            key, beginning, place = keys[number], beginnings[number], int(places[number])
            while place < count and self._beginnings[place] == beginning:
                node = self._order[place]
                if self._hashes[node] == key:
                    nodes[number] = node
                    break
                place += 1
        return nodes


def _beginnings(hashes: Hashes) -> UInt32:
    """Of each its first four bytes, as a number that sorts as they do: uint32[n]."""
    return hashes.view(">u4")[:: HASH_BYTES // 4].astype(np.uint32)
