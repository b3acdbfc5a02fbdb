"""What a handler knows about the request it answers."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from broker.security.access import UNRESTRICTED, Access
from protocol.connection import Buffer

if TYPE_CHECKING:
    from broker.services import Services


class CloseConnection(Exception):
    """Raised by a handler to close the connection without an answer, as Kafka does (a failed Produce with acks=0).

    Whoever failed to authenticate is told so in `last_words`, after a delay: guessing passwords takes its time.
    """

    def __init__(
        self, reason: str, last_words: Sequence[Buffer] = (), delay_s: float = 0.0, label: str = "bad request"
    ) -> None:
        """`label` is what metrics call the reason."""
        super().__init__(reason)
        self.label = label
        self.last_words = last_words
        self.delay_s = delay_s


class ClientConnection(Protocol):
    """A client's connection as handlers see it; `broker.net` implements it."""

    client_host: str
    client_software_name: str
    client_software_version: str
    close_callbacks: set[Callable[[], None]]
    """Run once when the connection is lost, so that a parked long poll or join can drop what it holds."""

    @property
    def advertised(self) -> tuple[str, int]:
        """Host and port that clients of the same listener are told to connect to."""


class RequestContext:
    """One request's surroundings; slots, because one is built for each request."""

    __slots__ = ("access", "api_version", "client_host", "client_id", "connection", "services")

    def __init__(
        self,
        services: "Services",
        api_version: int,
        client_id: str | None,
        client_host: str,
        connection: ClientConnection,
        access: Access = UNRESTRICTED,
    ) -> None:
        self.services = services
        self.api_version = api_version
        self.client_id = client_id
        self.client_host = client_host
        self.connection = connection
        self.access = access


class RequestHead:
    """A request's header behind the correlation id, as bytes and as what follows from it: clients send it unchanged."""

    __slots__ = ("body_position", "context", "data", "route")

    def __init__(self, route: object, data: bytes, body_position: int, context: RequestContext) -> None:
        self.route = route
        self.data = data
        self.body_position = body_position
        self.context = context
