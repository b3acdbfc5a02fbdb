"""TLS handshakes that never end: bounded in time and in number, told in metrics, and nobody else waits for them."""

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from broker import tls_server
from broker.tls_server import TlsServer


class Echo(asyncio.Protocol):
    """Answers every byte."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class World:
    """A server on a loopback port; `full` is the test's to set."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(directory / "authority.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        self.refusals: Counter[str] = Counter()
        self.full = False
        self.server = TlsServer(Echo, lambda: context, self.refused)
        self.host, self.port = self.server.start("127.0.0.1", 0, backlog=10, full=lambda: self.full)
        self.trusting = ssl.create_default_context(cafile=directory / "authority.pem")

    def refused(self, _host: str, reason: str) -> None:
        self.refusals["timed out" if "timeout" in reason.lower() or "longer" in reason else reason] += 1

    async def echo(self) -> bytes:
        reader, writer = await asyncio.open_connection(
            self.host, self.port, ssl=self.trusting, server_hostname="localhost"
        )
        writer.write(b"hello")
        answer = await reader.readexactly(5)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return answer


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(tls_server, "HANDSHAKE_TIMEOUT_S", 0.3)
    world = World(tmp_path)
    yield world
    world.server.close()
    await asyncio.sleep(0)


async def test_silent_and_stalled_peers_are_closed_in_time_and_hold_up_nobody(world: World) -> None:
    """Nothing sent, and a handshake that stops after its first message, whose answer is never read."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    strangers = []
    for data in (b"", hello):
        reader, writer = await asyncio.open_connection(world.host, world.port)
        writer.write(data)
        strangers.append((reader, writer))
    assert await world.echo() == b"hello"
    assert world.server.handshakes == 2
    for reader, writer in strangers:
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) is not None
        writer.close()
    assert world.server.handshakes == 0
    assert sum(world.refusals.values()) == 2


async def test_beyond_the_limit_connections_are_closed_before_any_handshake(world: World) -> None:
    """And when there is room again, the next one is served."""
    world.full = True
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await world.echo()
    assert world.refusals["too many connections"] == 1
    world.full = False
    assert await world.echo() == b"hello"
