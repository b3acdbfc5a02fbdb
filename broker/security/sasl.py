"""What every SASL mechanism is to the connection: an exchange of tokens that ends with a principal or fails."""

from collections.abc import Callable
from typing import Protocol, TypeAlias


class SaslFailure(Exception):
    """The client is told the message, with SASL_AUTHENTICATION_FAILED, and its connection ends."""


class BrokenExchange(Exception):
    """What Kafka itself stumbles over: the connection ends without an answer."""


class Exchange(Protocol):
    """One client's authentication, step by step."""

    @property
    def principal(self) -> str | None:
        """`User:NAME` once the client is who it says; None before."""

    @property
    def expires_at_ms(self) -> int | None:
        """When what it showed ceases to be valid, in ms since 1970; None: never."""

    def respond(self, token: bytes) -> bytes:
        """The server's answer to the client's next token; raises SaslFailure, BrokenExchange."""


NewExchange: TypeAlias = Callable[[], Exchange]
