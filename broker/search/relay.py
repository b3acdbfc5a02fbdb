"""What vector workers ask one another, through the broker: for their parts of a search, and what generations are for."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from broker.search.feed import WorkerFeed
from protocol.errors import ErrorCode, KafkaError
from vector.channel import Channel, ChannelClosed, Handler
from vector.remote_shard import RELAYED

FOLLOW_TIMEOUT_S = 15.0
"""A worker that closes a generation writes checkpoints; one that takes longer is not waited for."""


class WorkerRelay:
    """`channel_of` a worker raises KafkaError COORDINATOR_LOAD_IN_PROGRESS while it is not there."""

    def __init__(self, channel_of: Callable[[int], Channel], feed: WorkerFeed) -> None:
        self._channel_of = channel_of
        self._feed = feed
        self.handlers: dict[str, Handler] = {
            "relay": self.relay,
            "lead_tell": self.tell,
            "lead_hold": self.hold,
            "lead_release": self.release,
        }

    async def relay(self, message: tuple[str, int, Any]) -> Any:
        """(call, worker, packed payload): the worker's packed answer. Raises KafkaError."""
        call, worker, payload = message
        if call not in RELAYED:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"relay: {call!r} is nothing that workers ask one another")
        try:
            return await self._channel_of(worker).call(call, payload, abandon=True)
        except ChannelClosed:
            raise KafkaError(
                ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, f"the index is loading: vector worker {worker} is restarted"
            ) from None

    async def tell(self, message: tuple[bytes, dict[str, Any]]) -> None:
        """The lead's word; returns when all that are there have followed."""
        topic_id, roles = message
        self._feed.roles[topic_id] = roles
        await self._ask_followers("follow", topic_id, message)

    async def hold(self, message: tuple[bytes, int]) -> bool:
        """Whether every follower holds: one that is not there may have much to do yet."""
        return all(await self._ask_followers("hold", message[0], message))

    async def release(self, topic_id: bytes) -> None:
        """Nothing came of it."""
        await self._ask_followers("release", topic_id, topic_id)

    async def _ask_followers(self, call: str, topic_id: bytes, message: Any) -> Sequence[Any]:
        return await asyncio.gather(*(_outcome(one, call, message) for one in self._feed.followers(topic_id)))


async def _outcome(channel: Channel | None, call: str, message: Any) -> Any:
    """None for a worker that is not there, does not know the topic yet, or takes too long: what it is assigned says the same."""
    if channel is None:
        return None
    try:
        async with asyncio.timeout(FOLLOW_TIMEOUT_S):
            return await channel.call(call, message)
    except (ChannelClosed, KafkaError, TimeoutError):
        return None
