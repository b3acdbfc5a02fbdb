"""Clients over TLS: the handshake, within a limited time and counted as a connection, then a `Client` like any other."""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from broker.net import Client, Entrance, KafkaListener

# A peer that begins a handshake and goes silent keeps a descriptor and some 300 KB of OpenSSL's and the loop's buffers.
HANDSHAKE_TIMEOUT_S = 30.0
# How long a peer gets to say goodbye.
SHUTDOWN_TIMEOUT_S = 5.0


class TlsClient(Client):
    """A client whose first bytes may come together with the end of the handshake, before its transport is known."""

    _made = False
    _lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the handshake, which also hands over what came early."""
        if self._lost:
            transport.close()
            return
        self._made = True
        super().connection_made(transport)
        self._process(self._listener.commit_soon)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._made:
            super().connection_lost(exc)
        else:
            self._lost = True

    def buffer_updated(self, nbytes: int) -> None:
        if self._made:
            super().buffer_updated(nbytes)
        else:
            self.connection.received(nbytes)
            self.connection.keep_rest()


class TlsHandshake(asyncio.Protocol):
    """A new connection until its handshake is done."""

    def __init__(self, listener: KafkaListener, entrance: Entrance, context: Callable[[], ssl.SSLContext]) -> None:
        """`context` may give another one for each connection, with renewed certificates. Raises ssl.SSLError, OSError."""
        self._listener = listener
        self._entrance = entrance
        self._context = context

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        listener = self._listener
        task = listener.loop.create_task(self._shake_hands(cast("asyncio.Transport", transport)))
        listener.handshakes.add(task)
        task.add_done_callback(listener.handshakes.discard)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002
        """Does not happen: the handshake reads from the first turn of the loop on."""
        raise RuntimeError("bytes before the TLS handshake began")

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        listener = self._listener
        peer = transport.get_extra_info("peername")
        if listener.full:
            transport.abort()
            listener.metrics.connections_closed["too many connections"] += 1
            return
        client = TlsClient(listener, self._entrance)
        try:
            encrypted = await listener.loop.start_tls(
                transport,
                client,
                self._context(),
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            transport.abort()
            listener.metrics.connections_closed["TLS handshake failed"] += 1
            listener.log.warning(
                "TLS handshake failed", client=peer[0] if peer else "", reason=str(error) or "no reason"
            )
            return
        if encrypted is not None:
            client.connection_made(encrypted)
