"""A bound on request bodies, before they are read into memory."""

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.gateways.errors import error_response

# 64 query vectors of 4,096 dimensions are about 5 MB of JSON.
MAX_BODY_BYTES = 16 * 1024 * 1024


class _TooLarge(Exception):
    pass


class BodyLimit:
    """ASGI middleware that answers 413 instead of buffering without end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _declared(scope) > MAX_BODY_BYTES:
            await _refuse(scope, receive, send)
            return
        left = MAX_BODY_BYTES

        async def limited() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooLarge
            return message

        try:
            await self._app(scope, limited, send)
        except _TooLarge:
            await _refuse(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    response = error_response(413, "TOO_LARGE", f"the body is larger than {MAX_BODY_BYTES:,} bytes")
    await response(scope, receive, send)


def _declared(scope: Any) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
