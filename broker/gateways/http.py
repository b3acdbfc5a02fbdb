"""uvicorn inside the broker's own event loop."""

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

import uvicorn

from broker.gateways.rest import build_app

if TYPE_CHECKING:
    from broker.services import Services

_BACKLOG = 512
# `serve` has 5 s for a clean stop in all; searches still running get this much of it.
_DRAIN_S = 1


class HttpServer:
    """A running HTTP gateway; `host` and `port` are the bound ones."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket) -> None:
        self._server = server
        self._listener = listener
        self.host, self.port = listener.getsockname()[:2]
        self._loop_task = asyncio.get_running_loop().create_task(server.main_loop())

    async def close(self) -> None:
        """Stops accepting, lets running requests end for a moment, closes the connections."""
        self._server.should_exit = True
        self._loop_task.cancel()  # it looks every 0.1 s only whether it is to end, and then ends
        await self._server.shutdown(sockets=[self._listener])


async def start_http(services: "Services", host: str, port: int, tls: ssl.SSLContext | None = None) -> HttpServer:
    """Serves REST, health and metrics on `host:port` (0: a free port), with or without TLS. Raises OSError when it cannot bind."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    listener.setblocking(False)
    config = uvicorn.Config(
        build_app(services),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    config.load()
    config.ssl = tls
    server = uvicorn.Server(config)
    # uvicorn's own serve() would take over the signals, which are app's.
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    return HttpServer(server, listener)
