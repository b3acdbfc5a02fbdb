"""What a handler knows about the request it answers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from broker.services import Services


class CloseConnection(Exception):
    """Raised by a handler to close the connection without an answer, as Kafka does (a failed Produce with acks=0)."""


class ClientConnection(Protocol):
    """A client's connection as handlers see it; `broker.net` implements it."""

    client_host: str
    client_software_name: str
    client_software_version: str
    close_callbacks: set[Callable[[], None]]
    """Run once when the connection is lost, so that a parked long poll or join can drop what it holds."""


class RequestContext:
    """One request's surroundings; slots, because one is built for each request."""

    __slots__ = ("api_version", "client_host", "client_id", "connection", "services")

    def __init__(
        self,
        services: "Services",
        api_version: int,
        client_id: str | None,
        client_host: str,
        connection: ClientConnection,
    ) -> None:
        self.services = services
        self.api_version = api_version
        self.client_id = client_id
        self.client_host = client_host
        self.connection = connection


class RequestHead:
    """A request's header behind the correlation id, as bytes and as what follows from it: clients send it unchanged."""

    __slots__ = ("body_position", "context", "data", "route")

    def __init__(self, route: object, data: bytes, body_position: int, context: RequestContext) -> None:
        self.route = route
        self.data = data
        self.body_position = body_position
        self.context = context
