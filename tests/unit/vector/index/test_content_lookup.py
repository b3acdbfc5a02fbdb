"""Nodes of contents by their hashes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vector.index.content_lookup import ContentLookup
from vector.index.settings import HASH_BYTES

ENDINGS = HASH_BYTES - 4
hashes_that_begin_alike = st.builds(
    lambda beginning, ending: beginning + ending,
    st.sampled_from([bytes(4), b"\0\0\0\1", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xff\xff\xff"]),
    st.sampled_from([bytes(ENDINGS), b"\xff" * ENDINGS]) | st.binary(min_size=ENDINGS, max_size=ENDINGS),
)


@given(
    known=st.lists(hashes_that_begin_alike, unique=True, max_size=100),
    others=st.lists(hashes_that_begin_alike, max_size=20),
)
@settings(max_examples=150, deadline=None)
def test_contents_are_found_by_their_hashes(known: list[bytes], others: list[bytes]) -> None:
    """Also those that begin as others do, those that end with zero bytes, of which numpy says nothing, and among none at all."""
    hashes = np.array(known, dtype=f"S{HASH_BYTES}")
    lookup = ContentLookup(hashes, np.argsort(hashes, kind="stable").astype(np.int32))
    expected = {content: node for node, content in enumerate(known)}
    wanted = [*others, *known]
    assert lookup.nodes_of(wanted).tolist() == [expected.get(content, -1) for content in wanted]


@pytest.mark.parametrize("wanted", [[], [bytes(HASH_BYTES)]])
def test_a_segment_without_contents_has_none(wanted: list[bytes]) -> None:
    """Compaction may take every record of a segment."""
    lookup = ContentLookup(np.empty(0, dtype=f"S{HASH_BYTES}"), np.empty(0, dtype=np.int32))
    assert lookup.nodes_of(wanted).tolist() == [-1] * len(wanted)
