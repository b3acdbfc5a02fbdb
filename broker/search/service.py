"""Search, behind every door: finds the topic, asks the worker, reads the hits' records, says how fresh it all is."""

import asyncio
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

from broker.config import Config
from broker.metrics import Histogram
from broker.operations import Operation
from broker.search.administration import VectorAdministration
from broker.search.failures import FailureLog
from broker.search.feed import WorkerFeed
from broker.search.fleet import WorkerFleet
from broker.search.records import BatchStarts, FoundRecord, Place, compacted_away, read_records
from broker.search.told import merged_embedders, merged_status
from broker.search.worker_process import DIRECTORY, EarlyWorkers
from broker.security.access import Access
from broker.topics import Topic, Topics
from protocol.errors import ErrorCode, KafkaError
from storage.clock import Clock
from storage.log_manager import LogManager
from vector.channel import Channel, ChannelClosed, Handler
from vector.config import NO_MODEL, VectorConfig
from vector.embed.local import model_directory
from vector.embed.port import EmbedSettings
from vector.filter.tree import named_partitions
from vector.placement import LEAD
from vector.request import (
    VALUE_CUT,
    Hit,
    PartitionState,
    Query,
    QueryResult,
    SearchRequest,
    SearchResponse,
    VectorsNotEnabled,
    invalid,
)

LOADING_POLL_S = 0.05
PHASES = ("embed", "wait", "search", "read")
OPENAI_KEY_VARIABLE = "OPENAI_API_KEY"


class SearchService:
    """One per broker. Build it, `start` it inside the event loop, `stop` it before the logs close. `early`: workers that run already."""

    def __init__(
        self, config: Config, topics: Topics, logs: LogManager, clock: Clock, early: EarlyWorkers | None = None
    ) -> None:
        self._config = config
        self._topics = topics
        self._failures = FailureLog(topics, logs, clock)
        self.administration = VectorAdministration(topics, self._failures, self, config.vector_embedding_model)
        self.feed = WorkerFeed(topics, config.vector_embedding_model, config.workers, config.vector_remote_workers)
        self.fleet = WorkerFleet(config, self.feed, self._handlers, self._prepare, early)
        self._progress: dict[int, dict[str, Any]] = {}
        self._gauges: dict[int, dict[tuple[bytes, int], dict[str, float]]] = {}
        self._starts = BatchStarts()
        self.searches = 0
        self.seconds = {phase: Histogram() for phase in PHASES}

    def start(self) -> None:
        """Watches the topics; the worker is started with the first one that has vectors."""
        self._failures.load()
        self.feed.watch_all()
        self._topics.observers.append(self)
        self.fleet.listen()
        if self.feed.topics_with_vectors:
            self.fleet.start()
        else:
            self.fleet.send_home()

    async def stop(self) -> None:
        """Ends the worker, with a checkpoint."""
        self._topics.observers.remove(self)
        await self.fleet.stop()

    # TopicObserver

    def topic_created(self, topic: Topic) -> None:
        self.feed.topic_created(topic)
        if topic.vector is not None:
            self.fleet.start()

    def topic_changed(self, topic: Topic) -> None:
        self.feed.topic_changed(topic)
        if topic.vector is not None:
            self.fleet.start()

    def topic_deleted(self, topic: Topic) -> None:
        self.feed.topic_deleted(topic)
        self._failures.forget(topic.topic_id)
        for told in self._progress.values():
            told["indexed"] = {key: row for key, row in told["indexed"].items() if key[0] != topic.topic_id}

    # The workers

    def _handlers(self, worker: int) -> dict[str, Handler]:
        """Of what a worker calls."""
        return {
            "read": self.feed.read,
            "progress": partial(self._take_progress, worker),
            "gauges": partial(self._take_gauges, worker),
            "quarantine": self._failures.add,
            "forget_failures": lambda gone: self._failures.forget(*gone),
        }

    async def _prepare(self, worker: int, channel: Channel) -> None:
        config = self._config
        self._progress.pop(worker, None)
        start = {
            "directory": str((Path(config.data_dir) / DIRECTORY).resolve()),
            "embed": asdict(_embed_settings(config)),
            "topics": [topic.topic_id for topic in self._topics],
            "objects_url": config.storage_objects_url,
            "workers": config.workers,
            "leads": worker == LEAD,
            "memory_bytes": config.vector_worker_memory_bytes,
        }
        await channel.call("start", start)
        await self.feed.attach(worker, channel)

    def _take_progress(self, worker: int, message: Mapping[str, Any]) -> None:
        # All of the worker's anew: what a deleted topic's last notice said must not stay.
        indexed = {}
        for topic_id, partition, indexed_offset, failed in message["offsets"]:
            indexed[topic_id, partition] = (indexed_offset, failed)
            self.feed.opened(topic_id, partition)
        self._progress[worker] = {"indexed": indexed, "models": message["models"]}

    def _take_gauges(self, worker: int, message: Mapping[str, Any]) -> None:
        self._gauges[worker] = {
            (bytes(topic), partition): figures for topic, partition, figures in message["partitions"]
        }
        self.fleet.workers[worker].memory = message["memory"]

    @property
    def indexed(self) -> dict[tuple[bytes, int], tuple[int, int]]:
        """(topic id, partition) -> (indexed_offset, failed), as the workers last told."""
        return {place: row for told in self._progress.values() for place, row in told["indexed"].items()}

    @property
    def gauges(self) -> dict[tuple[bytes, int], dict[str, float]]:
        """What metrics show of a partition's index beside that, at most a few seconds old."""
        return {place: row for told in self._gauges.values() for place, row in told.items()}

    @property
    def models(self) -> list[dict[str, Any]]:
        """What each model did, in all workers."""
        return merged_embedders([model for told in self._progress.values() for model in told["models"]])

    @property
    def readiness(self) -> Literal["off", "loading", "ready"]:
        """off: no topic has vectors; ready: every partition of those that have can be searched."""
        topics = self.feed.topics_with_vectors
        if not topics:
            return "off"
        indexed = self.indexed
        places = ((topic.topic_id, log.partition) for topic in topics for log in topic.partitions)
        return "ready" if self.fleet.running and all(place in indexed for place in places) else "loading"

    # Search

    async def search(self, request: SearchRequest, access: Access) -> SearchResponse:
        """Answers the request; without queries, with the state of the partitions alone. Needs READ on the topic.

        Raises KafkaError.
        """
        topic = self._topic(request, access)
        partitions = _partitions(request, topic)
        try:
            if request.queries:
                response = await self._search(request, topic, partitions)
            else:
                response = await self._state(topic, partitions)
        except KafkaError:
            self._check_still_there(request, topic)  # that it is gone says more than what it failed with
            raise
        self._check_still_there(request, topic)
        return response

    async def _search(self, request: SearchRequest, topic: Topic, partitions: list[int]) -> SearchResponse:
        self.searches += 1
        message = _message(request, topic, partitions)
        try:
            async with asyncio.timeout((request.timeout_ms + request.max_wait_ms) / 1000):
                while True:
                    answer = await self._ask(message)
                    started = time.perf_counter_ns()
                    places = [(row[0], row[1]) for rows, _ in answer["results"] for row in rows]
                    records = await read_records(topic, places, request, self._starts)
                    read_micros = (time.perf_counter_ns() - started) // 1000
                    gone = compacted_away(topic, places, records)
                    if not gone:
                        break
                    message["gone"] = gone
        except TimeoutError:
            silent = self.fleet.silent(self.fleet.holders(topic.topic_id, partitions))
            raise KafkaError(
                ErrorCode.REQUEST_TIMED_OUT,
                f"the search took longer than its timeout_ms of {request.timeout_ms}{silent and f': {silent}'}",
            ) from None
        micros = (answer["embed_micros"], answer["wait_micros"], answer["search_micros"], read_micros)
        for phase, duration_micros in zip(PHASES, micros, strict=True):
            self.seconds[phase].observe(duration_micros / 1e6)
        return SearchResponse(
            topic=topic.name,
            topic_id=topic.topic_id,
            model=answer["model"],
            dimensions=answer["dimensions"],
            metric=answer["metric"],
            generation=answer["generation"],
            complete=answer["complete"],
            embed_micros=answer["embed_micros"],
            wait_micros=answer["wait_micros"],
            search_micros=answer["search_micros"],
            read_micros=read_micros,
            results=[
                QueryResult(list(_hits(request, rows, records)), next_cursor) for rows, next_cursor in answer["results"]
            ],
            partitions=[
                _partition_state(topic, p, answer["states"].get(p), searched=p in answer["searched"])
                for p in partitions
            ],
        )

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """The workers' answer. A caller that has time to wait for freshness also waits for an index that loads.

        One that takes a part of the answer then gets it from those partitions that are there.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + message["wait_ms"] / 1000
        while True:
            in_part = message["partial_ok"] and loop.time() >= until
            try:
                return await self._ask_workers({**message, "answer_in_part": in_part})
            except KafkaError as refusal:
                left_s = until - loop.time()
                gone = self._topics.get_by_id(message["topic_id"]) is None
                if refusal.code != ErrorCode.COORDINATOR_LOAD_IN_PROGRESS or in_part or gone:
                    raise
                if left_s <= 0 and not message["partial_ok"]:
                    raise
            await asyncio.sleep(max(0.0, min(LOADING_POLL_S, left_s)))
            message = {**message, "wait_ms": max(0, int((until - loop.time()) * 1000))}

    async def _ask_workers(self, message: dict[str, Any]) -> dict[str, Any]:
        """One worker, which asks those that have the other partitions; for an answer in part the next when it has nothing."""
        topic_id = message["topic_id"]
        searched = self.fleet.holders(topic_id, [one["partition"] for one in message["partitions"]])
        waited = self.fleet.holders(
            topic_id, {one["partition"] for one in message["partitions"]} | set(message["min_offsets"])
        )
        records = {partition for query in message["queries"] for partition, _ in _records(query)}
        holders = {p: worker for worker, of_worker in self.fleet.holders(topic_id, records).items() for p in of_worker}
        refusal: KafkaError | None = None
        # Of several with as many the next one each time: who runs a search embeds its queries.
        for worker in sorted(searched, key=lambda one: (-len(searched[one]), (one + self.searches) % len(searched))):
            others = {other: partitions for other, partitions in waited.items() if other != worker}
            elsewhere = {p: other for p, other in holders.items() if other != worker}
            try:
                channel = self.fleet.channel_of(worker)
                return dict(
                    await channel.call("search", {**message, "others": others, "holders": elsewhere}, abandon=True)
                )
            except ChannelClosed:
                refusal = KafkaError(
                    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "the index is loading: the vector worker is restarted"
                )
            except KafkaError as error:
                refusal = error
            if refusal.code != ErrorCode.COORDINATOR_LOAD_IN_PROGRESS or not message["answer_in_part"]:
                break
        assert refusal is not None
        raise refusal

    def _topic(self, request: SearchRequest, access: Access) -> Topic:
        by_name = request.topic is not None
        topic = self._topics.get(request.topic or "") if by_name else self._topics.get_by_id(request.topic_id)
        name = request.topic if topic is None else topic.name
        if name is not None:  # an id that is unknown tells nothing
            access.check_topic(Operation.READ, name)
        if topic is None:
            raise _unknown(request)
        if topic.vector is None:
            raise VectorsNotEnabled(topic.name)
        if request.mode != "vector":
            _check_texts(topic.name, request.mode, topic.vector)
        return topic

    def _check_still_there(self, request: SearchRequest, topic: Topic) -> None:
        """A topic deleted meanwhile has no records to show, and an answer without hits would look like none had matched."""
        if self._topics.get_by_id(topic.topic_id) is None:
            raise _unknown(request)

    async def _state(self, topic: Topic, partitions: list[int]) -> SearchResponse:
        from broker.search.status import topic_status, trouble

        status = await self.told(topic)
        identity = (status or {}).get("identity") or {}
        told = (status or {}).get("partitions", {})
        states = []
        for partition in partitions:
            of_partition = told.get(partition)
            known = None
            if of_partition is not None and of_partition["indexed_offset"] >= 0:
                known = (of_partition["indexed_offset"], of_partition["lag_ms"], of_partition["failed"])
            states.append(_partition_state(topic, partition, known, searched=False))
        assert topic.vector is not None
        document = topic_status(topic, status, self.fleet.workers, self._config.vector_embedding_model)
        return SearchResponse(
            topic=topic.name,
            topic_id=topic.topic_id,
            model=identity.get("model") or topic.vector.embedding_model or self._config.vector_embedding_model,
            dimensions=identity.get("dimensions", topic.vector.dimensions),
            metric=topic.vector.metric,
            generation=status["generation"] if status else 0,
            complete=all(state.error_code == ErrorCode.NONE for state in states),
            embed_micros=0,
            wait_micros=0,
            search_micros=0,
            read_micros=0,
            results=[],
            partitions=states,
            trouble=trouble(document),
            status=document,
        )

    async def ask(self, call: str, message: Any) -> Any:
        """The answer of the worker that decides about generations. Raises KafkaError: 7 when it takes too long, 14 without it."""
        return await self.fleet.ask(call, message)

    async def ask_any(self, call: str, message: Any) -> Any:
        """The first answer that is not that something loads, or is not known. Raises KafkaError: the lead's."""
        refusal: KafkaError | None = None
        for number in self.fleet.numbers_running or [LEAD]:
            try:
                return await self.fleet.ask(call, message, number)
            except KafkaError as error:
                if error.code not in (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.RESOURCE_NOT_FOUND):
                    raise
                refusal = refusal or error
        assert refusal is not None
        raise refusal

    async def ask_all(self, call: str, message: Any) -> None:
        """Every worker that is there."""
        await asyncio.gather(*(self.fleet.ask(call, message, number) for number in self.fleet.numbers_running))

    async def told(self, topic: Topic) -> dict[str, Any] | None:
        """What the workers say of a topic, as if they were one; None while there is none that knows it."""
        return merged_status(await self.fleet.told(topic))

    async def status(self, name: str, access: Access) -> dict[str, Any]:
        """Everything about a topic's index, JSON-able. Raises KafkaError UNKNOWN_TOPIC_OR_PARTITION.

        Needs DESCRIBE on the topic, else TOPIC_AUTHORIZATION_FAILED.
        """
        from broker.search.status import disabled_status, topic_status

        access.check_topic(Operation.DESCRIBE, name)
        topic = self._topics.get(name)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name!r}")
        if topic.vector is None:
            return disabled_status(topic)
        return topic_status(topic, await self.told(topic), self.fleet.workers, self._config.vector_embedding_model)


def _embed_settings(config: Config) -> EmbedSettings:
    """Raises OSError when the file with the key cannot be read."""
    file = config.vector_openai_api_key_file
    key = file.read_text().strip() if file is not None else os.environ.get(OPENAI_KEY_VARIABLE)
    threads = config.vector_embedding_threads
    if not threads and config.vector_workers > 1:  # each with all cores would only wait for the others
        threads = max(1, (os.cpu_count() or 1) // config.vector_workers)
    return EmbedSettings(
        model_directory=str((config.vector_model_dir or model_directory()).resolve()),
        threads=threads,
        openai_base_url=config.vector_openai_base_url,
        openai_key=key,
        timeout_s=config.vector_openai_timeout_ms / 1000,
        endpoints=config.vector_http,
    )


def _check_texts(topic: str, mode: str, config: VectorConfig) -> None:
    if config.embedding_model == NO_MODEL:
        invalid(
            "mode",
            f"{mode} needs texts, and the producers of topic {topic!r} send vectors (vector.embedding.model=none)",
        )
    if not config.text_index:
        invalid("mode", f"{mode} needs the words of topic {topic!r}: set vector.text.index=true")


def _unknown(request: SearchRequest) -> KafkaError:
    if request.topic is not None:
        return KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {request.topic!r}")
    return KafkaError(ErrorCode.UNKNOWN_TOPIC_ID, f"there is no topic {request.topic_id.hex()!r}")


def _partitions(request: SearchRequest, topic: Topic) -> list[int]:
    """Those to search. Raises KafkaError for one that does not exist, wherever the request names it."""
    count = len(topic.partitions)
    named = [*(request.partitions or ()), *request.min_offsets, *(p for p in request.offset_ranges if p >= 0)]
    named += named_partitions(request.condition)
    named += [partition for query in request.queries for partition, _ in query.records()]
    for partition in named:
        if partition >= count:
            raise KafkaError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                f"topic {topic.name!r} has no partition {partition}, it has {count}",
            )
    return sorted(request.partitions) if request.partitions is not None else list(range(count))


def _message(request: SearchRequest, topic: Topic, partitions: list[int]) -> dict[str, Any]:
    """The worker's `search` call."""
    min_offsets = dict(request.min_offsets)
    if request.latest:
        for partition in partitions:
            # Below an open transaction's start: what is not committed is never indexed.
            newest = topic.partitions[partition].last_stable_offset
            min_offsets[partition] = max(newest, min_offsets.get(partition, 0))
    ranges = {partition: request.offset_range(partition) for partition in partitions}
    return {
        "topic_id": topic.topic_id,
        "queries": [_query(query) for query in request.queries],
        "limit": request.limit,
        "min_similarity": request.min_similarity,
        "partitions": [
            {
                "partition": partition,
                "from": ranges[partition][0],
                "until": ranges[partition][1],
                "log_start": topic.partitions[partition].log_start_offset,
            }
            for partition in partitions
        ],
        "from_timestamp": request.from_timestamp,
        "until_timestamp": request.until_timestamp,
        "filter": request.filter,
        "mode": request.mode,
        "fusion": request.fusion,
        "vector_weight": request.vector_weight,
        "collapse": request.collapse,
        "cursor": request.cursor,
        "exact": request.exact,
        "ef": request.ef if request.ef is not None else -1,
        "min_offsets": min_offsets,
        "wait_ms": request.max_wait_ms,
        "partial_ok": request.partial_ok,
        "vectors": "vector" in request.include,
        "gone": [],
    }


def _records(query: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """(partition, offset) that a query of the message names."""
    for one in (query, *query.get("positive", ()), *query.get("negative", ())):
        if one.get("record") is not None:
            yield one["record"]


def _query(query: Query) -> dict[str, Any]:
    if query.positive:
        return {name: [_query(example) for example in getattr(query, name)] for name in ("positive", "negative")}
    if query.vector is not None:
        return {"vector": query.vector.astype("<f4").tobytes()}
    return {"text": query.text} if query.text is not None else {"record": query.record}


def _hits(request: SearchRequest, rows: Iterable[Any], records: Mapping[Place, FoundRecord]) -> Iterator[Hit]:
    """Hits in order; a record that retention took while the search ran is no hit any more."""
    import numpy as np

    ranks = "scores" in request.include
    for partition, offset, timestamp_ms, *scores, duplicates, flags, vector in rows:
        found = records.get((partition, offset))
        if found is None:
            continue
        score, similarity, text_score, vector_rank, text_rank = scores
        yield Hit(
            partition=partition,
            offset=offset,
            leader_epoch=found.leader_epoch,
            timestamp_ms=timestamp_ms,
            score=score,
            similarity=similarity,
            text_score=text_score,
            duplicates=duplicates,
            flags=flags | VALUE_CUT if found.value_cut else flags,
            vector_rank=vector_rank if ranks else None,
            text_rank=text_rank if ranks else None,
            key=found.key,
            value=found.value,
            headers=tuple(found.headers),
            vector=None if vector is None else np.frombuffer(vector, dtype="<f4"),
        )


def _partition_state(
    topic: Topic, partition: int, told: tuple[int, int, int] | None, *, searched: bool
) -> PartitionState:
    """`told`: (indexed_offset, lag_ms, failed) by the worker, None while the index loads."""
    log = topic.partitions[partition]
    indexed_offset, lag_ms, failed = told or (-1, 0, 0)
    return PartitionState(
        partition=partition,
        log_start_offset=log.log_start_offset,
        high_watermark=log.high_watermark,
        last_stable_offset=log.last_stable_offset,
        indexed_offset=indexed_offset,
        lag_ms=lag_ms,
        failed=failed,
        searched=searched,
        error_code=ErrorCode.NONE if told else ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    )
