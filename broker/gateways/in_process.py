"""Kafka requests without a socket: what REST and gRPC administer, produce and read goes through the same handlers as every client's.

So the checks, the codes, the texts and the permissions are the same by construction (docs/adr/0008).
"""

import asyncio
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Self

from broker.context import RequestContext
from broker.deferred import Deferred
from broker.gateways.authentication import access_of
from broker.registry import APIS, load_handlers
from broker.security.access import Access
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from fastapi import Request

    from broker.services import Services

CLIENT_ID = "senselog-gateway"


class InProcessConnection:
    """A ClientConnection that lives as long as one call."""

    def __init__(self, client_host: str, advertised: tuple[str, int]) -> None:
        self.client_host = client_host
        self.advertised = advertised
        self.client_software_name = CLIENT_ID
        self.client_software_version = ""
        self.close_callbacks: set[Callable[[], None]] = set()


class InProcessClient:
    """Calls handlers for one caller of a door, at `client_host`."""

    def __init__(self, services: "Services", client_host: str, access: Access) -> None:
        self.services = services
        self._client_host = client_host
        self._access = access

    @classmethod
    def of(cls, services: "Services", request: "Request") -> Self:
        """For whoever sent an HTTP request."""
        return cls(services, request.client.host if request.client else "", access_of(request))

    async def send(self, key: ApiKey, version: int, request: Any) -> Any:
        """The handler's response to a request of this version of the API, once it is there.

        When the caller is cancelled, a long poll that waits is given up. Raises what the handler raises.
        """
        if key not in APIS:
            load_handlers()
        connection = InProcessConnection(self._client_host, self.services.advertised)
        context = RequestContext(self.services, version, CLIENT_ID, self._client_host, connection, self._access)
        result = APIS[key].handle(context, request)
        if isinstance(result, CoroutineType):
            return await result
        if not isinstance(result, Deferred):
            return result
        self.services.logs.commit()  # as the listener does behind a chunk of requests
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        result.then(lambda response: None if future.done() else future.set_result(response))
        try:
            return await future
        except asyncio.CancelledError:
            for callback in list(connection.close_callbacks):
                callback()
            raise


def check(code: int, message: str | None = None) -> None:
    """Raises the KafkaError that a response carries, if it carries one; without a message, with the code's own text."""
    if code:
        known = ErrorCode(code)  # type: ignore[call-arg]  # mypy takes the members' __new__ for the lookup
        raise KafkaError(known, message or None)
