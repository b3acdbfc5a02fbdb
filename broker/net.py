"""Sockets: one `asyncio.BufferedProtocol` per client, no task per connection or request, one write per wake-up."""

import asyncio
import ssl
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from broker.bounded_log import BoundedLog
from broker.context import CloseConnection, RequestHead
from broker.metrics import Metrics
from broker.security.access import UNRESTRICTED, Access
from broker.tls_server import TlsServer
from protocol.connection import Buffer, FrameSizeError, ReceiveBuffer, ServerConnection

RECEIVE_BUFFER_BYTES = 256 * 1024
# What connections receive in one turn of the loop is committed together, up to about this much: beyond it, one write to the
# log for several of them saves little, and what was received leaves the CPU's cache.
UNCOMMITTED_BYTES_MAX = 64 * 1024
# Responses collected in one wake-up beyond this are written before the next request is looked at.
OUTPUT_BYTES_MAX = 1024 * 1024
# A client that does not read has at most this much, and one response, waiting; then its requests wait too.
WRITE_BUFFER_HIGH_BYTES = 1024 * 1024
# Responses that together are no larger are joined: cheaper than handing them to the kernel one by one.
JOINED_BYTES_MAX = 16 * 1024
IDLE_CHECKS_PER_PERIOD = 4
BACKLOG = 1024
UNWRITABLE, MUTED = 1, 2
PRODUCE_KEY = b"\0\0"
NO_LAYOUT = struct.Struct("sBB").unpack_from


Receive: TypeAlias = Callable[[memoryview, "Client"], None]
"""Takes a client's next frame, and sends or queues the response through `client.connection`; raises CloseConnection."""


@dataclass(slots=True)
class Entrance:
    """How clients of one address come in."""

    admit: Callable[["Client"], Receive]
    """Says who takes a new client's frames, and may give it its rights."""
    tls: Callable[[], ssl.SSLContext] | None = None
    advertised: tuple[str, int] = ("", 0)


class KafkaListener:
    """Accepts Kafka clients on one address or several and owns what their connections share."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        commit: Callable[[], None],
        metrics: Metrics,
        *,
        frame_bytes_max: int,
        connections_max: int,
        idle_ms: int,
        connection_wait_s: Callable[[str], float] = lambda _host: 0.0,
    ) -> None:
        """`commit` makes the appends of a chunk durable as configured; it runs once after each chunk of requests.

        `connection_wait_s` says by how many seconds a new connection from an address comes too early.
        """
        self.loop = loop
        self.commit = commit
        self.metrics = metrics
        self.frame_bytes_max = frame_bytes_max
        self.connections_max = connections_max
        self.shared = ReceiveBuffer(RECEIVE_BUFFER_BYTES)
        self.clients: set[Client] = set()
        self.log = BoundedLog(loop.time)
        self.connection_wait_s = connection_wait_s
        self._idle_s = idle_ms / 1000
        self.dirty: list[Client] = []
        """Whose responses are written at the end of this turn of the loop, all of a client's in one write."""
        self.turn_scheduled = False
        self._servers: list[asyncio.Server] = []
        self._tls_servers: list[TlsServer] = []
        self._idle_timer: asyncio.TimerHandle | None = None

    async def listen(self, host: str, port: int, entrance: Entrance) -> tuple[str, int]:
        """Listens at one more address; returns the bound host and port. Raises OSError."""
        if self._idle_timer is None:
            self._check_idle()
        if entrance.tls is not None:
            tls_server = TlsServer(lambda: Client(self, entrance), entrance.tls, self._handshake_failed)
            self._tls_servers.append(tls_server)
            return tls_server.start(host, port, backlog=BACKLOG, full=lambda: self.full)
        server = await self.loop.create_server(lambda: Client(self, entrance), host, port, backlog=BACKLOG)
        self._servers.append(server)
        address = server.sockets[0].getsockname()
        return address[0], address[1]

    @property
    def full(self) -> bool:
        """Whether no further connection is allowed; TLS handshakes that are under way count."""
        handshakes = sum(server.handshakes for server in self._tls_servers)
        return len(self.clients) + handshakes >= self.connections_max

    def _handshake_failed(self, host: str, reason: str) -> None:
        self.metrics.connections_closed["TLS handshake failed"] += 1
        self.log.warning("TLS handshake failed", client=host, reason=reason)

    async def stop(self) -> None:
        """Stops accepting, writes what is ready and closes every connection."""
        for server in self._servers:
            server.close()
        for tls_server in self._tls_servers:
            tls_server.close()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._end_turn()
        for client in list(self.clients):
            client.close("shutdown")
        await asyncio.sleep(0)

    def commit_soon(self) -> None:
        """Commits what all connections appended in this turn of the loop, once each of them has been read; ask once a turn."""
        self.turn_scheduled = True
        self.loop.call_soon(self._end_turn)

    def commit_now(self) -> None:
        """Commits what all connections appended; nothing of the receive buffer is borrowed any more."""
        self.commit()
        self.shared.used = 0

    def _end_turn(self) -> None:
        self.commit_now()
        self.turn_scheduled = False
        dirty, self.dirty = self.dirty, []
        for client in dirty:
            client.flush()

    def _check_idle(self) -> None:
        for client in list(self.clients):
            client.quiet_checks += 1
            if client.quiet_checks > IDLE_CHECKS_PER_PERIOD:
                client.close("idle")
        self._idle_timer = self.loop.call_later(self._idle_s / IDLE_CHECKS_PER_PERIOD, self._check_idle)


class Client(asyncio.BufferedProtocol):
    """One client's connection: bytes to the sans-io connection, its frames to the dispatcher, its output to the socket."""

    def __init__(self, listener: KafkaListener, entrance: Entrance) -> None:
        self._listener = listener
        self._entrance = entrance
        self._transport: asyncio.Transport
        self.connection = ServerConnection(listener.shared, listener.frame_bytes_max, self._flush_soon)
        self.receive: Receive
        """Who takes this client's frames: at first whoever authenticates it, then the dispatcher."""
        self.access: Access = UNRESTRICTED
        self.client_host = ""
        self.client_software_name = "unknown"
        self.client_software_version = "unknown"
        self.close_callbacks: set[Callable[[], None]] = set()
        # For the dispatcher: a client sends the same header again and again.
        self.request_head: RequestHead | None = None
        # For `broker.usual_produce`: reads what was the same in its last produces.
        self.produce_layout: Callable[[memoryview, int], tuple[Any, ...]] = NO_LAYOUT
        self.quiet_checks = 0
        """How often in a row nothing had arrived when the listener looked."""
        # asyncio asks this before each read: no method in between that only passes the question on.
        self.get_buffer = self.connection.receive_buffer  # type: ignore[method-assign]
        self._processing = False
        self._held = False
        self._dirty = False
        # Why no request is looked at: UNWRITABLE, MUTED.
        self._stopped = 0
        self._closing = False
        self._refused = False
        self._leaving = False
        self._refusal = "bad request"
        self._unmute: asyncio.TimerHandle | None = None

    @property
    def advertised(self) -> tuple[str, int]:
        """Host and port that clients of this one's listener are told to connect to."""
        return self._entrance.advertised

    @property
    def transport(self) -> asyncio.Transport:
        return self._transport

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        listener = self._listener
        peer = transport.get_extra_info("peername")
        self.client_host = peer[0] if isinstance(peer, tuple) else str(peer)
        too_many = self._entrance.tls is None and listener.full  # a TLS server has looked before the handshake
        listener.clients.add(self)
        listener.metrics.connections += 1
        listener.metrics.connections_total += 1
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_HIGH_BYTES)
        self.receive = self._entrance.admit(self)
        early_s = listener.connection_wait_s(self.client_host)
        if too_many:
            self.close("too many connections")
        elif early_s:
            reason = "too many new connections from this address"
            self._refuse(CloseConnection(reason, (), early_s, "connection rate"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._closing = True
        self._listener.clients.discard(self)
        self._listener.metrics.connections -= 1
        callbacks, self.close_callbacks = self.close_callbacks, set()
        for callback in callbacks:
            callback()

    def pause_writing(self) -> None:
        self._stopped |= UNWRITABLE

    def resume_writing(self) -> None:
        self._go_on(UNWRITABLE)

    def _go_on(self, stopped: int) -> None:
        """One reason less to let requests wait."""
        self._stopped &= ~stopped
        if self._held and self._may_go_on() and not self._refused and not self._closing:
            self._process()

    def mute(self, duration_ms: int) -> None:
        """For so long, no further request of this client is looked at: it has used up its quota."""
        self._stopped |= MUTED
        self._listener.metrics.throttled += 1
        if self._unmute is not None:
            self._unmute.cancel()
        self._unmute = self._listener.loop.call_later(duration_ms / 1000, self._go_on, MUTED)

    def buffer_updated(self, nbytes: int) -> None:
        listener = self._listener
        listener.metrics.bytes_in += nbytes
        self.quiet_checks = 0
        connection = self.connection
        frame = connection.received(nbytes)
        at_once = listener.shared.used > UNCOMMITTED_BYTES_MAX or nbytes > UNCOMMITTED_BYTES_MAX
        if frame is None or at_once or connection.pending or self._stopped or self._closing:
            if frame is not None:
                connection.put_back(frame)
            self._process(at_once=at_once)
            return
        # What `_process` does for a lone request, which most are.
        if not listener.turn_scheduled:
            listener.commit_soon()
        try:
            self.receive(frame, self)
        except CloseConnection as error:
            self._refuse(error)
            return
        if connection.output_bytes:
            self._write()

    # Requests and responses

    def _process(self, *, at_once: bool = False) -> None:
        """Handles every frame received so far, then commits what was appended, at once or at the end of this turn of the loop.

        Appended batches are borrowed from where the frames are, which the commit ends.
        """
        listener = self._listener
        self._processing = True
        refusal: CloseConnection | FrameSizeError | None = None
        try:
            hold = self._dispatch_frames()
        except (CloseConnection, FrameSizeError) as error:
            refusal, hold = error, False
        finally:
            if at_once:
                listener.commit_now()
            elif not listener.turn_scheduled:
                listener.commit_soon()
            self._processing = False
        if refusal is not None:
            self._refuse(refusal)
            return
        connection = self.connection
        connection.keep_rest()
        if hold != self._held:
            self._held = hold
            if hold:
                self._transport.pause_reading()
            elif not self._closing:
                self._transport.resume_reading()
        if connection.output_bytes:
            self._write()
        if hold and self._may_go_on():
            self._flush_soon()

    def _refuse(self, refusal: CloseConnection | FrameSizeError) -> None:
        """Nothing more is read."""
        self._listener.log.warning("connection closed", client=self.client_host, reason=str(refusal))
        self._refused = True
        self._transport.pause_reading()
        if not isinstance(refusal, CloseConnection):
            self._leave()
            return
        self._refusal = refusal.label
        if refusal.delay_s:
            self._leaving = True
            self._write()
            self._listener.loop.call_later(refusal.delay_s, self._leave, refusal.last_words)
        else:
            self._leave(refusal.last_words)

    def _leave(self, last_words: Sequence[Buffer] = ()) -> None:
        """Closes once the requests before the bad one are answered, as Kafka does by handling one at a time."""
        self._leaving = False
        if last_words:
            self.connection.send(last_words)
        if not self.connection.pending:
            self.close(self._refusal)

    def _dispatch_frames(self) -> bool:
        """Dispatches frames; returns True when one has to wait for responses before it."""
        connection = self.connection
        while connection.position != connection.end and not self._closing:
            frame = connection.next_frame()
            if frame is None:
                break
            if connection.pending:
                overlapping = frame[:2].tobytes() == PRODUCE_KEY
                if not connection.admits(overlapping):
                    # With sync=os and interval the responses of the produces before are ready once they are written.
                    self._listener.commit()
                    if not connection.admits(overlapping):
                        connection.put_back(frame)
                        return True
            if self._stopped:
                connection.put_back(frame)
                return True
            self.receive(frame, self)
            if connection.output_bytes > OUTPUT_BYTES_MAX:
                self._write()
        return False

    def _flush_soon(self) -> None:
        """Writes at the end of this turn of the loop, unless `_process` is about to."""
        if self._dirty or self._processing:
            return
        self._dirty = True
        listener = self._listener
        listener.dirty.append(self)
        if not listener.turn_scheduled:
            listener.commit_soon()

    def _may_go_on(self) -> bool:
        return not self._stopped and not self.connection.pending

    def flush(self) -> None:
        """Writes the responses that are ready, then goes on with requests that waited for them."""
        self._dirty = False
        self._write()
        if self._refused:
            if not self._leaving:
                self._leave()
        elif self._held and self._may_go_on() and not self._closing:
            self._process()

    def _write(self) -> None:
        connection = self.connection
        size = connection.output_bytes
        if not size:
            return
        output = connection.take_output()
        if self._transport.is_closing():
            return
        self._listener.metrics.bytes_out += size
        if size <= JOINED_BYTES_MAX:
            self._transport.write(b"".join(output))
        else:
            self._transport.writelines(output)

    def expect_within(self, seconds: float, reason: str) -> Callable[[], None]:
        """Closes the connection for `reason` unless the returned function is called in time."""
        timer = self._listener.loop.call_later(seconds, self.close, reason)
        self.close_callbacks.add(timer.cancel)

        def done() -> None:
            timer.cancel()
            self.close_callbacks.discard(timer.cancel)

        return done

    def close(self, reason: str) -> None:
        """Closes after the output so far; requests without a response yet get none."""
        if self._closing:
            return
        self._closing = True
        self._listener.metrics.connections_closed[reason] += 1
        self._write()
        self._transport.close()
