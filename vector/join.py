"""A worker on a machine of its own: joins a broker over TLS, and again whenever it has lost it."""

import asyncio
import json
import logging
import signal
import socket
import ssl
import uuid
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import KafkaError
from vector.channel import ChannelClosed, software_version
from vector.index.files import create_directory, write_durable
from vector.worker import OwnMachine, Worker

IDENTITY_FILE = "worker.json"
RETRY_MIN_S = 0.2
RETRY_MAX_S = 30.0
JOIN_TIMEOUT_S = 10.0
BROKER_SILENT_S = 30
"""A broker whose machine acknowledges nothing for so long is gone: a pulled cable, which nobody tells of."""
PROBE_AFTER_S, PROBE_INTERVAL_S, PROBES = 10, 5, 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the broker listens for workers, and what both sides show: PEM files, `keystore` with key, certificate and chain."""

    host: str
    port: int
    keystore: Path
    truststore: Path

    def context(self) -> ssl.SSLContext:
        """Raises OSError."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.truststore)
        # An empty password keeps OpenSSL from asking the terminal for that of an encrypted key.
        context.load_cert_chain(self.keystore, password="")
        return context


async def serve(broker: BrokerAddress, machine: OwnMachine) -> None:
    """Until SIGTERM or SIGINT, which end it with a checkpoint. Raises OSError for files that cannot be used."""
    broker.context()
    identity = _identity(machine.directory)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    wait_s = RETRY_MIN_S
    while not ended.is_set():
        worker = Worker(machine)
        stopping = loop.create_task(_close_when(ended, worker))
        try:
            joined = await _join(broker, worker, identity)
        except (OSError, KafkaError, ChannelClosed) as error:
            reason = getattr(error, "message", None) or str(error) or type(error).__name__
            logger.warning("cannot join the broker at %s:%d: %s", broker.host, broker.port, reason)
            await worker.end()
            await _sleep(ended, wait_s)
            wait_s = min(RETRY_MAX_S, wait_s * 2)
        else:
            wait_s = RETRY_MIN_S
            logger.warning("worker %d of the broker at %s:%d", joined, broker.host, broker.port)
            await worker.run()
            logger.warning("the broker at %s:%d has gone", broker.host, broker.port)
            await _sleep(ended, wait_s)
        finally:
            stopping.cancel()


async def _join(broker: BrokerAddress, worker: Worker, identity: str) -> int:
    """The place that the broker gives. Raises OSError (TimeoutError), KafkaError, ChannelClosed."""
    async with asyncio.timeout(JOIN_TIMEOUT_S):
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: worker.channel, broker.host, broker.port, ssl=broker.context()
        )
        _give_up_on_silence(transport.get_extra_info("socket"))
        message = {"version": software_version(), "identity": identity}
        return int((await worker.channel.call("join", message))["worker"])


def _give_up_on_silence(connection: socket.socket) -> None:
    """Lets the kernel end a connection whose other machine has fallen silent; as far as it can (Linux all, macOS and Windows in part)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    limits = {
        "TCP_USER_TIMEOUT": BROKER_SILENT_S * 1000,
        "TCP_KEEPIDLE": PROBE_AFTER_S,
        "TCP_KEEPINTVL": PROBE_INTERVAL_S,
        "TCP_KEEPCNT": PROBES,
    }
    for name, value in limits.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _close_when(ended: asyncio.Event, worker: Worker) -> None:
    await ended.wait()
    worker.channel.close()


async def _sleep(ended: asyncio.Event, wait_s: float) -> None:
    try:
        async with asyncio.timeout(wait_s):
            await ended.wait()
    except TimeoutError:
        return


def _identity(directory: Path) -> str:
    """What the folder is called by the broker, which gives it the same partitions again."""
    create_directory(directory)
    path = directory / IDENTITY_FILE
    if path.exists():
        return str(json.loads(path.read_text())["identity"])
    identity = uuid.uuid4().hex
    write_durable(path, [json.dumps({"identity": identity}).encode()])
    return identity
