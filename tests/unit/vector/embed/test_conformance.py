"""What every provider must do, and what every server's faults must mean: one suite for all of them."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.unit.vector.embed.embedding_server import DIMENSIONS, KEY, Asked, EmbeddingServer, Fault, running, vector_of
from vector.embed import circuit as circuits
from vector.embed import scheduler as scheduling
from vector.embed.endpoint import HttpEndpoint
from vector.embed.local import MODEL_FILE, local_model_path, model_directory
from vector.embed.port import Embedder, EmbedSettings, PausedError, Refusal, TransientError, estimated_tokens
from vector.embed.registry import open_embedder
from vector.embed.scheduler import EmbedScheduler
from vector.extract import content_hash

FORMATS = ("tei", "ollama", "cohere", "voyage", "texts")
SERVERS = ("openai:m", *(f"http:{name}" for name in FORMATS))
MODEL = "all-MiniLM-L6-v2"
TIMEOUT_MS = 1500

Open = Callable[..., Embedder]


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with running() as one:
        yield one


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    return path


@pytest.fixture
def open_model(server: EmbeddingServer, key_file: Path) -> Iterator[Open]:
    """Opens a model by name; settings of its endpoint as keywords."""
    opened: list[Embedder] = []

    def opening(name: str, dimensions: int = 0, **settings: object) -> Embedder:
        endpoints: Mapping[str, HttpEndpoint] = {
            kind: HttpEndpoint(
                kind,  # type: ignore[arg-type]
                server.url,
                **{"model": "m", "api_key_file": str(key_file), "timeout_ms": TIMEOUT_MS, **settings},  # type: ignore[arg-type]
            )
            for kind in FORMATS
        }
        embedder = open_embedder(
            name,
            dimensions,
            EmbedSettings(
                str(model_directory()),
                1,
                openai_base_url=f"{server.url}/v1",
                openai_key=KEY,
                timeout_s=TIMEOUT_MS / 1000,
                endpoints=endpoints,
            ),
        )
        opened.append(embedder)
        server.asked.clear()
        return embedder

    yield opening
    for embedder in opened:
        embedder.close()


@pytest.fixture(params=[*SERVERS, f"local:{MODEL}", "hashing:16"])
def any_model(request: pytest.FixtureRequest, open_model: Open) -> Embedder:
    name = request.param
    if name.startswith("local:") and not (local_model_path(MODEL, model_directory()) / MODEL_FILE).is_file():
        pytest.skip("no local model: senselog models export")
    return open_model(name)


@pytest.fixture(params=SERVERS)
def remote(request: pytest.FixtureRequest, open_model: Open) -> Embedder:
    return open_model(request.param)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuits, "BACKOFF_MIN_S", 0.001)
    monkeypatch.setattr(circuits, "BACKOFF_MAX_S", 0.01)
    monkeypatch.setattr(circuits, "PAUSE_RETRY_S", 0.01)
    monkeypatch.setattr(scheduling, "PROBE_POLL_S", 0.001)


# Every provider


def test_vectors_come_in_the_order_of_the_texts(any_model: Embedder) -> None:
    texts = [f"{'word ' * (number % 5)}{number}" for number in range(min(any_model.texts_per_call, 20))]
    together = any_model.embed(texts, "passage")
    assert together.dtype == np.float32
    assert together.shape == (len(texts), any_model.dimensions)
    assert np.isfinite(together).all()
    unit = together / np.linalg.norm(together, axis=1, keepdims=True)
    for number, text in enumerate(texts):
        alone = any_model.embed([text], "passage")[0]
        similarities = unit @ (alone / np.linalg.norm(alone))
        # int8: activations are scaled by the largest of the batch, so equal only nearly.
        assert similarities[number] == pytest.approx(similarities.max(), abs=1e-6)
        assert similarities[number] > 0.9


def test_it_may_be_called_from_several_threads(any_model: Embedder) -> None:
    any_model.prepare("passage")
    any_model.prepare("query")
    texts = [f"text {number}" for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda text: any_model.embed([text], "query")[0], texts))
    assert len({row.tobytes() for row in rows}) == len(texts)


def test_it_says_what_it_is(any_model: Embedder) -> None:
    for name in ("name", "provider", "revision"):
        assert isinstance(getattr(any_model, name), str)
    for name in ("dimensions", "max_tokens", "texts_per_call", "tokens_per_call", "calls_at_once"):
        assert getattr(any_model, name) >= 1


def test_tokens_are_those_that_the_model_counts(any_model: Embedder) -> None:
    """Queries and whatever else is paid for included; a server that does not tell, and a plain function, count none."""
    before = any_model.tokens.count
    any_model.embed(["three plain words", "two more"], "passage")
    any_model.embed(["a question"], "query")
    if any_model.name in ("http:texts", "hashing:16"):
        assert (before, any_model.tokens.count) == (None, None)
    else:
        specials = 6 if any_model.name.startswith("local:") else 0  # [CLS] and [SEP] of each text
        assert (any_model.tokens.count or 0) - (before or 0) == 7 + specials


async def test_status_says_whether_tokens_are_estimated(open_model: Open) -> None:
    for name, estimated in (("hashing:16", True), ("http:voyage", False)):
        scheduler = EmbedScheduler(open_model(name))
        await scheduler.vectors({content_hash("some words"): "some words"})
        told = scheduler.status()
        assert told["tokens_estimated"] is estimated
        assert told["tokens"] == (estimated_tokens("some words") if estimated else scheduler.embedder.tokens.count)
        scheduler.close()


def test_long_texts_are_split_into_what_it_reads(any_model: Embedder) -> None:
    long = " ".join(f"w{number}" for number in range(60_000))
    pieces, complete = any_model.split(long, 2)
    assert len(pieces) == 2
    assert not complete
    assert any_model.split(pieces[0], 2) == ([pieces[0]], True)
    assert any_model.split("short", 1) == (["short"], True)


# Servers


@pytest.mark.parametrize("status", [408, 409, 424, 425, 429, 500, 502, 503, 504, 529])
def test_overload_is_to_be_waited_out(remote: Embedder, server: EmbeddingServer, status: int) -> None:
    server.script = lambda _: Fault(status, headers={"Retry-After": "7"})
    with pytest.raises(TransientError, match="the reason") as caught:
        remote.embed(["a"], "passage")
    assert caught.value.retry_after_s == 7
    assert len(server.asked) == 1, "who retries is the scheduler, which knows the shared cooldown"


@pytest.mark.parametrize(
    "fault", [Fault(401), Fault(402), Fault(403), Fault(404), Fault(429, code="insufficient_quota")]
)
def test_keys_and_quotas_need_a_person(remote: Embedder, server: EmbeddingServer, fault: Fault) -> None:
    server.script = lambda _: fault
    with pytest.raises(PausedError, match="the reason"):
        remote.embed(["a"], "passage")


def test_a_key_is_sent_and_never_said(remote: Embedder, server: EmbeddingServer) -> None:
    server.script = lambda asked: Fault(401, message=f"bad key {KEY} in {asked.authorization}")
    with pytest.raises(PausedError) as caught:
        remote.embed(["a"], "passage")
    assert server.asked[0].authorization == f"Bearer {KEY}"
    assert KEY not in str(caught.value)
    assert KEY not in repr(remote.__dict__.get("_endpoint"))


@pytest.mark.parametrize(
    "fault",
    [
        Fault(raw=b"<html>down for maintenance</html>"),
        Fault(raw=b"[]"),
        Fault(raw=b"{}"),
        Fault(raw=b"null"),
        Fault(raw=b""),
        Fault(raw=b"[" * 100_000),
        Fault(502, raw=b"<html>bad gateway</html>"),
        Fault(cut=True),
        Fault(delay_s=2 * TIMEOUT_MS / 1000),
        Fault(vectors=lambda texts: [vector_of(text) for text in texts[:-1]]),
        Fault(vectors=lambda texts: [vector_of(text) for text in [*texts, "more"]]),
        Fault(vectors=lambda texts: []),
    ],
    ids=["html", "list", "object", "null", "nothing", "deep", "gateway", "cut", "slow", "fewer", "more", "none"],
)
def test_what_is_no_answer_is_tried_again(remote: Embedder, server: EmbeddingServer, fault: Fault) -> None:
    server.script = lambda _: fault
    with pytest.raises(TransientError):
        remote.embed(["a", "b"], "passage")


@pytest.mark.parametrize("name", [f"http:{kind}" for kind in FORMATS])
def test_an_answer_that_drips_does_not_hold_a_call_for_ever(
    open_model: Open, server: EmbeddingServer, name: str
) -> None:
    """Each byte came within the time-out of a read, the answer never."""
    remote = open_model(name)
    server.script = lambda _: Fault(drip_s=TIMEOUT_MS / 1000 / 10)
    with pytest.raises(TransientError, match="in time"):
        remote.embed(["a"], "passage")


def test_nobody_listening_is_to_be_waited_out(remote: Embedder, server: EmbeddingServer) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(TransientError):
        remote.embed(["a"], "passage")


def test_other_dimensions_need_a_person(remote: Embedder, server: EmbeddingServer) -> None:
    """Vectors of another model in the same index, or an error for each record (Chronik): nothing must be indexed."""
    server.script = lambda _: Fault(vectors=lambda texts: [[1.0, 2.0] for _ in texts])
    with pytest.raises(PausedError, match="expected"):
        remote.embed(["a"], "passage")


async def embed(remote: Embedder, texts: list[str]) -> dict[str, object]:
    """Through the scheduler, as the indexer does it."""
    scheduler = EmbedScheduler(remote)
    async with asyncio.timeout(20):
        found = await scheduler.vectors({content_hash(text): text for text in texts})
    scheduler.close()
    return {text: found[content_hash(text)] for text in texts}


def refuses(*words: str) -> Callable[[Asked], Fault | None]:
    return lambda asked: Fault(400) if any(word in text for word in words for text in asked.texts) else None


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_of_a_batch_only_the_poison_fails(remote: Embedder, server: EmbeddingServer, status: int) -> None:
    """One over-long record made OpenAI reject a batch of 256, which was dropped for good (Chronik)."""
    server.script = lambda asked: Fault(status) if any("poison" in text for text in asked.texts) else None
    texts = [*(f"text {number}" for number in range(20)), "poison one", "poison two"]
    found = await embed(remote, texts)
    assert {text for text, one in found.items() if isinstance(one, Refusal)} == {"poison one", "poison two"}
    assert "the reason" in found["poison one"].reason  # type: ignore[attr-defined]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
async def test_vectors_that_mean_nothing_are_refusals_of_their_text(
    remote: Embedder, server: EmbeddingServer, bad: float
) -> None:
    """Zero vectors rank first (spiceai 11621); NaN makes searches fail (qdrant 2530)."""

    def vectors(texts: list[str]) -> list[list[float]]:
        return [[bad] * DIMENSIONS if text == "odd" else vector_of(text) for text in texts]

    server.script = lambda _: Fault(vectors=vectors)
    found = await embed(remote, ["one", "odd", "two"])
    assert [text for text, one in found.items() if isinstance(one, Refusal)] == ["odd"]


async def test_a_server_that_refuses_everything_fails_no_record(remote: Embedder, server: EmbeddingServer) -> None:
    """A wrong setting is answered 400 as well: not a record must be given up for it."""
    server.script = refuses("")
    scheduler = EmbedScheduler(remote)
    waiting = asyncio.create_task(scheduler.vectors({content_hash("text"): "text"}))
    async with asyncio.timeout(20):
        while not scheduler.circuit.paused:
            await asyncio.sleep(0.001)
    assert "every text is refused" in (scheduler.trouble or "")
    server.script = lambda _: None
    async with asyncio.timeout(20):
        found = await waiting
    assert not isinstance(found[content_hash("text")], Refusal)
    assert scheduler.counters.poisoned == 0
    scheduler.close()


async def test_it_goes_on_by_itself_once_the_server_does(remote: Embedder, server: EmbeddingServer) -> None:
    """Embedding stopped at a 429 until the worker was restarted (PostHog 102637)."""
    faults = [
        Fault(429, headers={"Retry-After": "0.01"}),
        Fault(503),
        Fault(cut=True),
        Fault(401),
        Fault(raw=b"<html>"),
    ]
    server.script = lambda _: faults.pop() if faults else None
    found = await embed(remote, [f"text {number}" for number in range(10)])
    assert not any(isinstance(one, Refusal) for one in found.values())
    assert not faults


async def test_calls_keep_to_the_servers_limits(remote: Embedder, server: EmbeddingServer) -> None:
    """2,048 texts of more than 146 tokens are above 300,000 tokens: the whole batch was refused (elasticsearch 135015)."""
    remote.texts_per_call, remote.tokens_per_call = 7, 60
    await embed(remote, [f"{'x' * (number * 3)} {number}" for number in range(30)])
    assert len(server.asked) > 5
    for asked in server.asked:
        assert len(asked.texts) <= 7
        assert len(asked.texts) == 1 or sum(len(text) // 2 + 1 for text in asked.texts) <= 60


# Servers of the broker's configuration

HTTP = pytest.mark.parametrize("name", [f"http:{kind}" for kind in FORMATS])


@HTTP
def test_queries_and_passages_get_their_prompts(open_model: Open, server: EmbeddingServer, name: str) -> None:
    remote = open_model(name, query_prefix="query: ", passage_prefix="passage: ")
    assert not remote.symmetric
    remote.embed(["a"], "query")
    remote.embed(["a"], "passage")
    assert [asked.texts for asked in server.asked] == [["query: a"], ["passage: a"]]
    if name in ("http:cohere", "http:voyage"):
        kinds = [asked.body["input_type"] for asked in server.asked]
        assert kinds in (["search_query", "search_document"], ["query", "document"])
    assert remote.revision != open_model(name).revision, "prompts decide the vectors"


@HTTP
def test_no_server_may_cut_a_text_by_itself(open_model: Open, server: EmbeddingServer, name: str) -> None:
    """text-embeddings-inference and Ollama cut by default and say nothing of it."""
    remote = open_model(name)
    remote.embed(["a"], "passage")
    body = server.asked[0].body
    if name != "http:texts":
        assert {body.get("truncate"), body.get("truncation")} & {False, "NONE"}


@HTTP
def test_fewer_dimensions_are_asked_of_the_server_or_made_here(
    open_model: Open, server: EmbeddingServer, name: str
) -> None:
    made_here = open_model(name, 2, matryoshka=True)
    row = made_here.embed(["text"], "passage")[0]
    expected = np.array(vector_of("text")[:2])
    assert row == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)
    if name == "http:texts":
        with pytest.raises(PausedError, match=r"vector\.dimensions 2"):
            open_model(name, 2)
        return
    asked = open_model(name, 2)
    assert asked.embed(["text"], "passage").shape == (1, 2)
    with pytest.raises(PausedError, match=r"vector\.dimensions 8"):
        open_model(name, 8, matryoshka=True)


@HTTP
def test_a_new_key_is_used_at_once(open_model: Open, server: EmbeddingServer, key_file: Path, name: str) -> None:
    remote = open_model(name)
    key_file.write_text("rotated")
    remote.embed(["a"], "passage")
    assert server.asked[-1].authorization == "Bearer rotated"
    key_file.unlink()
    with pytest.raises(PausedError, match="cannot read the API key"):
        remote.embed(["a"], "passage")


def test_a_key_from_the_environment(open_model: Open, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PausedError, match="SENSELOG_TEST_KEY"):
        open_model("http:tei", api_key_file=None, api_key_env="SENSELOG_TEST_KEY")
    monkeypatch.setenv("SENSELOG_TEST_KEY", "from the environment")
    open_model("http:tei", api_key_file=None, api_key_env="SENSELOG_TEST_KEY").embed(["a"], "passage")
    assert server.asked[-1].authorization == "Bearer from the environment"


def test_an_endpoint_that_is_not_configured_is_named(open_model: Open) -> None:
    with pytest.raises(PausedError, match=r"no endpoint vector\.http\.other; it has: cohere, ollama"):
        open_model("http:other")
