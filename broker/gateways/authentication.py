"""Who calls over HTTP or gRPC: HTTP's Basic scheme, with the users of the Kafka listeners.

Whoever says nothing is anonymous, where a Kafka listener lets anonymous clients in, and has the rights of ANONYMOUS.
"""

from typing import TYPE_CHECKING

from fastapi import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from broker.gateways.errors import error_response
from broker.security.access import ANONYMOUS, Access
from broker.security.logins import WrongCredentials

if TYPE_CHECKING:
    from broker.services import Services

# Whoever watches over the process has no users.
OPEN_PATHS = frozenset(("/healthz", "/readyz"))
_ACCESS = "senselog.access"
NO_CREDENTIALS = "give a user's name and password by HTTP's Basic scheme"


async def authenticate(services: "Services", authorization: str | None, host: str) -> Access:
    """The caller's rights; raises WrongCredentials."""
    security = services.security
    if authorization is not None:
        return security.access(await security.logins.principal(authorization), host)
    if not security.admits_anonymous:
        raise WrongCredentials(NO_CREDENTIALS)
    return security.access(ANONYMOUS, host)


def access_of(request: Request) -> Access:
    """What the sender of an HTTP request may do."""
    access: Access = request.scope[_ACCESS]
    return access


def unauthorized(message: str) -> JSONResponse:
    """401, which makes a browser ask for a name and a password."""
    response = error_response(401, "UNAUTHENTICATED", message)
    response.headers["WWW-Authenticate"] = 'Basic realm="senselog", charset="UTF-8"'
    return response


class HttpAuthentication:
    """ASGI middleware before all else: nothing of a stranger's body is read."""

    def __init__(self, app: ASGIApp, services: "Services") -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
        client = scope.get("client")
        host = client[0] if client else ""
        try:
            scope[_ACCESS] = await authenticate(self._services, given[0] if given else None, host)
        except WrongCredentials as error:
            if given:
                self._services.refusals.warning("request refused", client=host, path=scope["path"], error=str(error))
            await unauthorized(str(error))(scope, receive, send)
            return
        await self._app(scope, receive, send)
