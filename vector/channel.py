"""One duplex stream between broker and vector worker: length-prefixed msgpack frames with request ids.

Frame: length uint32 big-endian, then the msgpack array [kind, id, name, payload]; kinds: call, answer, refusal, notice, abandon.
Both ends may call. Bounded: `FRAME_BYTES_MAX`, `CALLS_MAX` unanswered calls; a writer waits while the other end does not read.
"""

import asyncio
import itertools
import struct
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any, cast

import msgpack

from protocol.errors import ErrorCode, KafkaError

FRAME_BYTES_MAX = 64 * 1024 * 1024
CALLS_MAX = 4096
CLOSE_TIMEOUT_S = 2.0
_LENGTH = struct.Struct(">I")
_CALL, _ANSWER, _REFUSAL, _NOTICE, _ABANDON = range(5)

Handler = Callable[[Any], Awaitable[Any] | Any]
"""Takes a payload; what it returns, or awaits, is the answer. A KafkaError travels to the caller as it is."""


def software_version() -> str:
    """Both ends must be of one release: messages have no versions."""
    return version("senselog")


class ChannelClosed(Exception):
    """The other end is gone; calls that were waiting end with this."""


class Channel(asyncio.Protocol):
    """One end. `handlers` answers calls and takes notices by name."""

    def __init__(self, handlers: Mapping[str, Handler], *, on_close: Callable[[], None] | None = None) -> None:
        self._handlers = handlers
        self._on_close = on_close
        self._buffer = bytearray()
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed = asyncio.Event()
        self._heard_s = 0.0

    @property
    def silent_s(self) -> float:
        """For how long nothing has come from the other end."""
        return asyncio.get_running_loop().time() - self._heard_s

    async def call(self, name: str, payload: Any, *, abandon: bool = False) -> Any:
        """Asks the other end. Raises its KafkaError, ChannelClosed, or KafkaError THROTTLING_QUOTA_EXCEEDED at `CALLS_MAX`.

        `abandon`: when this call is cancelled, the other end stops working on it; for what may stop anywhere.
        """
        if len(self._waiting) >= CALLS_MAX:
            raise KafkaError(
                ErrorCode.THROTTLING_QUOTA_EXCEEDED, f"{CALLS_MAX} calls are waiting for the vector worker"
            )
        identity = next(self._ids)
        future = asyncio.get_running_loop().create_future()
        self._waiting[identity] = future
        try:
            await self._writable.wait()
            self._send(_CALL, identity, name, payload)
            return await self._answer_to(identity, name, future, abandon=abandon)
        finally:
            self._waiting.pop(identity, None)

    async def _answer_to(self, identity: int, name: str, future: asyncio.Future[Any], *, abandon: bool) -> Any:
        try:
            return await future
        except asyncio.CancelledError:
            if abandon and not self.closed.is_set():
                self._send(_ABANDON, identity, name, None)
            raise

    def notify(self, name: str, payload: Any) -> None:
        """Tells the other end; nothing comes back. Dropped when the channel is closed."""
        if self._transport is not None and not self.closed.is_set():
            self._send(_NOTICE, 0, name, payload)

    @property
    def answering(self) -> int:
        """Calls of the other end that have no answer yet."""
        return len(self._tasks)

    @property
    def peer(self) -> str:
        """HOST:PORT of the other end, where it has one."""
        name = None if self._transport is None else self._transport.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if name else ""

    def close(self) -> None:
        """Closes this end; the other sees the end of the stream. What it does not take within CLOSE_TIMEOUT_S is dropped."""
        if self._transport is not None and not self.closed.is_set():
            self._transport.close()
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._abort)

    def _send(self, kind: int, identity: int, name: str, payload: Any) -> None:
        if self._transport is None or self.closed.is_set():
            raise ChannelClosed
        body = msgpack.packb((kind, identity, name, payload))
        if len(body) > FRAME_BYTES_MAX:
            raise KafkaError(
                ErrorCode.POLICY_VIOLATION,
                f"{name}: a message of {len(body)} bytes is above the limit of {FRAME_BYTES_MAX}",
            )
        self._transport.writelines((_LENGTH.pack(len(body)), body))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class
        self._heard_s = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        """Cuts frames out of the stream; anything malformed closes it."""
        self._heard_s = asyncio.get_running_loop().time()
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > FRAME_BYTES_MAX:
                self._abort()
                return
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(memoryview(self._buffer)[_LENGTH.size : end])
            del self._buffer[:end]
            try:
                kind, identity, name, payload = msgpack.unpackb(body, strict_map_key=False)
                self._take(kind, identity, name, payload)
            except (ValueError, TypeError, msgpack.UnpackException):
                self._abort()
                return

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.closed.set()
        self._writable.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ChannelClosed())
        for task in self._tasks.values():
            task.cancel()
        if self._on_close is not None:
            self._on_close()

    def _abort(self) -> None:
        if self._transport is not None and not self.closed.is_set():
            self._transport.abort()

    def _take(self, kind: int, identity: int, name: str, payload: Any) -> None:
        if kind in (_ANSWER, _REFUSAL):
            future = self._waiting.get(identity)
            if future is not None and not future.done():
                if kind == _ANSWER:
                    future.set_result(payload)
                else:
                    future.set_exception(KafkaError(ErrorCode(payload[0]), payload[1]))  # type: ignore[call-arg]
            return
        if kind == _ABANDON:
            if identity in self._tasks:  # else the answer is on its way
                self._tasks[identity].cancel()
            return
        handler = self._handlers.get(name)
        if handler is None:
            raise ValueError(f"no handler for {name!r}")
        if kind == _NOTICE:
            handler(payload)
            return
        task = asyncio.get_running_loop().create_task(self._answer(handler, identity, name, payload))
        self._tasks[identity] = task
        task.add_done_callback(lambda _: self._tasks.pop(identity))

    async def _answer(self, handler: Handler, identity: int, name: str, payload: Any) -> None:
        try:
            result = handler(payload)
            if isinstance(result, Awaitable):
                result = await result
            kind = _ANSWER
        except KafkaError as error:
            kind, result = _REFUSAL, (int(error.code), error.message)
        except Exception as error:
            # The caller must not wait for ever, and the cause belongs in the log of the end that failed.
            asyncio.get_running_loop().call_exception_handler({"message": f"{name} failed", "exception": error})
            kind, result = _REFUSAL, (int(ErrorCode.UNKNOWN_SERVER_ERROR), f"{name}: {type(error).__name__}: {error}")
        await self._writable.wait()
        if self.closed.is_set():
            return
        try:
            self._send(kind, identity, name, result)
        except KafkaError as error:  # too large: the caller must not wait for ever
            self._send(_REFUSAL, identity, name, (int(error.code), error.message))
