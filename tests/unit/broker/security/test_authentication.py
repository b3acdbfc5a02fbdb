"""SASL on a connection: what a stranger can make the broker hold, how long it may stay, and sessions that end."""

from types import SimpleNamespace
from typing import Any

import pytest

from broker.dispatch import Dispatcher
from broker.features import Features
from broker.meta_store import Metadata
from broker.metrics import Metrics
from broker.net import Client, Entrance, KafkaListener
from broker.registry import load_handlers
from broker.security.access import Access
from broker.security.authentication import TIMEOUT_S, Authentication, SaslSettings
from broker.security.plain import PlainExchange
from protocol.api_keys import ApiKey
from protocol.codec import decode_response, encode_request
from protocol.headers import decode_response_header, encode_request_header
from protocol.messages import ApiVersionsRequest, SaslAuthenticateRequest, SaslHandshakeRequest
from tests.integration.raw import frame
from tests.unit.broker.test_net import Loop, Transport

LIMIT = 4096
PASSWORDS = {"alice": "alice-secret", "bob": "bob-secret"}


class TimedLoop(Loop):
    """Calls that are due later happen when time has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[tuple[float, Any, tuple[Any, ...]]] = []

    def call_later(self, delay: float, callback: Any, *args: Any) -> Any:
        timer = (self.now + delay, callback, args)
        self.timers.append(timer)
        return SimpleNamespace(cancel=lambda: timer in self.timers and self.timers.remove(timer))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for timer in [timer for timer in self.timers if timer[0] <= self.now]:
            self.timers.remove(timer)
            timer[1](*timer[2])
        self.turn()


class Door:
    """One client at a SASL listener."""

    def __init__(self, reauthentication_ms: int = 0) -> None:
        self.loop = TimedLoop()
        self.metrics = Metrics()
        store: Any = SimpleNamespace(metadata=Metadata("test"))
        services: Any = SimpleNamespace(metrics=self.metrics, features=Features(store, 1))
        self.dispatcher = Dispatcher(services, load_handlers(), self.loop)  # type: ignore[arg-type]
        self.settings = SaslSettings(
            mechanisms={"PLAIN": lambda: PlainExchange(lambda name, password: PASSWORDS.get(name) == password)},
            welcome=self.welcome,
            clock=SimpleNamespace(monotonic=lambda: self.loop.now, time_ms=lambda: int(self.loop.now * 1000)),
            receive_bytes_max=LIMIT,
            reauthentication_ms=reauthentication_ms,
            failure_delay_s=0.1,
        )
        self.listener = KafkaListener(
            self.loop,  # type: ignore[arg-type]
            lambda: None,
            self.metrics,
            frame_bytes_max=1 << 20,
            connections_max=10,
            idle_ms=10_000_000,
        )
        entrance = Entrance(lambda client: Authentication(self.settings, self.dispatcher, client).receive)
        self.client = Client(self.listener, entrance)
        self.transport = Transport(self.client)
        self.client.connection_made(self.transport)  # type: ignore[arg-type]
        self.seen = 0

    def welcome(self, client: Client, principal: str) -> None:
        client.access = Access(principal)

    def deliver(self, data: bytes) -> None:
        while data and self.transport.reading:
            buffer = self.client.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self.client.buffer_updated(size)
            data = data[size:]
        self.loop.turn()

    def ask(self, key: ApiKey, version: int, request: Any) -> Any:
        """The decoded answer; None when there is none (yet)."""
        header = encode_request_header(key, version, 7, "test")
        self.deliver(frame(b"".join([header, *encode_request(key, version, request)])))
        return self.answer(key, version)

    def answer(self, key: ApiKey, version: int) -> Any:
        written = b"".join(self.transport.writes)[self.seen :]
        self.seen += len(written)
        if not written:
            return None
        data = memoryview(written[4:])
        _, position = decode_response_header(key, version, data)
        return decode_response(key, version, data, position)

    def handshake(self) -> Any:
        return self.ask(ApiKey.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="PLAIN"))

    def token(self, name: str, password: str) -> Any:
        token = f"\0{name}\0{password}".encode()
        return self.ask(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=token))

    def login(self, name: str = "alice") -> Any:
        self.handshake()
        return self.token(name, PASSWORDS[name])

    def versions(self) -> Any:
        return self.ask(ApiKey.API_VERSIONS, 2, ApiVersionsRequest())


@pytest.mark.parametrize("size", [LIMIT + 1, 1 << 19, 100 << 20, -1])
def test_a_stranger_cannot_announce_a_large_frame(size: int) -> None:
    """The connection ends with the size field; no buffer is made for what was announced."""
    door = Door()
    door.deliver(size.to_bytes(4, "big", signed=True))
    assert door.transport.closed


def test_a_stranger_makes_the_broker_hold_no_more_than_one_bounded_frame() -> None:
    """A frame within the limit that never ends, byte by byte and at once."""
    for pieces in ([b"x"] * (LIMIT - 1), [b"x" * (LIMIT - 1)]):
        door = Door()
        door.deliver(LIMIT.to_bytes(4, "big"))
        for piece in pieces:
            door.deliver(piece)
        assert not door.transport.closed
        held = door.client.connection._data
        assert held.nbytes == 4 + LIMIT - 1


def test_a_client_that_is_authenticated_may_send_large_frames() -> None:
    """The limit is of strangers alone."""
    door = Door()
    door.login()
    door.deliver((1 << 19).to_bytes(4, "big"))
    assert not door.transport.closed


def test_a_stranger_has_a_minute() -> None:
    """Half-open connections, and those that stop in the middle, end by themselves; others do not."""
    silent, halfway, known = Door(), Door(), Door()
    halfway.handshake()
    known.login()
    for door in (silent, halfway, known):
        door.loop.pass_time(TIMEOUT_S - 1)
        assert not door.transport.closed
        door.loop.pass_time(2)
    assert silent.transport.closed
    assert halfway.transport.closed
    assert not known.transport.closed
    assert not known.loop.timers


def test_a_failure_is_told_after_the_delay_and_nothing_is_read_meanwhile() -> None:
    """`connection.failed.authentication.delay.ms`; the second guess of a connection is not even looked at."""
    door = Door()
    door.handshake()
    assert door.token("alice", "wrong") is None
    assert not door.transport.reading
    assert not door.transport.closed
    door.loop.pass_time(0.1)
    answer = door.answer(ApiKey.SASL_AUTHENTICATE, 2)
    assert (answer.error_code, answer.error_message) == (58, "Authentication failed: Invalid username or password")
    assert door.transport.closed
    assert door.metrics.connections_closed == {"authentication failed": 1}


def test_a_client_that_is_let_in_has_its_principal() -> None:
    """And its requests reach the handlers."""
    door = Door()
    assert door.login().error_code == 0
    assert door.client.access.principal == "User:alice"
    assert door.versions().error_code == 0


def test_a_session_ends_with_the_first_request_after_its_time() -> None:
    """KIP-368: an idle connection stays; a request ends it, a handshake renews it."""
    door = Door(reauthentication_ms=3000)
    assert door.login().session_lifetime_ms == 3000
    door.loop.pass_time(2.9)
    assert door.versions().error_code == 0
    door.loop.pass_time(10)
    assert not door.transport.closed
    assert door.login().session_lifetime_ms == 3000
    assert door.versions().error_code == 0
    door.loop.pass_time(3.1)
    assert door.versions() is None
    assert door.transport.closed


def test_another_principal_cannot_take_over_a_connection() -> None:
    """Re-authentication is for the same user."""
    door = Door(reauthentication_ms=3000)
    door.login("alice")
    door.loop.pass_time(1)
    assert door.login("bob") is None
    door.loop.pass_time(1)
    assert door.answer(ApiKey.SASL_AUTHENTICATE, 2).error_code == 58
    assert door.transport.closed


def test_handshakes_within_a_second_are_refused_as_requests() -> None:
    """Kafka's least interval; the first re-authentication may come at once."""
    door = Door(reauthentication_ms=3000)
    door.login()
    door.login()
    assert door.handshake().error_code == 34
    assert not door.transport.closed
