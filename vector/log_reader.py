"""Records read from the log in the middle of a search, for what the index does not hold."""

import asyncio
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import Record, select_records, walk_batches
from vector.channel import ChannelClosed
from vector.log_source import LogSource

READ_BYTES_MAX = 64 * 1024


class LogReader:
    """Called in a search thread; the reading itself is done by the event loop. `stop` ends it: nobody waits for the search any more."""

    def __init__(self, source: LogSource, topic_id: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self._source = source
        self._topic_id = topic_id
        self._loop = loop
        self._stopped = threading.Event()

    def stop(self) -> None:
        """The next read raises."""
        self._stopped.set()

    def __call__(self, partition: int, offsets: Sequence[int]) -> Mapping[int, Record]:
        """Those of the records (offsets ascending) that the log still has. Raises KafkaError."""
        found: dict[int, Record] = {}
        place = 0
        while place < len(offsets):
            if self._stopped.is_set():
                raise KafkaError(ErrorCode.REQUEST_TIMED_OUT, "the search has ended")
            reading = self._source.read(self._topic_id, partition, offsets[place], READ_BYTES_MAX)
            try:
                run = asyncio.run_coroutine_threadsafe(reading, self._loop).result()
            except ChannelClosed:
                raise KafkaError(
                    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "the index is loading: the worker ends"
                ) from None
            batches = memoryview(run.batches)
            for header in walk_batches(batches):
                if not header.control:
                    batch = batches[header.position : header.position + header.size]
                    first = bisect_left(offsets, header.base_offset, place)
                    wanted = offsets[first : bisect_right(offsets, header.last_offset, first)]
                    found.update((record.offset, record) for record in select_records(batch, wanted))
            if run.next_offset <= offsets[place]:
                break  # the log has lost its tail
            while place < len(offsets) and offsets[place] < run.next_offset:
                place += 1
        return found
