"""Raw replay: pre-encoded frames over plain sockets, as fast as one Python thread can push them.

A real client library is the bottleneck of a produce test (librdkafka takes 96 to 100 % of its core while the broker takes 4 to
54 %), so the broker's own ceiling is only seen with frames encoded beforehand. Every answer's error code is checked before it counts:
error answers are fast.
"""

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

RECEIVE_BYTES = 1 << 20
STALL_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Channel:
    """One connection with a bounded number of requests in flight."""

    sock: socket.socket
    frame: bytes
    depth: int
    in_flight: int = 0
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    received: bytearray = field(default_factory=bytearray)
    sent_at: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay saw: requests answered, seconds it took, and round trips in seconds (only with one request in flight)."""

    requests: int
    seconds: float
    response_bytes: int
    round_trips_s: list[float]


def connect(bootstrap: str) -> socket.socket:
    """A non-blocking connection to HOST:PORT with Nagle's algorithm off."""
    host, _, port = bootstrap.rpartition(":")
    sock = socket.create_connection((host, int(port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


def replay(
    bootstrap: str, frames: list[bytes], *, depth: int, requests: int, check: Callable[[memoryview], None]
) -> Replay:
    """Sends `requests` copies of the frames, one connection per frame, `depth` in flight on each; `check` raises on a bad answer.

    `check` is given one response without its length prefix.
    """
    channels = {}
    poll = select.epoll()
    for frame in frames:
        channel = Channel(connect(bootstrap), frame, depth)
        channels[channel.sock.fileno()] = channel
        poll.register(channel.sock.fileno(), select.EPOLLIN)
    state = _Progress(requests, check)
    started = time.perf_counter()
    try:
        for channel in channels.values():
            state.fill(channel, poll)
        while state.answered < requests:
            events = poll.poll(STALL_TIMEOUT_S)
            if not events:
                raise TimeoutError(f"no answer for {STALL_TIMEOUT_S} s after {state.answered} of {requests} requests")
            for descriptor, event in events:
                channel = channels[descriptor]
                if event & select.EPOLLIN:
                    state.receive(channel)
                state.fill(channel, poll)
    finally:
        seconds = time.perf_counter() - started
        poll.close()
        for channel in channels.values():
            channel.sock.close()
    return Replay(requests, seconds, state.response_bytes, state.round_trips_s)


class _Progress:
    """Counts what was sent and answered over all channels."""

    def __init__(self, requests: int, check: Callable[[memoryview], None]) -> None:
        self.unsent_requests = requests
        self.answered = 0
        self.response_bytes = 0
        self.round_trips_s: list[float] = []
        self._check = check

    def fill(self, channel: Channel, poll: select.epoll) -> None:
        """Sends until the depth is reached or the socket is full."""
        while True:
            if not channel.unsent:
                if channel.in_flight >= channel.depth or not self.unsent_requests:
                    return
                self.unsent_requests -= 1
                channel.in_flight += 1
                channel.unsent = memoryview(channel.frame)
                channel.sent_at.append(time.perf_counter())
            try:
                sent = channel.sock.send(channel.unsent)
            except BlockingIOError:
                poll.modify(channel.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
                return
            channel.unsent = channel.unsent[sent:]
            if not channel.unsent:
                poll.modify(channel.sock.fileno(), select.EPOLLIN)

    def receive(self, channel: Channel) -> None:
        """Takes what has arrived and checks every whole answer in it."""
        data = channel.sock.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the broker closed the connection")
        received = channel.received
        received += data
        self.response_bytes += len(data)
        position, view = 0, memoryview(received)
        now = time.perf_counter()
        while len(received) - position >= 4:
            size = int.from_bytes(view[position : position + 4], "big")
            if len(received) - position - 4 < size:
                break
            self._check(view[position + 4 : position + 4 + size])
            position += 4 + size
            channel.in_flight -= 1
            self.answered += 1
            self.round_trips_s.append(now - channel.sent_at.pop(0))
        view.release()
        if position:
            del received[:position]
