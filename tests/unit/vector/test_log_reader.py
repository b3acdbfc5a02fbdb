"""Records read in the middle of a search: those asked for, from as few reads as there are stretches, until nobody waits."""

import asyncio

import pytest

from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import Record, build_batch
from vector.channel import ChannelClosed
from vector.log_reader import LogReader
from vector.log_source import LogRun, LogState

STATE = LogState(0, 100, 100)


class Source:
    """A log of ten batches of ten records; a read gives the batch that holds the offset, from record 20 on."""

    def __init__(self) -> None:
        self.reads: list[int] = []
        self.closed = False

    async def read(self, topic_id: bytes, partition: int, offset: int, max_bytes: int) -> LogRun:
        assert (topic_id, partition) == (b"t" * 16, 3)
        assert max_bytes > 0
        if self.closed:
            raise ChannelClosed
        self.reads.append(offset)
        offset = max(offset, 20)
        if offset >= 100:
            return LogRun(b"", 100, STATE)
        first = offset // 10 * 10
        batch = bytearray(build_batch([Record(n - first, 1000, b"k%d" % n, b"v") for n in range(first, first + 10)]))
        batch[:8] = first.to_bytes(8, "big")  # as the log assigns it
        return LogRun(bytes(batch), first + 10, STATE)


async def read(source: Source, offsets: list[int], *, stopped: bool = False) -> dict[int, bytes | None]:
    loop = asyncio.get_running_loop()
    reader = LogReader(source, b"t" * 16, loop)
    if stopped:
        reader.stop()
    found = await loop.run_in_executor(None, reader, 3, offsets)
    return {offset: record.key for offset, record in found.items()}


async def test_records_are_read_stretch_by_stretch() -> None:
    """What lies below the log's start or behind its end is not there."""
    source = Source()
    wanted = [1, 25, 27, 61, 150]
    assert await read(source, wanted) == {25: b"k25", 27: b"k27", 61: b"k61"}
    assert source.reads == [1, 61, 150]
    assert await read(source, []) == {}


async def test_a_search_that_has_ended_reads_no_more() -> None:
    source = Source()
    with pytest.raises(KafkaError) as refused:
        await read(source, [25], stopped=True)
    assert (refused.value.code, source.reads) == (ErrorCode.REQUEST_TIMED_OUT, [])
    source.closed = True
    with pytest.raises(KafkaError) as refused:
        await read(source, [25])
    assert refused.value.code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
