"""protocol.connection without sockets: frames survive any cutting, responses leave in request order."""

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.connection import PENDING_RESPONSES_MAX, FrameSizeError, ReceiveBuffer, ServerConnection

LIMIT = 4 * 1024 * 1024


def frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


class Feeder:
    """Plays the event loop: one shared buffer, which goes to other connections each time it is reset."""

    def __init__(self, shared_bytes: int = 64, limit: int = LIMIT, *, puts_back: bool = False) -> None:
        self.puts_back = puts_back
        self.shared = ReceiveBuffer(shared_bytes)
        self.borrowed: list[tuple[memoryview, bytes]] = []
        self.outputs = 0
        self.connection = ServerConnection(self.shared, limit, self._on_output)

    def _on_output(self) -> None:
        self.outputs += 1

    def read(self, data: bytes) -> list[bytes]:
        """As many reads as the buffers need; the frames that came out."""
        frames: list[bytes] = []
        while data:
            buffer = self.connection.receive_buffer()
            size = min(len(buffer), len(data))
            assert size
            buffer[:size] = data[:size]
            frames += self.frames(self.connection.received(size))
            data = data[size:]
        return frames

    def frames(self, lone: memoryview | None = None) -> list[bytes]:
        frames: list[bytes] = []
        if lone is not None and self.puts_back:
            self.connection.put_back(lone)
            lone = None
        while (found := self.connection.next_frame() if lone is None else lone) is not None:
            assert lone is None or self.connection.position == self.connection.end
            lone = None
            frames.append(bytes(found))
            self.borrowed.append((found, frames[-1]))
        self.connection.keep_rest()
        if self.shared.used > len(self.shared.view) // 4:
            self.reset()
        return frames

    def reset(self) -> None:
        assert all(view == data for view, data in self.borrowed)
        self.borrowed.clear()
        self.shared.view[:] = b"\xee" * len(self.shared.view)
        self.shared.used = 0


def cut(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    pieces, position = [], 0
    for size in sizes:
        pieces.append(data[position : position + size])
        position += size
    return [*pieces, data[position:]]


@given(
    st.lists(st.binary(max_size=200), max_size=12),
    st.lists(st.integers(1, 90), max_size=40),
    st.sampled_from([16, 64, 1024]),
    st.booleans(),
)
def test_frames_come_out_as_they_went_in(
    bodies: list[bytes], sizes: list[int], shared_bytes: int, puts_back: bool
) -> None:
    feeder = Feeder(shared_bytes, puts_back=puts_back)
    found = []
    for piece in cut(b"".join(map(frame, bodies)), sizes):
        found += feeder.read(piece)
    assert found == bodies


def test_byte_by_byte() -> None:
    bodies = [b"", b"a", b"x" * 100, b"yz"]
    feeder = Feeder()
    found = []
    for byte in b"".join(map(frame, bodies)):
        found += feeder.read(bytes([byte]))
    assert found == bodies


def test_frames_larger_than_the_first_allocation() -> None:
    bodies = [bytes([i]) * size for i, size in enumerate((3_000_000, 10, 1_500_000, 2 * 1024 * 1024 - 4))]
    feeder = Feeder(256 * 1024)
    assert feeder.read(b"".join(map(frame, bodies))) == bodies


def test_memory_follows_the_bytes_that_arrived() -> None:
    feeder = Feeder(1024, limit=100 * 1024 * 1024)
    feeder.read(struct.pack(">i", 100 * 1024 * 1024) + b"x" * 10)
    assert len(feeder.connection.receive_buffer()) <= 1024 * 1024


def test_one_whole_frame_is_had_at_once() -> None:
    """Of a client that waits for its answers; also behind others' bytes in the shared buffer. Not two, not a part of one."""
    feeder = Feeder(1024, limit=50)
    connection = feeder.connection
    for body, lone in ((frame(b"one"), True), (frame(b""), False), (frame(b"two"), True), (frame(b"x") * 2, False)):
        connection.receive_buffer()[: len(body)] = body
        found = connection.received(len(body))
        assert (found is not None) == lone
        assert feeder.frames(found) == ([body[4:]] if body != frame(b"x") * 2 else [b"x", b"x"])
    connection.receive_buffer()[:5] = frame(b"part")[:5]
    assert connection.received(5) is None
    assert feeder.frames() == []
    connection.receive_buffer()[:3] = b"art"
    assert connection.received(3) is None
    assert feeder.frames() == [b"part"]
    too_large = frame(b"y" * 51)
    connection.receive_buffer()[: len(too_large)] = too_large
    assert connection.received(len(too_large)) is None


@pytest.mark.parametrize("size", [-1, -(2**31), LIMIT + 1, 2**31 - 1])
def test_an_impossible_size_is_refused_before_anything_is_buffered(size: int) -> None:
    feeder = Feeder()
    assert feeder.read(frame(b"good")) == [b"good"]
    with pytest.raises(FrameSizeError, match=str(size)):
        feeder.read(struct.pack(">i", size))


def test_frames_are_writable_in_place() -> None:
    """Offsets are patched into the receive buffer, also in a frame that came in pieces."""
    feeder = Feeder()
    data = frame(b"abcd")
    feeder.read(data[:6])
    buffer = feeder.connection.receive_buffer()
    buffer[:2] = data[6:]
    feeder.connection.received(2)
    found = feeder.connection.next_frame()
    assert found is not None
    found[0] = ord("X")
    assert bytes(found) == b"Xbcd"


def test_a_held_frame_comes_again_with_all_behind_it() -> None:
    feeder = Feeder(1024)
    connection = feeder.connection
    data = frame(b"one") + frame(b"two") + frame(b"three") + b"\0\0"
    connection.receive_buffer()[: len(data)] = data
    connection.received(len(data))
    first, second = connection.next_frame(), connection.next_frame()
    assert first is not None
    assert second is not None
    connection.put_back(second)
    connection.keep_rest()
    feeder.reset()
    assert feeder.frames() == [b"two", b"three"]
    assert feeder.read(b"\0\4four") == [b"four"]


@given(st.permutations(range(6)))
def test_responses_leave_in_request_order(order: list[int]) -> None:
    feeder = Feeder()
    connection = feeder.connection
    pending = [connection.expect(overlapping=True) for _ in range(6)]
    sent = b""
    for number in order:
        pending[number].complete([bytes([number])])
        sent += b"".join(connection.take_output())
    assert sent == bytes(range(6))
    assert not connection.pending


def test_a_request_without_response_lets_the_next_one_through() -> None:
    connection = Feeder().connection
    silent, spoken = connection.expect(overlapping=True), connection.expect(overlapping=True)
    spoken.complete([b"answer"])
    assert connection.take_output() == []
    silent.complete(())
    assert connection.take_output() == [b"answer"]


def test_output_is_announced_once_it_can_be_sent() -> None:
    feeder = Feeder()
    first, second = feeder.connection.expect(overlapping=True), feeder.connection.expect(overlapping=True)
    second.complete([b"2"])
    assert feeder.outputs == 0
    first.complete([b"1"])
    assert feeder.outputs == 1
    assert feeder.connection.output_bytes == 2


def test_requests_wait_for_each_other_but_produces_overlap() -> None:
    connection = Feeder().connection
    assert connection.admits(overlapping=False)
    produce = connection.expect(overlapping=True)
    assert connection.admits(overlapping=True)
    assert not connection.admits(overlapping=False)
    produce.complete([b"done"])
    fetch = connection.expect(overlapping=False)
    assert not connection.admits(overlapping=True)
    fetch.complete([b"done"])
    assert connection.admits(overlapping=False)


def test_pipelined_produces_are_bounded() -> None:
    connection = Feeder().connection
    for _ in range(PENDING_RESPONSES_MAX):
        assert connection.admits(overlapping=True)
        connection.expect(overlapping=True)
    assert not connection.admits(overlapping=True)
