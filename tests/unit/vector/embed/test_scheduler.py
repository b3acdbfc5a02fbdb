"""What goes into one call of a model."""

import asyncio
import threading
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from vector.arrays import Float32
from vector.embed.hashing import HashingEmbedder
from vector.embed.port import Kind, PausedError, PoisonError, Refusal, estimated_tokens
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


class Keyless(HashingEmbedder):
    """Without a key until it has one."""

    def __init__(self) -> None:
        super().__init__("hashing:16", 16)
        self.key = False

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        if not self.key:
            raise PausedError("no key")
        return super().embed(texts, kind)


async def test_calls_that_wait_out_a_pause_go_on_when_a_person_says_so() -> None:
    """They slept through it: `senselog vector resume` had no effect for half a minute."""
    embedder = Keyless()
    scheduler = EmbedScheduler(embedder)
    waiting = asyncio.create_task(scheduler.vectors({content_hash("text"): "text"}))
    async with asyncio.timeout(20):
        while not scheduler.circuit.paused:
            await asyncio.sleep(0.001)
        embedder.key = True
        await asyncio.sleep(0.01)  # the call sleeps now
        scheduler.circuit.retry_now()
        await waiting
    scheduler.close()


class Picky(SmallCalls):
    """Refuses one text."""

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        vectors = super().embed(texts, kind)
        if "poison" in texts:
            raise PoisonError("refused")
        return vectors


async def test_a_refused_text_that_comes_again_costs_no_call() -> None:
    """Unless it is tried again on purpose, as a rebuild does."""
    embedder = Picky()
    scheduler = EmbedScheduler(embedder)
    poison = {content_hash("poison"): "poison"}
    assert isinstance((await scheduler.vectors(poison))[content_hash("poison")], Refusal)
    calls = len(embedder.calls)
    assert isinstance((await scheduler.vectors(poison))[content_hash("poison")], Refusal)
    assert len(embedder.calls) == calls
    await scheduler.vectors(poison, background=True)
    assert len(embedder.calls) > calls
    scheduler.close()


class Together(SmallCalls):
    """A call returns when as many are under way as there may be, and remembers when there are more."""

    calls_at_once = 3

    def __init__(self) -> None:
        super().__init__()
        self.meeting = threading.Barrier(self.calls_at_once, timeout=20)
        self.under_way = 0
        self.most = 0

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.meeting.wait()
        self.under_way -= 1
        return super().embed(texts, kind)


async def test_calls_run_beside_one_another_up_to_the_limit() -> None:
    """Chronik sent batch after batch, and embedded a fifth of what arrived."""
    embedder = Together()
    scheduler = EmbedScheduler(embedder)
    texts = [f"text {number}" for number in range(30)]
    vectors = await scheduler.vectors({content_hash(text): text for text in texts})
    assert len(vectors) == 30
    assert embedder.most == embedder.calls_at_once
    scheduler.close()


class OfTwoKinds(HashingEmbedder):
    """Queries and passages have different vectors; counts what it is asked."""

    symmetric = False

    def __init__(self) -> None:
        super().__init__("hashing:16", 16)
        self.asked: list[tuple[Kind, list[str]]] = []

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        self.asked.append((kind, list(texts)))
        return super().embed([f"{kind} {text}" for text in texts], kind)


async def test_a_query_that_comes_again_is_not_embedded_again() -> None:
    """As a query, that is: what the same text is as a passage is another vector. What is kept is bounded."""
    embedder = OfTwoKinds()
    scheduler = EmbedScheduler(embedder)

    async def ask(*texts: str) -> list[Float32]:
        return await scheduler.query(texts, [content_hash(text) for text in texts])

    await scheduler.vectors({content_hash("a"): "a"})
    first = await ask("a", "b")
    again = await ask("b", "c", "a")
    assert embedder.asked == [("passage", ["a"]), ("query", ["a", "b"]), ("query", ["c"])]
    assert (again[2] == first[0]).all()
    assert (again[0] == first[1]).all()
    assert all(vector.base is None for vector in (*first, again[1]))  # else a batch stays as long as one of it
    assert scheduler.counters.cache_hits == 2
    scheduler.close()


class Exact(HashingEmbedder):
    """Knows capital letters and outer blanks."""

    def embed(self, texts: Sequence[str], kind: Kind) -> Float32:
        return super().embed([text.encode().hex() for text in texts], kind)


async def test_a_query_is_embedded_as_it_was_asked_also_the_second_time() -> None:
    """Chronik kept a query's vector under its lower-case text and looked for it under the text: nothing new was ever found."""
    embedder = Exact("hashing:16", 16)
    scheduler = EmbedScheduler(embedder)
    texts = ["OOM kill", "oom kill", " OOM kill ", "OOM kill"]
    await scheduler.vectors({content_hash(text): text for text in texts[:2]})
    for _ in range(2):
        vectors = await scheduler.query(texts, [content_hash(text) for text in texts])
        for text, vector in zip(texts, vectors, strict=True):
            assert (vector == embedder.embed([text], "query")[0]).all(), text
    scheduler.close()
