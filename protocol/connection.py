"""The broker's side of one Kafka connection, without I/O: frames in, responses out in the order of their requests."""

from collections import deque
from collections.abc import Callable, Sequence
from struct import Struct
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

_SIZE = Struct(">i")
SIZE_BYTES = 4
# A response queue this long means that the client sends without reading; librdkafka and Java keep 5 produces in flight.
PENDING_RESPONSES_MAX = 512
# Memory is given to a large frame as its bytes arrive, so that a size field alone (100 MiB is legal) reserves little.
FIRST_ALLOCATION_BYTES = 1024 * 1024


class FrameSizeError(Exception):
    """A frame whose size field is negative or above the limit; nothing of it is buffered."""


class PendingResponse:
    """The place of one request's response in the queue; complete it once, at any time."""

    __slots__ = ("buffers", "connection", "overlapping")

    def __init__(self, connection: "ServerConnection", overlapping: bool) -> None:
        """`overlapping`: see `ServerConnection.admits`."""
        self.connection = connection
        self.buffers: Sequence[Buffer] | None = None
        self.overlapping = overlapping

    def complete(self, buffers: Sequence[Buffer]) -> None:
        """Hands over the encoded response frame; no buffers at all: this request has no response (Produce with acks=0)."""
        self.buffers = buffers
        self.connection.release()


class ReceiveBuffer:
    """Where all connections of an event loop receive, one behind the other: bytes stay in place until `used` is set to 0."""

    __slots__ = ("used", "view")

    def __init__(self, size: int) -> None:
        """Reset it before more than a quarter of `size` bytes is used: a connection may need half of them at once."""
        self.view = memoryview(bytearray(size))
        self.used = 0


class ServerConnection:
    """Cuts received bytes into frames and keeps responses in request order.

    Bytes arrive in one buffer that all connections of an event loop share (fastest by 25-45 % at 16-128 KB: it stays in the
    CPU cache). What is left of a frame at the end of a read is kept here: a few bytes are copied, a large frame gets a
    buffer of its own and the rest of it is received straight into that.
    """

    __slots__ = (
        "_data", "_filled", "_large", "_large_bytes", "_output", "_serial", "_shared",
        "end", "frame_bytes_max", "on_output", "output_bytes", "pending", "position",
    )  # fmt: skip

    def __init__(self, shared: ReceiveBuffer, frame_bytes_max: int, on_output: Callable[[], None]) -> None:
        """`on_output` is called when a queued response became sendable."""
        self._shared = shared
        self.frame_bytes_max = frame_bytes_max
        self.on_output = on_output
        # The window of received bytes not yet handed out: _data[position:end].
        self._data: memoryview = shared.view
        self.position = 0
        self.end = 0
        self._large: memoryview | None = None
        self._large_bytes = 0
        self._filled = 0
        self.pending: deque[PendingResponse] = deque()
        """Responses that are not sendable yet, in the order of their requests; `enqueue` adds to them."""
        self._serial = 0
        self._output: list[Buffer] = []
        self.output_bytes = 0

    # Bytes in

    def receive_buffer(self, sizehint: int = -1) -> memoryview:  # noqa: ARG002
        """Where the next bytes of this connection go; call `received` at once, before another connection uses the buffer.

        It is what `asyncio.BufferedProtocol.get_buffer` has to be, hint and all.
        """
        if self._large is not None:
            return self._large[self._filled :]
        view, start = self._shared.view, self._shared.used
        kept = self.end - self.position
        if kept:
            view[start : start + kept] = self._data[self.position : self.end]
        return view[start + kept :]

    def received(self, size: int) -> memoryview | None:
        """`size` bytes were put into the buffer given by `receive_buffer`; take frames with `next_frame`.

        Unless they are one whole frame, as they nearly always are for a client that waits for its answers: that is
        returned as `next_frame` would, and nothing is left.
        """
        large = self._large
        if large is None:
            shared = self._shared
            start = shared.used
            kept = self.end - self.position
            self.end = shared.used = stop = start + kept + size
            self._data = data = shared.view
            if (
                not kept
                and SIZE_BYTES < size <= self.frame_bytes_max
                and _SIZE.unpack_from(data, start)[0] == size - SIZE_BYTES
            ):
                self.position = stop
                return data[start + SIZE_BYTES : stop]
            self.position = start
            return None
        self._filled += size
        if self._filled == self._large_bytes:
            self._data, self.position, self.end = large, 0, self._filled
            self._large = None
        elif self._filled == len(large):
            self._allocate(self._large_bytes, large)
        return None

    def next_frame(self) -> memoryview | None:
        """The next whole frame without its size field, borrowed until the receive buffer is reset; None when there is none.

        Raises FrameSizeError.
        """
        start = self.position + SIZE_BYTES
        if start > self.end:
            return None
        (size,) = _SIZE.unpack_from(self._data, self.position)
        if size < 0 or size > self.frame_bytes_max:
            raise FrameSizeError(f"frame of {size} bytes, at most {self.frame_bytes_max} are allowed")
        stop: int = start + size
        if stop > self.end:
            return None
        self.position = stop
        return self._data[start:stop]

    def put_back(self, frame: memoryview) -> None:
        """Undoes the `next_frame` that returned `frame`."""
        self.position -= len(frame) + SIZE_BYTES

    def keep_rest(self) -> None:
        """Copies what was not handed out, since the shared buffer is reset before the next read."""
        if self._large is not None:
            return
        if self.position == self.end:
            self._data = self._shared.view
            return
        rest = self._data[self.position : self.end]
        if len(rest) >= SIZE_BYTES:
            needed = SIZE_BYTES + _SIZE.unpack_from(rest)[0]
            # A frame that would leave little room beside what is there already is not worth the double copy.
            if needed > len(rest) and needed > len(self._shared.view) // 2:
                self._allocate(needed, rest)
                self.position = self.end = 0
                return
        # A bytearray, because record batches are patched in place.
        self._data, self.position, self.end = memoryview(bytearray(rest)), 0, len(rest)

    def _allocate(self, needed: int, head: memoryview) -> None:
        size = min(needed, max(FIRST_ALLOCATION_BYTES, 4 * len(head)))
        self._large = memoryview(bytearray(size))
        self._large[: len(head)] = head
        self._large_bytes = needed
        self._filled = len(head)

    # Responses out

    def admits(self, overlapping: bool) -> bool:
        """Whether the next request may be handled now.

        Kafka handles one request of a connection at a time. So do we, except that produces overlap: all produces in
        flight on a connection share one group commit.
        """
        pending = self.pending
        return not pending or (overlapping and not self._serial and len(pending) < PENDING_RESPONSES_MAX)

    def expect(self, overlapping: bool) -> PendingResponse:
        """Queues a response that is not there yet."""
        response = PendingResponse(self, overlapping)
        self.enqueue(response)
        return response

    def enqueue(self, response: PendingResponse) -> None:
        """Queues a response that is not there yet."""
        self.pending.append(response)
        if not response.overlapping:
            self._serial += 1

    def send(self, buffers: Sequence[Buffer]) -> None:
        """A response that is there at once; only when nothing is pending."""
        for buffer in buffers:
            self._output.append(buffer)
            self.output_bytes += len(buffer)

    def release(self) -> None:
        """Moves responses that are complete, up to the first that is not, to the output."""
        pending = self.pending
        moved = False
        while pending and (buffers := pending[0].buffers) is not None:
            if not pending.popleft().overlapping:
                self._serial -= 1
            for buffer in buffers:  # `send`, without a call for each response
                self._output.append(buffer)
                self.output_bytes += len(buffer)
            moved = True
        if moved:  # also by a request without a response: others may have waited for it
            self.on_output()

    def take_output(self) -> list[Buffer]:
        """The buffers to write now, in order."""
        output = self._output
        self._output = []
        self.output_bytes = 0
        return output
