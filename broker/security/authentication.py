"""SASL on one connection, as Kafka's SaslServerAuthenticator: handshake, tokens, and authenticating again (KIP-368)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from broker.context import CloseConnection
from broker.dispatch import Dispatcher, Incoming
from broker.net import Client
from broker.security.sasl import BrokenExchange, Exchange, NewExchange, SaslFailure
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import (
    ApiVersionsRequest,
    Message,
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
    SaslHandshakeRequest,
    SaslHandshakeResponse,
    message_class,
)
from storage.clock import Clock

# Kafka waits for its idle timeout, ten minutes, which keeps what a stranger occupies for as long.
TIMEOUT_S = 60.0
# Kafka's MIN_REAUTH_INTERVAL_ONE_SECOND: sooner, a handshake is a request like others, and refused.
REAUTHENTICATION_INTERVAL_S = 1.0
FAILED = "authentication failed"
_HANDSHAKE_KEY = int(ApiKey.SASL_HANDSHAKE).to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class SaslSettings:
    """What all connections of a SASL listener share."""

    mechanisms: Mapping[str, NewExchange]
    welcome: Callable[[Client, str], None]
    """Gives a client that has become a principal its rights."""
    clock: Clock
    receive_bytes_max: int
    """The largest frame of a client that is not authenticated."""
    reauthentication_ms: int
    """The longest session; 0: without end."""
    failure_delay_s: float


class Session:
    """An authenticated connection whose time is limited; a request that comes too late ends it."""

    def __init__(
        self, settings: SaslSettings, dispatcher: Dispatcher, mechanism: str, principal: str, expires_s: float
    ) -> None:
        self.mechanism = mechanism
        self.principal = principal
        self._settings = settings
        self._dispatcher = dispatcher
        self._expires_s = expires_s
        self._began_again_s: float | None = None

    def renew(self, expires_s: float) -> None:
        self._expires_s = expires_s

    def receive(self, frame: memoryview, client: Client) -> None:
        """Begins a re-authentication, or passes the request on; raises CloseConnection once the session has expired."""
        now_s = self._settings.clock.monotonic()
        if frame[:2] == _HANDSHAKE_KEY and self._may_begin(now_s):
            self._began_again_s = now_s
            Authentication(self._settings, self._dispatcher, client, self).receive(frame, client)
            return
        if now_s > self._expires_s:
            raise CloseConnection(f"the session of {self.principal} has expired")
        self._dispatcher.dispatch(frame, client)

    def _may_begin(self, now_s: float) -> bool:
        return self._began_again_s is None or now_s - self._began_again_s >= REAUTHENTICATION_INTERVAL_S


class Authentication:
    """Takes a client's frames until it is authenticated. After each failure the connection ends."""

    def __init__(
        self, settings: SaslSettings, dispatcher: Dispatcher, client: Client, session: Session | None = None
    ) -> None:
        """`session`: what is to be renewed."""
        self._settings = settings
        self._dispatcher = dispatcher
        self._session = session
        self._versions_asked = session is not None
        self._mechanism = ""
        self._exchange: Exchange | None = None
        self._bare = False
        self._frame_bytes_max = client.connection.frame_bytes_max
        client.connection.frame_bytes_max = settings.receive_bytes_max
        self._done = client.expect_within(TIMEOUT_S, "not authenticated in time")
        client.receive = self.receive

    def receive(self, frame: memoryview, client: Client) -> None:
        """Raises CloseConnection."""
        if self._bare:
            self._bare_token(bytes(frame), client)
            return
        incoming = self._dispatcher.read(frame, client)
        if incoming is None:
            return  # an unknown version of ApiVersions, and answered
        if self._exchange is None:
            self._begin(incoming, client)
        elif isinstance(incoming.request, SaslAuthenticateRequest):
            self._token(self._exchange, incoming, client)
        else:
            reason = f"{incoming.route.name} during SASL authentication"
            self._refuse(incoming, _illegal_state(ApiKey(incoming.route.key)), reason)

    def _begin(self, incoming: Incoming, client: Client) -> None:
        request = incoming.request
        if isinstance(request, ApiVersionsRequest) and not self._versions_asked:
            response = incoming.route.handle(incoming.context, request)
            self._versions_asked = not response.error_code
            self._dispatcher.answer(incoming, response, client)
        elif isinstance(request, SaslHandshakeRequest):
            self._handshake(incoming, request.mechanism, client)
        else:
            raise CloseConnection(f"{incoming.route.name} before SASL authentication")

    def _handshake(self, incoming: Incoming, mechanism: str, client: Client) -> None:
        enabled = list(self._settings.mechanisms)
        if mechanism not in self._settings.mechanisms:
            reason = f"SASL mechanism {mechanism[:100]!r} is none of {', '.join(enabled)}"
            if self._session is not None:
                raise CloseConnection(reason)
            answer = SaslHandshakeResponse(error_code=ErrorCode.UNSUPPORTED_SASL_MECHANISM, mechanisms=enabled)
            self._refuse(incoming, answer, reason)
        self._mechanism = mechanism
        self._exchange = self._settings.mechanisms[mechanism]()
        self._bare = incoming.context.api_version == 0
        self._dispatcher.answer(incoming, SaslHandshakeResponse(mechanisms=enabled), client)

    def _token(self, exchange: Exchange, incoming: Incoming, client: Client) -> None:
        try:
            answer = self._respond(exchange, incoming.request.auth_bytes)
        except SaslFailure as error:
            message = SaslAuthenticateResponse(
                error_code=ErrorCode.SASL_AUTHENTICATION_FAILED, error_message=str(error), auth_bytes=b""
            )
            self._refuse(incoming, message, self._told(error), self._settings.failure_delay_s)
            return
        response = SaslAuthenticateResponse(error_message="", auth_bytes=answer)
        if exchange.principal is not None:
            response.session_lifetime_ms = self._finish(exchange, exchange.principal, client)
        self._dispatcher.answer(incoming, response, client)

    def _bare_token(self, token: bytes, client: Client) -> None:
        """After SaslHandshake v0: tokens and answers without any header; failures have no answer."""
        assert self._exchange is not None
        try:
            answer = self._respond(self._exchange, token)
        except SaslFailure as error:
            raise CloseConnection(self._told(error), (), self._settings.failure_delay_s, FAILED) from None
        client.connection.send((len(answer).to_bytes(4, "big") + answer,))
        if self._exchange.principal is not None:
            self._finish(self._exchange, self._exchange.principal, client)

    def _respond(self, exchange: Exchange, token: bytes) -> bytes:
        if self._session is not None and self._session.mechanism != self._mechanism:
            raise CloseConnection(
                f"re-authentication by {self._mechanism}, the session began by {self._session.mechanism}"
            )
        try:
            answer = exchange.respond(token)
        except BrokenExchange as error:
            raise CloseConnection(self._told(error), label=FAILED) from None
        if self._session is not None and exchange.principal not in (None, self._session.principal):
            raise SaslFailure("Cannot change principals during re-authentication")
        return answer

    def _told(self, error: Exception) -> str:
        return f"SASL {self._mechanism}: {error}"

    def _finish(self, exchange: Exchange, principal: str, client: Client) -> int:
        """The client is who it says; returns the session's lifetime in ms, 0 for one without end."""
        self._done()
        client.connection.frame_bytes_max = self._frame_bytes_max
        settings = self._settings
        limits = [settings.reauthentication_ms] if settings.reauthentication_ms else []
        if exchange.expires_at_ms is not None:
            limits.append(max(0, exchange.expires_at_ms - settings.clock.time_ms()))
        if self._session is None:
            settings.welcome(client, principal)
        if not limits:
            client.receive = self._dispatcher.dispatch
            return 0
        lifetime_ms = min(limits)
        expires_s = settings.clock.monotonic() + lifetime_ms / 1000
        session = self._session
        if session is None:
            session = Session(settings, self._dispatcher, self._mechanism, principal, expires_s)
        session.renew(expires_s)
        client.receive = session.receive
        return lifetime_ms

    def _refuse(self, incoming: Incoming, message: object, reason: str, delay_s: float = 0.0) -> None:
        """Raises CloseConnection with `message` as the last words."""
        words = self._dispatcher.encode(incoming.route, incoming.correlation_id, message)
        raise CloseConnection(reason, words, delay_s, FAILED)


def _illegal_state(key: ApiKey) -> Message:
    """The API's own answer, with the error where it has a place for one; empty otherwise."""
    answer = message_class(f"{key.message_name}Response")()
    values = {
        "error_code": ErrorCode.ILLEGAL_SASL_STATE,
        "error_message": ErrorCode.ILLEGAL_SASL_STATE.text,
        "node_id": -1,  # FindCoordinator names nobody
        "port": -1,
    }
    for name in values.keys() & set(answer.FIELDS):
        setattr(answer, name, values[name])
    return answer
