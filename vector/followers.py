"""The workers that have other partitions of a topic, as the worker that leads its generations sees them: over the broker."""

from typing import Any

from vector.channel import Channel
from vector.generation import Roles


class Followers:
    """Raises ChannelClosed. A worker that is not there now hears of it all when it is back."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def tell(self, topic_id: bytes, roles: Roles) -> None:
        """What the generations are for, from now on; returns when those that are gone are closed everywhere."""
        await self._call("lead_tell", (topic_id, roles.to_message()))

    async def hold(self, topic_id: bytes, generation: int) -> bool:
        """Lets the live generation wait for the one that is being built; whether that has all records now, in every worker."""
        return bool(await self._call("lead_hold", (topic_id, generation)))

    async def release(self, topic_id: bytes) -> None:
        """Nothing came of it: the live generation goes on."""
        await self._call("lead_release", topic_id)

    async def _call(self, name: str, message: Any) -> Any:
        return await self._channel.call(name, message)
