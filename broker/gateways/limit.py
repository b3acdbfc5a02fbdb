"""A bound on request bodies, before they are read into memory."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.gateways.errors import error_response

# 64 query vectors of 4,096 dimensions are about 5 MB of JSON.
MAX_BODY_BYTES = 16 * 1024 * 1024


class BodyLimit:
    """ASGI middleware that answers 413 instead of buffering without end.

    It reads the body itself: FastAPI turns whatever is raised while it reads into a 400.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = None if _declared(scope) > MAX_BODY_BYTES else await _read(receive)
        if body is None:
            refusal = error_response(413, "TOO_LARGE", f"the body is larger than {MAX_BODY_BYTES:,} bytes")
            await refusal(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None as soon as it is too large."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)  # a disconnect has none
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)
