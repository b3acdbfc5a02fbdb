"""Bounds on requests, before their bodies are read into memory."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.gateways.errors import error_response

# 64 query vectors of 4,096 dimensions are about 5 MB of JSON.
MAX_BODY_BYTES = 16 * 1024 * 1024
BODIES_BYTES_MAX = 128 * 1024 * 1024
"""Of all requests together; their parsed forms take several times as much."""
REQUESTS_MAX = 256
"""At once, beside health and metrics, which must answer when all else is busy."""
BODY_TIMEOUT_S = 30.0
"""A client that sends a byte now and then must not hold a place for ever."""


class RequestLimits:
    """ASGI middleware that answers 413, 429 or 408 instead of buffering without end.

    It reads the body itself: FastAPI turns whatever is raised while it reads into a 400.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._requests = 0
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        if self._requests >= REQUESTS_MAX or self._bytes >= BODIES_BYTES_MAX:
            message = f"more than {REQUESTS_MAX} requests, or {BODIES_BYTES_MAX:,} bytes of bodies, at once"
            await error_response(429, "OVERLOADED", message, retriable=True)(scope, receive, send)
            return
        self._requests += 1
        body = bytearray()
        try:
            refusal = await self._read(scope, receive, body)
            if refusal is None:
                await self._app(scope, _replay(bytes(body), receive), send)
            else:
                status, code, message = refusal
                await error_response(status, code, message)(scope, receive, send)
        finally:
            self._requests -= 1
            self._bytes -= len(body)

    async def _read(self, scope: Scope, receive: Receive, body: bytearray) -> tuple[int, str, str] | None:
        """Fills `body`; returns why it cannot be had."""
        too_large = 413, "TOO_LARGE", f"the body is larger than {MAX_BODY_BYTES:,} bytes"
        if _declared(scope) > MAX_BODY_BYTES:
            return too_large
        more = True
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while more:
                    message = await receive()
                    chunk = message.get("body", b"")
                    body += chunk
                    self._bytes += len(chunk)
                    more = message.get("more_body", False)  # a disconnect has none
                    if len(body) > MAX_BODY_BYTES:
                        return too_large
        except TimeoutError:
            return 408, "BODY_TIMEOUT", f"the body did not arrive within {BODY_TIMEOUT_S:g} s"
        return None


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
