"""What goes into one call of a model."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from vector.embed.hashing import HashingEmbedder
from vector.embed.port import Float32, Kind, estimated_tokens
from vector.embed.scheduler import EmbedScheduler
from vector.extract import content_hash


class SmallCalls(HashingEmbedder):
    """Remembers its calls."""

    texts_per_call = 5
    tokens_per_call = 40

    def __init__(self) -> None:
        super().__init__("hashing:16", 16)
        self.calls: list[list[str]] = []

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        self.calls.append(list(texts))
        return super().embed(texts, kind)


@settings(deadline=None)
@given(st.sets(st.text("abä ", min_size=1, max_size=60), min_size=1, max_size=40))
def test_calls_keep_to_their_limits_and_hold_texts_of_like_length(texts: set[str]) -> None:
    """Texts of one job come shortest first, so that a model that pads does so least; one text above the limit goes alone."""
    embedder = SmallCalls()

    async def embed() -> None:
        scheduler = EmbedScheduler(embedder)
        await scheduler.vectors({content_hash(text): text for text in texts})
        scheduler.close()

    asyncio.run(embed())
    for call in embedder.calls:
        assert len(call) <= 5
        assert len(call) == 1 or sum(map(estimated_tokens, call)) <= 40
    lengths = [len(text) for call in embedder.calls for text in call]
    assert lengths == sorted(lengths)
    assert sorted(text for call in embedder.calls for text in call) == sorted(texts)
