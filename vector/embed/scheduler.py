"""Who is embedded when: queries ahead of bulk, small jobs ahead of large ones, each text once, failures as in design/vector.md.

Never waits to fill a batch while the model is idle; while it is busy, all that arrives goes into the next call.
"""

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from protocol.errors import ErrorCode, KafkaError
from vector.arrays import Float32
from vector.embed.circuit import Circuit
from vector.embed.port import (
    Embedder,
    EmbedError,
    Kind,
    PausedError,
    PoisonError,
    Refusal,
    TransientError,
    estimated_tokens,
)
from vector.priority import lower_priority

CACHE_BYTES_MAX = 64 * 1024 * 1024
CACHE_ENTRY_OVERHEAD_BYTES = 250
QUERY_CACHE_BYTES_MAX = 4 * 1024 * 1024
"""Queries come again: by each page of an answer, by dashboards, for one topic after another. Of 384 dimensions these are the last 2,300."""
PROBE_POLL_S = 0.05
"""While one call tries whether the provider works again, the others look this often whether it does."""
COOLDOWN_POLL_S = 0.25
"""A cooldown may end early, when a person says so."""
PLAIN_TEXT = "This is a plain text."
"""A provider that refuses it refuses everything: the fault is in the configuration, not in the records."""
FAILURES_SHOWN_MAX = 20
REFUSALS_KEPT_MAX = 10_000
"""Logs repeat themselves, also what no model takes: each time it would be looked for by halving a batch."""
# A query for a text that is being embedded at this moment, alone or nearly so, waits for that call.
SMALL_CALL_TEXTS = 8
BULK_NICENESS = 10


@dataclass(slots=True)
class EmbedCounters:
    """What the model did; all monotonic."""

    texts_embedded: int = 0
    queries_embedded: int = 0
    calls: int = 0
    tokens: int = 0
    """Estimated, of texts embedded."""
    cache_hits: int = 0
    retries: int = 0
    poisoned: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Job:
    """Texts that one caller waits for and that no call has taken yet, the shortest first: in a call of like lengths a model pads
    least."""

    waiting: deque[tuple[bytes, str]]
    background: bool


class VectorCache:
    """Vectors by content hash, the least recently used dropped first; bounded by `CACHE_BYTES_MAX`."""

    def __init__(self, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._vectors: OrderedDict[bytes, Float32] = OrderedDict()
        self._bytes = 0

    def get(self, content: bytes) -> Float32 | None:
        vector = self._vectors.get(content)
        if vector is not None:
            self._vectors.move_to_end(content)
        return vector

    def put(self, content: bytes, vector: Float32) -> None:
        if content in self._vectors:
            return
        self._vectors[content] = vector
        self._bytes += vector.nbytes + CACHE_ENTRY_OVERHEAD_BYTES
        while self._bytes > self._bytes_max:
            _, dropped = self._vectors.popitem(last=False)
            self._bytes -= dropped.nbytes + CACHE_ENTRY_OVERHEAD_BYTES

    def __len__(self) -> int:
        return len(self._vectors)


class EmbedScheduler:
    """One model with its cache, shared by every partition that uses it. All methods on the event loop."""

    def __init__(self, embedder: Embedder, *, cache: VectorCache | None = None, circuit: Circuit | None = None) -> None:
        self.embedder = embedder
        self.circuit = Circuit() if circuit is None else circuit
        self.counters = EmbedCounters()
        self.failures: deque[str] = deque(maxlen=FAILURES_SHOWN_MAX)
        self._cache = VectorCache() if cache is None else cache
        self._asked = VectorCache(QUERY_CACHE_BYTES_MAX)
        self._refused: OrderedDict[bytes, Refusal] = OrderedDict()
        self._flying: dict[bytes, asyncio.Future[Float32 | Refusal]] = {}
        self._small: set[bytes] = set()
        self._jobs: list[_Job] = []
        self._calls = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._bulk = ThreadPoolExecutor(
            embedder.calls_at_once, "embed", initializer=lower_priority, initargs=(BULK_NICENESS,)
        )
        self._queries = ThreadPoolExecutor(embedder.calls_at_once, "embed-query")

    @property
    def trouble(self) -> str | None:
        """Why embedding stands still at the moment; None: it does not."""
        return self.circuit.trouble

    async def prepare(self) -> None:
        """Makes the first call as quick as any other. Raises EmbedError."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            loop.run_in_executor(self._bulk, self.embedder.prepare, "passage"),
            loop.run_in_executor(self._queries, self.embedder.prepare, "query"),
        )

    async def vectors(self, texts: Mapping[bytes, str], *, background: bool = False) -> dict[bytes, Float32 | Refusal]:
        """float32[d] for each text by content hash, or why it has none. Waits as long as the provider is down.

        `background`: behind everything else, and what was refused lately is tried again.
        """
        found: dict[bytes, Float32 | Refusal] = {}
        flying: dict[bytes, asyncio.Future[Float32 | Refusal]] = {}
        new: list[tuple[bytes, str]] = []
        loop = asyncio.get_running_loop()
        for content, text in texts.items():
            known = self._cache.get(content)
            if known is not None:
                self.counters.cache_hits += 1
                found[content] = known
                continue
            refused = None if background else self._refused.get(content)
            if refused is not None:
                found[content] = refused
                continue
            future = self._flying.get(content)
            if future is None:
                future = self._flying[content] = loop.create_future()
                new.append((content, text))
            flying[content] = future
        if new:
            self._jobs.append(_Job(deque(sorted(new, key=lambda one: len(one[1]))), background))
            self._pump()
        for content, future in flying.items():
            found[content] = await asyncio.shield(future)
        return found

    async def query(self, texts: Sequence[str], hashes: Sequence[bytes]) -> list[Float32]:
        """float32[d] per query, ahead of all bulk work. Raises KafkaError COORDINATOR_NOT_AVAILABLE with the reason."""
        found: dict[int, Float32] = {}
        for index, content in enumerate(hashes):
            known = self._asked.get(content)
            if known is None and self.embedder.symmetric:
                known = self._cache.get(content)
                if known is None and content in self._small and self.trouble is None:
                    outcome = await asyncio.shield(self._flying[content])
                    known = None if isinstance(outcome, Refusal) else outcome
            if known is not None:
                self.counters.cache_hits += 1
                found[index] = known
        missing = [index for index in range(len(texts)) if index not in found]
        if missing:
            vectors = await self._embed_queries([texts[index] for index in missing])
            for index, vector in zip(missing, vectors, strict=True):
                found[index] = vector.copy()  # not a part of all of them, which would stay as long
                self._asked.put(hashes[index], found[index])
        return [found[index] for index in range(len(texts))]

    async def _embed_queries(self, texts: list[str]) -> Float32:
        loop = asyncio.get_running_loop()
        if self.circuit.cooldown_s(loop.time()):
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"queries cannot be embedded: {self.trouble}")
        try:
            vectors = await loop.run_in_executor(self._queries, self._call, texts, "query")
        except PoisonError as error:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"text: the model refuses it: {error}") from None
        except EmbedError as error:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"queries cannot be embedded: {error}") from None
        except Exception as error:  # a provider's own fault
            reason = f"{self.embedder.name}: {type(error).__name__}: {error}"
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"queries cannot be embedded: {reason}") from error
        self.counters.queries_embedded += len(texts)
        return vectors

    def _call(self, texts: Sequence[str], kind: Kind) -> Float32:
        """One call of the model, on its thread. Raises EmbedError, also for an answer that is not float32[n, d]."""
        vectors = self.embedder.embed(texts, kind)
        expected = (len(texts), self.embedder.dimensions)
        if not isinstance(vectors, np.ndarray) or vectors.shape != expected or vectors.dtype != np.float32:
            shape, dtype = getattr(vectors, "shape", None), getattr(vectors, "dtype", type(vectors).__name__)
            raise TransientError(
                f"{self.embedder.name} answered {dtype} of shape {shape}, expected float32 of {expected}"
            )
        return vectors

    def close(self) -> None:
        """Stops; what was waiting stays in the log."""
        for task in self._tasks:
            task.cancel()
        self._bulk.shutdown(wait=False, cancel_futures=True)
        self._queries.shutdown(wait=False, cancel_futures=True)
        self.embedder.close()

    # Bulk calls

    def _pump(self) -> None:
        while self._jobs and self._calls < self.embedder.calls_at_once:
            batch = self._next_batch()
            self._calls += 1
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_batch(self) -> list[tuple[bytes, str]]:
        """The shortest jobs first, so that a fresh record does not wait for a backlog; then the rest up to a full call."""
        batch: list[tuple[bytes, str]] = []
        tokens = 0
        self._jobs.sort(key=lambda job: (job.background, len(job.waiting)))
        for job in self._jobs:
            while job.waiting and len(batch) < self.embedder.texts_per_call:
                tokens += estimated_tokens(job.waiting[0][1])
                if batch and tokens > self.embedder.tokens_per_call:
                    break
                batch.append(job.waiting.popleft())
        self._jobs = [job for job in self._jobs if job.waiting]
        if len(batch) <= SMALL_CALL_TEXTS:
            self._small.update(content for content, _ in batch)
        return batch

    async def _run(self, batch: list[tuple[bytes, str]]) -> None:
        try:
            await self._embed(batch)
        finally:
            self._calls -= 1
            self._pump()

    async def _embed(self, batch: list[tuple[bytes, str]]) -> None:
        """Until every text of the batch has a vector or is known to be poison."""
        texts = [text for _, text in batch]
        while True:
            outcome = await self._try(texts)
            if outcome is None:
                continue
            if not isinstance(outcome, PoisonError):
                self._deliver(batch, outcome)
                return
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._embed(batch[:middle])
                await self._embed(batch[middle:])
                return
            if await self._takes_plain_text():
                self._poison(batch[0][0], str(outcome))
                return

    async def _takes_plain_text(self) -> bool:
        """Whether what the provider refuses are texts. Else it pauses: a wrong setting must not make every record a failed one."""
        outcome = await self._try([PLAIN_TEXT])
        if isinstance(outcome, PoisonError):
            self._cool_down(self.circuit.opened, PausedError(f"every text is refused: {outcome}"))
            return False
        return outcome is not None

    async def _try(self, texts: list[str]) -> Float32 | PoisonError | None:
        """One call, as soon as the circuit lets it; None when it failed, which says nothing about the texts."""
        loop = asyncio.get_running_loop()
        token = self.circuit.enter(loop.time())
        while token is None:
            cooldown_s = self.circuit.cooldown_s(loop.time())
            await asyncio.sleep(min(cooldown_s, COOLDOWN_POLL_S) if cooldown_s else PROBE_POLL_S)
            token = self.circuit.enter(loop.time())
        started = loop.time()
        try:
            vectors = await loop.run_in_executor(self._bulk, self._call, texts, "passage")
        except PoisonError as error:
            self.circuit.succeeded(token)
            return error
        except EmbedError as error:
            self._cool_down(token, error)
            return None
        except Exception as error:  # a provider's own fault: the log keeps the records, so trying again loses nothing
            self._cool_down(token, TransientError(f"{self.embedder.name}: {type(error).__name__}: {error}"))
            return None
        except asyncio.CancelledError:
            self.circuit.left(token)
            raise
        self.circuit.succeeded(token)
        self.counters.seconds += loop.time() - started
        self.counters.calls += 1
        return vectors

    def _deliver(self, batch: list[tuple[bytes, str]], vectors: Float32) -> None:
        self.counters.texts_embedded += len(batch)
        self.counters.tokens += sum(estimated_tokens(text) for _, text in batch)
        good = np.isfinite(vectors).all(axis=1) & (np.abs(vectors).max(axis=1, initial=0.0) > 0)
        for (content, _), vector, usable in zip(batch, vectors, good.tolist(), strict=True):
            if usable:
                kept = vector.copy()  # a row alone would keep the whole batch alive
                self._cache.put(content, kept)
                self._resolve(content, kept)
            else:
                self._poison(content, "the vector is zero or not finite")

    def _poison(self, content: bytes, reason: str) -> None:
        self.counters.poisoned += 1
        self.failures.append(reason)
        refusal = self._refused[content] = Refusal(reason)
        while len(self._refused) > REFUSALS_KEPT_MAX:
            self._refused.popitem(last=False)
        self._resolve(content, refusal)

    def _resolve(self, content: bytes, outcome: Float32 | Refusal) -> None:
        self._small.discard(content)
        future = self._flying.pop(content)
        if not future.done():
            future.set_result(outcome)

    def _cool_down(self, token: int, error: EmbedError) -> None:
        self.counters.retries += 1
        self.circuit.failed(token, error, asyncio.get_running_loop().time(), random.random())  # noqa: S311

    def status(self) -> dict[str, Any]:
        """JSON-able."""
        counters = self.counters
        return {
            "model": self.embedder.name,
            "revision": self.embedder.revision,
            "dimensions": self.embedder.dimensions,
            "texts_embedded": counters.texts_embedded,
            "queries_embedded": counters.queries_embedded,
            "calls": counters.calls,
            "tokens": counters.tokens if self.embedder.tokens.count is None else self.embedder.tokens.count,
            "tokens_estimated": self.embedder.tokens.count is None,
            "cache_hits": counters.cache_hits,
            "cached": len(self._cache),
            "retries": counters.retries,
            "poisoned": counters.poisoned,
            "seconds": round(counters.seconds, 3),
            "waiting": sum(len(job.waiting) for job in self._jobs),
            "trouble": self.trouble,
            "circuit": self.circuit.state,
            "circuit_opened": self.circuit.opened,
            "cooldown_ms": int(1000 * self.circuit.cooldown_s(asyncio.get_running_loop().time())),
            "failures": list(self.failures),
        }
