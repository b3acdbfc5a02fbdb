"""The part of a search that lies in another worker, asked for over the broker."""

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any

from protocol.errors import ErrorCode, KafkaError
from vector.channel import ChannelClosed

RELAYED = ("shard_ready", "shard", "shard_end", "record_vector")
"""What workers ask one another, methods of `vector.topic_search.TopicSearch`."""
Relay = Callable[[str, tuple[int, Any]], Awaitable[Any]]
"""Calls another worker: the call's name, then the worker's number and the call's payload. Raises KafkaError, ChannelClosed."""

State = tuple[int, int, int]
"""(indexed_offset, lag_ms, failed) of a partition."""


class RemoteShard:
    """One worker's, for one search of one generation. `message` is the search with that worker's partitions alone."""

    def __init__(self, relay: Relay, worker: int, generation: int, message: Mapping[str, Any]) -> None:
        self._relay = relay
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._ended = threading.Event()
        self._request = {
            "search": uuid.uuid4().bytes,
            "topic_id": message["topic_id"],
            "generation": generation,
            "message": {**message, "queries": [], "cursor": None, "others": {}},
        }
        self.partitions = [one["partition"] for one in message["partitions"]]

    async def ready(self) -> tuple[bool, dict[int, State]]:
        """When it has what the search waits for: whether it does, and how far it is. Raises KafkaError."""
        fresh, states = await self._relay("shard_ready", (self._worker, self._request))
        return fresh, {partition: (*state,) for partition, state in states.items()}

    def search_up_to(self, offsets: Mapping[int, int]) -> None:
        """By partition, exclusive: what the search sees. Before anything is asked."""
        self._request["up_to"] = {p: offset for p, offset in offsets.items() if p in self.partitions}

    def ask(self, method: str, arguments: tuple[Any, ...]) -> "Future[Any]":
        """A method of `vector.shard.Shard`; in a search thread. The outcome may be KafkaError."""
        if self._ended.is_set():
            raise KafkaError(ErrorCode.REQUEST_TIMED_OUT, "the search has ended")
        request = {**self._request, "method": method, "arguments": arguments}
        return asyncio.run_coroutine_threadsafe(self._call(request), self._loop)

    async def _call(self, request: Mapping[str, Any]) -> Any:
        try:
            return await self._relay("shard", (self._worker, request))
        except ChannelClosed:
            raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "the index is loading: the worker ends") from None

    async def end(self) -> None:
        """Nothing more is asked."""
        self._ended.set()
        with contextlib.suppress(KafkaError, ChannelClosed):  # gone, and with it what it remembered
            await self._relay("shard_end", (self._worker, self._request))
