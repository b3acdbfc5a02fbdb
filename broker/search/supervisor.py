"""Keeps the vector worker running: started when a topic has vectors, restarted with back-off, its state visible."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Literal

import structlog

from broker.search.worker_process import WorkerProcess
from protocol.errors import KafkaError
from vector.channel import Channel, ChannelClosed, Handler

BACKOFF_MIN_S = 0.2
BACKOFF_MAX_S = 30.0
STEADY_AFTER_S = 30.0
"""A worker that lived this long starts the back-off anew."""
STOP_TIMEOUT_S = 2.5
PREPARE_TIMEOUT_S = 60.0
"""For a new worker to load its code and take its topics; it opens indexes and models after that."""
PING_INTERVAL_S = 1.0
IDLE_TIMEOUT_S = 5.0
"""A worker that neither answers for so long nor uses any CPU hangs: it is stopped, or its threads wait for one another."""
PING_TIMEOUT_S = 30.0
"""One that works may be silent for so long: nothing long runs in its event loop, but loading a large library holds the interpreter."""

WorkerState = Literal["off", "waiting", "starting", "running", "restarting"]
"""waiting: for workers that a killed broker has left behind."""
logger = structlog.get_logger(__name__)


class WorkerSupervisor:
    """One worker process. `prepare` is awaited on each new channel before anyone else may use it; `own`, before there is a process,
    gives a descriptor that it inherits. `early` is a process that there is already."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        prepare: Callable[[Channel], Awaitable[None]],
        name: str = "vector worker",
        own: Callable[[], Awaitable[int]] | None = None,
        early: WorkerProcess | None = None,
    ) -> None:
        self.name = name
        self.state: WorkerState = "off"
        self.restarts = 0
        self.address: str | None = None
        """It is on this machine."""
        self.process_id: int | None = None
        self.channel: Channel | None = None
        """The running worker's; None while there is none."""
        self.memory: dict[str, int | None] = {}
        """What its indexes take, as it last told, and how much they may."""
        self._handlers = handlers
        self._prepare = prepare
        self._own = own
        self._early = early
        self._process: WorkerProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Starts the worker, unless it has been started."""
        if self._task is None and not self._stopping:
            self.state = "starting"
            self._task = asyncio.get_running_loop().create_task(self._supervise())

    def send_home(self) -> None:
        """Ends a process that was started early and has nothing to do."""
        if self._early is not None and self._task is None:
            self._early.kill()
            self._early.connection.close()
            self._early = None

    async def stop(self) -> None:
        """Lets the worker checkpoint and ends it; kills it after STOP_TIMEOUT_S."""
        self._stopping = True
        self.send_home()
        process = self._process
        if self.channel is not None and await stop_worker(self.channel) and process is not None:
            process.kill()  # all that it still does is take itself to pieces, which takes 0.1 s, and 1 s while it builds
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.state = "off"

    async def _supervise(self) -> None:
        wait_s = BACKOFF_MIN_S
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await self._run_once()
            except Exception as error:  # whatever it is: without this task there is no search until a restart
                logger.error("vector worker failed", worker=self.name, error=str(error) or type(error).__name__)  # noqa: TRY400
            if loop.time() - started > STEADY_AFTER_S:
                wait_s = BACKOFF_MIN_S
            self.state = "restarting"
            self.restarts += 1
            await asyncio.sleep(wait_s)
            wait_s = min(BACKOFF_MAX_S, wait_s * 2)

    async def _inherited(self) -> tuple[int, ...]:
        if self._own is None:
            return ()
        before, self.state = self.state, "waiting"
        descriptor = await self._own()
        self.state = before
        return (descriptor,)

    async def _run_once(self) -> None:
        process, self._early = self._early, None
        if process is None:
            process = WorkerProcess(await self._inherited())
        channel = Channel(self._handlers)
        self._process, self.process_id = process, process.pid
        try:
            await asyncio.get_running_loop().create_connection(lambda: channel, sock=process.connection)
            async with named_timeout("is not ready", PREPARE_TIMEOUT_S):
                await self._prepare(channel)
            self.channel, self.state = channel, "running"
            logger.info("vector worker runs", worker=self.name, pid=process.pid, restarts=self.restarts)
            await heed(channel, partial(_cpu_ns, process.pid))
        finally:
            self.channel = self.process_id = self._process = None
            self.memory = {}
            channel.close()
            process.connection.close()
            code = await _end(process)
        logger.warning("vector worker ended", worker=self.name, exit_code=code)


async def stop_worker(channel: Channel) -> bool:
    """Lets it checkpoint; at most STOP_TIMEOUT_S. Whether it has."""
    with contextlib.suppress(TimeoutError, ChannelClosed, KafkaError):
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await channel.call("stop", None)
            return True
    return False


async def heed(channel: Channel, work_done: Callable[[], object] = object) -> None:
    """Returns when the channel closes. Raises TimeoutError for a worker that hangs; `work_done` is another value whenever it has done
    something in between."""
    while not channel.closed.is_set():
        ping = asyncio.ensure_future(channel.call("ping", None))
        try:
            await _answered(ping, work_done)
        finally:
            ping.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PING_INTERVAL_S):
                await channel.closed.wait()


async def _answered(ping: asyncio.Future[object], work_done: Callable[[], object]) -> None:
    silent_s = 0.0
    while silent_s < PING_TIMEOUT_S:
        before = work_done()
        await asyncio.wait([ping], timeout=IDLE_TIMEOUT_S)
        if ping.done():
            with contextlib.suppress(ChannelClosed, KafkaError):  # too many calls wait: the next ping tells more
                ping.result()
            return
        silent_s += IDLE_TIMEOUT_S
        if work_done() == before:
            break
    raise TimeoutError(f"it hangs: no answer within {silent_s:g} s")


def _cpu_ns(process_id: int) -> int:
    """What a process has used so far; -1 where there is none."""
    try:
        return time.clock_gettime_ns((~process_id << 3) | 2)  # clock_getcpuclockid(3), for all of its threads
    except OSError:
        return -1


@contextlib.asynccontextmanager
async def named_timeout(what: str, timeout_s: float) -> AsyncIterator[None]:
    """Raises TimeoutError with these words."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise TimeoutError(f"it {what} within {timeout_s:g} s") from None


async def _end(process: WorkerProcess) -> int:
    """Waits for a process whose channel is closed; it has nothing left to do."""
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            return await process.ended()
    except BaseException as error:
        process.kill()
        code = await process.ended()
        if not isinstance(error, TimeoutError):
            raise  # a cancellation: swallowed, the supervisor would start the next worker while the broker stops
        return code
