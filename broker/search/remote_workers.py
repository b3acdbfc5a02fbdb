"""Vector workers on other machines: they come over TCP with TLS, both sides showing certificates, and take the places kept for them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import structlog

from broker.config import Config, ConfigError, format_address, parse_address
from broker.search.supervisor import PREPARE_TIMEOUT_S, STOP_TIMEOUT_S, heed, named_timeout, stop_worker
from broker.security.tls import ServerTls
from broker.tls_server import TlsServer
from protocol.errors import ErrorCode, KafkaError
from vector.channel import Channel, Handler, software_version

BACKLOG = 16
JOIN_TIMEOUT_S = 10.0
"""For a connection to say who it is."""

logger = structlog.get_logger(__name__)


class RemotePlace:
    """Kept for one worker from another machine; to the fleet the same as a `WorkerSupervisor`."""

    process_id = None

    def __init__(
        self, handlers: Mapping[str, Handler], prepare: Callable[[Channel], Awaitable[None]], name: str
    ) -> None:
        self.name = name
        self.state: Literal["waiting", "starting", "running"] = "waiting"
        self.restarts = 0
        self.channel: Channel | None = None
        """The worker's that is there; None while there is none."""
        self.memory: dict[str, int | None] = {}
        self.identity: str | None = None
        """Of the worker that has been here last: its folder has the indexes of this place."""
        self.handlers = handlers
        self._prepare = prepare
        self._connection: Channel | None = None
        self._turn = asyncio.Lock()

    @property
    def address(self) -> str | None:
        """HOST:PORT that the worker comes from; None while it is not there."""
        return None if self.channel is None else self.channel.peer

    @property
    def taken(self) -> bool:
        return self._connection is not None

    def start(self) -> None:
        """Whoever comes is served."""

    async def serve(self, channel: Channel) -> None:
        """Until the channel closes; a connection from before, of the same worker, has ended then."""
        previous, self._connection = self._connection, channel
        if previous is not None:
            previous.close()
        async with self._turn:
            try:
                self.state = "starting"
                async with named_timeout("is not ready", PREPARE_TIMEOUT_S):
                    await self._prepare(channel)
                self.channel, self.state = channel, "running"
                logger.info("vector worker runs", worker=self.name, address=channel.peer)
                await heed(channel)
            except Exception as error:  # whatever it is, the place must be free again
                logger.error("vector worker failed", worker=self.name, error=str(error) or type(error).__name__)  # noqa: TRY400
            finally:
                channel.close()
                self.channel, self.state, self.memory = None, "waiting", {}
                self.restarts += 1
                if self._connection is channel:
                    self._connection = None
        logger.warning("vector worker left", worker=self.name, address=channel.peer)

    async def stop(self) -> None:
        """Lets the worker checkpoint; it looks for the next broker then."""
        if self.channel is not None:
            await stop_worker(self.channel)
        if self._connection is not None:
            self._connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S), self._turn:
                return


class RemoteWorkers:
    """The listener. Raises ConfigError for certificates that cannot be used."""

    def __init__(self, config: Config, places: Sequence[RemotePlace], first: int) -> None:
        """`first`: the number of the first place among all workers."""
        assert config.vector_worker_listen is not None
        self._address = parse_address(config.vector_worker_listen)
        self._places = places
        self._first = first
        self._tls = ServerTls(_tls_config(config))
        self._server = TlsServer(self._guest, self._tls.context, self._refused)
        self._tasks: set[asyncio.Task[None]] = set()
        self._guests = 0

    def listen(self) -> None:
        """Raises OSError."""
        bound = self._server.start(*self._address, backlog=BACKLOG, full=lambda: self._guests > 2 * len(self._places))
        logger.info("vector workers may come", address=format_address(*bound), places=len(self._places))

    def close(self) -> None:
        """Nobody comes any more."""
        self._server.close()

    def _refused(self, host: str, reason: str) -> None:
        logger.warning("vector worker refused", host=host, reason=reason)

    def _guest(self) -> Channel:
        """Of a connection whose certificate is good; all that it may do is join."""
        handlers: dict[str, Handler] = {}
        channel = Channel(handlers, on_close=self._left)
        handlers["join"] = lambda message: self._join(channel, handlers, message)
        self._guests += 1
        asyncio.get_running_loop().call_later(JOIN_TIMEOUT_S, self._expect, channel, handlers)
        return channel

    def _left(self) -> None:
        self._guests -= 1

    def _expect(self, channel: Channel, handlers: Mapping[str, Handler]) -> None:
        if "join" in handlers:
            channel.close()

    def _join(self, channel: Channel, handlers: dict[str, Handler], message: Mapping[str, Any]) -> dict[str, Any]:
        """Which place the worker has from now on. Raises KafkaError."""
        version, identity = message["version"], str(message["identity"])
        if version != software_version():
            raise KafkaError(
                ErrorCode.UNSUPPORTED_VERSION, f"the worker is Senselog {version}, the broker is {software_version()}"
            )
        known = [place for place in self._places if place.identity == identity]
        free = [place for place in self._places if not place.taken]
        chosen = next(iter([*known, *sorted(free, key=lambda place: place.identity is not None)]), None)
        if chosen is None:
            raise KafkaError(
                ErrorCode.POLICY_VIOLATION, f"all {len(self._places)} places of vector.remote.workers are taken"
            )
        chosen.identity = identity
        del handlers["join"]
        handlers.update(chosen.handlers)
        task = asyncio.get_running_loop().create_task(chosen.serve(channel))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return {"worker": self._first + self._places.index(chosen)}


def _tls_config(config: Config) -> Config:
    if config.vector_worker_ssl_truststore_location is None:
        raise ConfigError(
            "vector.worker.ssl.truststore.location: vector.worker.listen needs the authorities that sign workers"
        )
    keystore = config.vector_worker_ssl_keystore_location or config.ssl_keystore_location
    if keystore is None:
        raise ConfigError(
            "vector.worker.ssl.keystore.location: vector.worker.listen needs a PEM file with key and certificate"
        )
    own = {} if config.vector_worker_ssl_keystore_location is None else {"ssl_keystore_type": "PEM"}
    return config.model_copy(
        update={
            **own,
            "ssl_keystore_location": keystore,
            "ssl_truststore_type": "PEM",
            "ssl_truststore_location": config.vector_worker_ssl_truststore_location,
            "ssl_client_auth": "required",
        }
    )
