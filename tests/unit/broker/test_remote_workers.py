"""Places for vector workers from other machines: who comes back gets its own, who is silent or of another release gets none."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from broker.config import Config
from broker.search import remote_workers
from broker.search.remote_workers import RemotePlace, RemoteWorkers
from protocol.errors import ErrorCode, KafkaError
from tests.broker_process import free_port
from tests.integration.secure import Certificates
from vector.channel import Channel, software_version


@dataclass
class World:
    """Two places, numbers 3 and 4, and workers that say what they are told."""

    certificates: Certificates
    port: int = field(default_factory=free_port)
    prepared: list[Channel] = field(default_factory=list)
    joined: list[Channel] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = Config(
            vector_remote_workers=2,
            vector_worker_listen=f"127.0.0.1:{self.port}",
            vector_worker_ssl_keystore_location=self.certificates.broker,
            vector_worker_ssl_truststore_location=self.certificates.authority,
        )
        self.places = [RemotePlace({}, self._prepare, f"vector worker {number}") for number in (3, 4)]
        self.workers = RemoteWorkers(config, self.places, 3)
        self.workers.listen()

    async def _prepare(self, channel: Channel) -> None:
        self.prepared.append(channel)

    async def connect(self) -> Channel:
        context = ssl.create_default_context(cafile=self.certificates.authority)
        context.load_cert_chain(self.certificates.user)
        channel = Channel({"ping": lambda _: None, "stop": lambda _: None})
        await asyncio.get_running_loop().create_connection(lambda: channel, "localhost", self.port, ssl=context)
        self.joined.append(channel)
        return channel

    async def join(self, identity: str, version: str | None = None) -> tuple[Channel, int]:
        channel = await self.connect()
        message = {"identity": identity, "version": version or software_version()}
        return channel, (await channel.call("join", message))["worker"]

    async def close(self) -> None:
        self.workers.close()
        for channel in self.joined:
            channel.close()
        for place in self.places:
            await place.stop()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(Certificates.make(tmp_path, "worker"))
    yield world
    await world.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def test_each_worker_gets_a_place_and_the_same_one_when_it_comes_back(world: World) -> None:
    """Its folder has the indexes of that place."""
    first, first_place = await world.join("a")
    _, second_place = await world.join("b")
    assert {first_place, second_place} == {3, 4}
    await until(lambda: all(place.state == "running" for place in world.places))
    with pytest.raises(KafkaError, match="all 2 places") as refused:
        await world.join("c")
    assert refused.value.code == ErrorCode.POLICY_VIOLATION
    first.close()
    place = world.places[first_place - 3]
    await until(lambda: place.channel is None)
    assert (await world.join("a"))[1] == first_place
    await until(lambda: place.state == "running")
    assert place.restarts == 1


async def test_a_worker_whose_old_connection_hangs_takes_its_place_over(world: World) -> None:
    """A broken network is noticed after half a minute at this end, and at once at the other."""
    old, number = await world.join("a")
    await until(lambda: world.places[number - 3].channel is not None)
    hung = world.places[number - 3].channel
    _, again = await world.join("a")
    assert again == number
    await until(lambda: world.places[number - 3].channel not in (None, hung))
    await until(old.closed.is_set)


async def test_a_connection_that_says_nothing_is_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_workers, "JOIN_TIMEOUT_S", 0.01)
    channel = await world.connect()
    await until(channel.closed.is_set)
    assert not world.prepared


async def test_a_worker_of_another_release_is_told_so(world: World) -> None:
    with pytest.raises(KafkaError, match="the broker is") as refused:
        await world.join("a", "0.0.0")
    assert refused.value.code == ErrorCode.UNSUPPORTED_VERSION


async def test_before_it_has_joined_a_connection_may_ask_for_nothing(world: World) -> None:
    channel = await world.connect()
    channel.notify("read", (b"t" * 16, 0, 0, 100))
    await until(channel.closed.is_set)


def test_the_stores_of_workers_are_pem_whatever_those_of_kafka_s_listeners_are(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path)
    config = Config(
        ssl_keystore_type="PKCS12",
        ssl_truststore_type="PKCS12",
        ssl_keystore_location=tmp_path / "kafka.p12",
        ssl_truststore_location=tmp_path / "clients.p12",
        vector_remote_workers=1,
        vector_worker_listen="127.0.0.1:0",
        vector_worker_ssl_keystore_location=certificates.broker,
        vector_worker_ssl_truststore_location=certificates.authority,
    )
    RemoteWorkers(config, [], 1)


async def test_places_whose_worker_never_was_there_are_taken_first(world: World) -> None:
    first, number = await world.join("a")
    first.close()
    await until(lambda: world.places[number - 3].channel is None and not world.places[number - 3].taken)
    assert (await world.join("b"))[1] != number
