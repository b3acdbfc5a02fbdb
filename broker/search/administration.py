"""What people do with the index of a topic, behind every door: see what failed, retry it, pause, change the model, go back."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, Self

import numpy as np

from broker.operations import Operation
from broker.search.failures import FailureLog
from broker.security.access import UNRESTRICTED, Access
from broker.topics import Topic, Topics
from protocol.errors import ErrorCode, KafkaError
from vector.config import TOPIC_KEYS, VectorConfig
from vector.request import QUERIES_MAX, Query, VectorsNotEnabled

FAILURES_MAX = 1000
"""Of one page."""
EMBED_TEXTS_MAX = QUERIES_MAX
_DEFAULT = ("vector.cutover", "auto")


class Workers(Protocol):
    """The vector workers, as administration needs it."""

    async def ask(self, call: str, message: Any) -> Any:
        """The lead's answer to a call. Raises KafkaError: 14 while there is no worker."""

    async def ask_any(self, call: str, message: Any) -> Any:
        """The answer of any worker that can give one. Raises KafkaError."""

    async def ask_all(self, call: str, message: Any) -> None:
        """The same of every worker that is there."""

    async def told(self, topic: Topic) -> dict[str, Any] | None:
        """What they say of a topic; None while there is no worker that knows it."""


class VectorAdministration:
    """Names topics as the doors do; every method raises KafkaError: 3 unknown topic, 14 no worker, 40 no vectors, 42 and 44 for
    arguments. What takes time goes on in the background: the status shows it."""

    def __init__(
        self, topics: Topics, failures: FailureLog, worker: Workers, default_model: str, access: Access = UNRESTRICTED
    ) -> None:
        self._access = access
        self._default_model = default_model
        self._topics = topics
        self._failures = failures
        self._worker = worker

    def by(self, access: Access) -> Self:
        """For a client: asks for ALTER_CONFIGS on the topic, to see what failed for DESCRIBE, to embed like a topic for READ.

        Its methods raise TOPIC_AUTHORIZATION_FAILED too.
        """
        return type(self)(self._topics, self._failures, self._worker, self._default_model, access)

    def failures(
        self,
        name: str,
        *,
        partition: int | None = None,
        generation: int | None = None,
        after: tuple[int, int] | None = None,
        limit: int = 100,
    ) -> dict[str, Any]:
        """Records that could not be indexed, by partition and offset, JSON-able: `failures`, how many there are in `total`, and in
        `next` the `after` of the next page (null: there is none). `generation` None: of every generation that is kept."""
        topic = self._topic(name, Operation.DESCRIBE)
        if not 1 <= limit <= FAILURES_MAX:
            raise KafkaError(ErrorCode.POLICY_VIOLATION, f"limit: {limit} is not between 1 and {FAILURES_MAX}")
        if partition is not None:
            topic.partition(partition)
        found = self._failures.listed(topic, generation, partition)
        rest = [entry for entry in found if after is None or (entry.key.partition, entry.key.offset) > after]
        page = rest[:limit]
        while len(page) < len(rest) and _place(rest[len(page)]) == _place(page[-1]):
            page.append(rest[len(page)])  # another generation's entry of the same record: `after` would jump over it
        return {
            "topic": name,
            "total": len(found),
            "failures": [entry.document() for entry in page],
            "next": list(_place(page[-1])) if len(page) < len(rest) else None,
        }

    def pause(self, name: str) -> None:
        """Stops indexing until `resume`, over restarts too: it is the topic's config vector.paused. Searches go on."""
        self._set(name, {"vector.paused": "true"})

    async def resume(self, name: str) -> None:
        """Goes on indexing, and tries at once what waits out a failure: its cause has been mended."""
        self._set(name, {"vector.paused": None})
        with contextlib.suppress(KafkaError):  # a worker that starts anew waits for nothing
            await self._worker.ask_all("retry_now", self._topic(name).topic_id)

    async def retry(self, name: str) -> None:
        """Tries again to index what failed: the generation is built anew beside the live one, which embeds only what is not known,
        and takes its place. Raises KafkaError INVALID_REQUEST while another one is being built."""
        await self._worker.ask("rebuild", self._topic(name).topic_id)

    async def reembed(
        self,
        name: str,
        *,
        model: str | None = None,
        field: str | None = None,
        dimensions: int | None = None,
        long_text: str | None = None,
        metric: str | None = None,
        cutover: str | None = None,
    ) -> None:
        """Builds the next generation of the index from the log: changes these of the topic's vector.* configs, or, where nothing
        is new, builds the same anew. `cutover` manual: it waits for `cut_over`."""
        wanted = {
            "vector.embedding.model": model,
            "vector.field": field,
            "vector.dimensions": None if dimensions is None else str(dimensions),
            "vector.long.text": long_text,
            "vector.metric": metric,
            "vector.cutover": cutover,
        }
        topic = self._topic(name)
        before = self._meaning(topic)
        changes = {key: value for key, value in wanted.items() if value is not None}
        if changes:
            self._set(name, {key: None if (key, value) == _DEFAULT else value for key, value in changes.items()})
        if self._meaning(topic) == before:
            await self._worker.ask("rebuild", topic.topic_id)

    def _meaning(self, topic: Topic) -> VectorConfig:
        """What of the configs a generation is made by."""
        assert topic.vector is not None
        model = topic.vector.embedding_model or self._default_model
        return replace(topic.vector, embedding_model=model, cutover="auto")

    async def cut_over(self, name: str) -> None:
        """Searches the generation that is being built from now on, complete or not."""
        await self._worker.ask("cut_over", self._topic(name).topic_id)

    async def roll_back(self, name: str) -> None:
        """Searches the previous generation again, as soon as it has caught up; the topic's configs become what they were then."""
        topic = self._topic(name)
        told = await self._worker.told(topic)
        previous = ((told or {}).get("generations") or {}).get("previous")
        if previous is None:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"topic {name!r}: no previous generation is kept")
        identity = previous["identity"]
        self._set(
            name,
            {
                "vector.embedding.model": identity["model"],
                "vector.field": identity["field"],
                "vector.long.text": identity["long_text"],
                "vector.metric": identity["metric"],
                "vector.dimensions": str(identity["asked_dimensions"]),
            },
        )
        await self._worker.ask("go_back", topic.topic_id)

    async def embed(
        self, texts: Sequence[str], *, topic: str | None = None, model: str | None = None
    ) -> tuple[str, list[list[float]]]:
        """The model's name and a vector for each text, as queries are embedded: by the model named, or by the topic's."""
        if (topic is None) == (model is None):
            raise KafkaError(ErrorCode.INVALID_REQUEST, "exactly one of topic and model must be given")
        if not 1 <= len(texts) <= EMBED_TEXTS_MAX:
            raise KafkaError(ErrorCode.POLICY_VIOLATION, f"texts: {len(texts)} are not between 1 and {EMBED_TEXTS_MAX}")
        for text in texts:
            Query(text=text)  # checked as one
        if model is not None:
            if not self._access.any_topic(Operation.READ):
                raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
            try:
                TOPIC_KEYS["vector.embedding.model"].validator(model)
            except ValueError as error:
                raise KafkaError(ErrorCode.INVALID_REQUEST, f"model: {error}") from None
        message = {
            "topic_id": None if topic is None else self._topic(topic, Operation.READ).topic_id,
            "model": model,
            "texts": list(texts),
        }
        answer = await self._worker.ask_any("embed", message)
        return answer["model"], [np.frombuffer(vector, dtype="<f4").tolist() for vector in answer["vectors"]]

    def _set(self, name: str, changes: dict[str, str | None]) -> None:
        topic = self._topic(name)
        configs = {key: value for key, value in topic.configs.items() if key not in changes}
        self._topics.set_configs(name, configs | {key: value for key, value in changes.items() if value is not None})

    def _topic(self, name: str, operation: Operation = Operation.ALTER_CONFIGS) -> Topic:
        self._access.check_topic(operation, name)
        topic = self._topics.get(name)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name!r}")
        if topic.vector is None:
            raise VectorsNotEnabled(name)
        return topic


def _place(entry: Any) -> tuple[int, int]:
    return entry.key.partition, entry.key.offset
