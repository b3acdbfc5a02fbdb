"""The channel between broker and worker: calls cross, errors travel, nothing waits for ever."""

import asyncio
import socket
import struct
from collections.abc import Mapping
from typing import Any

import pytest

from protocol.errors import ErrorCode, KafkaError
from vector.channel import FRAME_BYTES_MAX, Channel, ChannelClosed, Handler


async def connect(channel: Channel, end: socket.socket) -> None:
    await asyncio.get_running_loop().create_connection(lambda: channel, sock=end)


async def pair(left: Mapping[str, Handler], right: Mapping[str, Handler]) -> tuple[Channel, Channel]:
    ends = socket.socketpair()
    channels = Channel(left), Channel(right)
    for channel, end in zip(channels, ends, strict=True):
        await connect(channel, end)
    return channels


async def test_both_ends_may_call_and_answers_find_their_callers() -> None:
    gate = asyncio.Event()

    async def slow(payload: Any) -> Any:
        await gate.wait()
        return payload

    def quick(payload: Any) -> Any:
        gate.set()
        return payload

    left, right = await pair({"quick": quick}, {"slow": slow})
    waiting = asyncio.create_task(left.call("slow", {1: b"a", b"k": [1, None, 2.5]}))
    assert await right.call("quick", b"x" * 1_000_000) == b"x" * 1_000_000
    assert await waiting == {1: b"a", b"k": [1, None, 2.5]}
    left.close()


async def test_a_refusal_arrives_with_code_and_message() -> None:
    def refuse(_: Any) -> None:
        raise KafkaError(ErrorCode.OFFSET_NOT_AVAILABLE, "not yet")

    left, _ = await pair({}, {"refuse": refuse})
    with pytest.raises(KafkaError, match="not yet") as refused:
        await left.call("refuse", None)
    assert refused.value.code == ErrorCode.OFFSET_NOT_AVAILABLE
    left.close()


async def test_an_unexpected_error_is_an_answer_too() -> None:
    def fail(_: Any) -> None:
        raise ZeroDivisionError("here")

    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    left, _ = await pair({}, {"fail": fail})
    with pytest.raises(KafkaError, match="ZeroDivisionError"):
        await left.call("fail", None)
    assert isinstance(seen[0]["exception"], ZeroDivisionError)
    left.close()


async def test_calls_end_when_the_other_end_is_gone() -> None:
    never = asyncio.Event()
    left, right = await pair({}, {"wait": lambda _: never.wait()})
    calls = [asyncio.create_task(left.call("wait", None)) for _ in range(3)]
    await asyncio.sleep(0)
    right.close()
    for call in calls:
        with pytest.raises(ChannelClosed):
            await call
    with pytest.raises(ChannelClosed):
        await left.call("wait", None)
    left.notify("wait", None)  # dropped, as the other end is gone
    assert left.closed.is_set()


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", FRAME_BYTES_MAX + 1),
        struct.pack(">I", 1) + b"\xc1",
        struct.pack(">I", 1) + b"\x07",
        struct.pack(">I", 2) + b"\x91\x00",
        struct.pack(">I", 5) + b"\x94\x00\x00\xa0\xc0",  # a call by the name ""
    ],
)
async def test_a_malformed_frame_closes_the_channel(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel({})
    await connect(channel, ours)
    with theirs:
        theirs.sendall(data)
        await asyncio.wait_for(channel.closed.wait(), 5)


async def test_frames_arrive_whole_however_they_are_cut() -> None:
    got: list[Any] = []
    done = asyncio.Event()

    def take(payload: Any) -> None:
        got.append(payload)
        if payload == "end":
            done.set()

    channel = Channel({"take": take})
    sender_end, receiver_end = socket.socketpair()
    await connect(channel, receiver_end)
    recorder = Channel({})
    captured_left, captured_right = socket.socketpair()
    await connect(recorder, captured_left)
    for payload in ("a", [1, 2], "end"):
        recorder.notify("take", payload)
    data = captured_right.recv(65_536)
    with sender_end, captured_right:
        sender_end.setblocking(False)
        for byte in data:
            await asyncio.get_running_loop().sock_sendall(sender_end, bytes([byte]))
            await asyncio.sleep(0)
        await asyncio.wait_for(done.wait(), 5)
        recorder.close()
        channel.close()
    assert got == ["a", [1, 2], "end"]


async def test_an_answer_that_is_too_large_is_refused_not_awaited_for_ever() -> None:
    left, _ = await pair({}, {"much": lambda _: bytes(FRAME_BYTES_MAX)})
    async with asyncio.timeout(20):
        with pytest.raises(KafkaError, match="above the limit") as refused:
            await left.call("much", None)
    assert refused.value.code == ErrorCode.POLICY_VIOLATION
    left.close()


async def test_an_abandoned_call_ends_at_the_other_end_and_others_do_not() -> None:
    """A search whose caller had timed out went on in the worker."""
    running = asyncio.Semaphore(0)
    stopped: list[str] = []
    gate = asyncio.Event()

    async def work(name: str) -> str:
        running.release()
        try:
            await gate.wait()
        except asyncio.CancelledError:
            stopped.append(name)
            running.release()
            raise
        return name

    left, _ = await pair({}, {"work": work})
    abandoned = asyncio.create_task(left.call("work", "abandoned", abandon=True))
    left_alone = asyncio.create_task(left.call("work", "left alone"))
    other = asyncio.create_task(left.call("work", "other", abandon=True))
    async with asyncio.timeout(10):
        for _ in range(3):
            await running.acquire()
        abandoned.cancel()
        left_alone.cancel()
        await running.acquire()
        gate.set()
        assert await other == "other"
        assert await left.call("work", "next") == "next"
    assert stopped == ["abandoned"]
    left.close()
