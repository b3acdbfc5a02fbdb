"""Accepts connections over TLS: each handshake has a limited time, and counts as a connection while it lasts.

`loop.create_server` would do the same, but tells nobody of handshakes that are under way or have failed.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable

# A peer that begins a handshake and goes silent keeps a descriptor and some 300 KB of OpenSSL's and the loop's buffers.
HANDSHAKE_TIMEOUT_S = 30.0
# How long a peer gets to say goodbye.
SHUTDOWN_TIMEOUT_S = 5.0
# After an accept that failed, for want of descriptors for example; asyncio's own servers wait as long.
RETRY_S = 1.0


class TlsServer:
    """One listening address; `handshakes` are under way."""

    def __init__(
        self,
        new_protocol: Callable[[], asyncio.BaseProtocol],
        context: Callable[[], ssl.SSLContext],
        refused: Callable[[str, str], None],
    ) -> None:
        """`context` is asked for each connection, so that certificates can be renewed; it may raise OSError.

        `refused` is told the host and the reason of a handshake that failed.
        """
        self._new_protocol = new_protocol
        self._context = context
        self._refused = refused
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket: socket.socket

    def start(self, host: str, port: int, *, backlog: int, full: Callable[[], bool]) -> tuple[str, int]:
        """Listens; returns the bound host and port. New connections are closed while there are enough: `full`. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=backlog)
        self._socket.setblocking(False)
        self._add(asyncio.get_running_loop().create_task(self._accept(full)))
        bound = self._socket.getsockname()
        return bound[0], bound[1]

    @property
    def handshakes(self) -> int:
        return len(self._tasks) - 1

    def close(self) -> None:
        """Stops accepting; handshakes under way are broken off."""
        for task in self._tasks:
            task.cancel()
        self._socket.close()

    def _add(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, full: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._socket)
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            if full():
                self._refused(address[0], "too many connections")
                connection.close()
            else:
                self._add(loop.create_task(self._shake_hands(connection, address[0])))

    async def _shake_hands(self, connection: socket.socket, host: str) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._new_protocol,
                connection,
                ssl=self._context(),
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            )
        except ConnectionResetError:  # checks whether somebody listens end like this all the time
            connection.close()
        except OSError as error:  # ssl.SSLError and TimeoutError are OSErrors
            connection.close()
            self._refused(host, str(error) or type(error).__name__)
