"""The composition root: the only place that builds concrete parts and wires them together."""

import asyncio
import contextlib
import ctypes
import gc
import math
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from broker.config import Config, format_address, parse_address
from broker.coordinator.runtime import GroupCoordinator
from broker.descriptors import Shares, claim
from broker.dispatch import Dispatcher
from broker.entrances import Entrances
from broker.features import Features
from broker.fetch_sessions import FetchSessions
from broker.listeners import listeners
from broker.meta_store import MetaStore
from broker.metrics import Metrics
from broker.net import KafkaListener
from broker.producer_ids import ProducerIds
from broker.read_ahead import ReadAhead
from broker.registry import load_handlers
from broker.search.metrics import SearchCollector
from broker.search.service import SearchService
from broker.search.worker_process import EarlyWorkers
from broker.security.security import Security
from broker.security.stores import key_store
from broker.security.tls import ServerTls
from broker.services import Services
from broker.storage_metrics import StorageCollector
from broker.topics import Topics
from broker.transactions.coordinator import TransactionCoordinator
from broker.usual_produce import usual_produces
from storage.clock import SystemClock
from storage.config import StorageConfig
from storage.file_system import OsFileSystem
from storage.log_manager import LogManager
from vector.event_loop import run

if TYPE_CHECKING:
    from broker.gateways.http import HttpServer
    from broker.gateways.rpc import RpcServer

GRPC_LISTEN = "127.0.0.1:8093"
MAINTENANCE_INTERVAL_S = 5.0
# SIGTERM ends the process within 5 s; closing the logs needs what is left of them.
STOP_TIMEOUT_S = 3.0
# Young collections find next to nothing here: requests die by reference count.
GC_YOUNG_THRESHOLD = 20_000
# glibc gives buffers of 128 KB and more their own mmap, so each costs page faults (190 of 250 microseconds per MB,
# measured). M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD of mallopt(3), in bytes.
MALLOC_OPTIONS = ((-3, 32 << 20), (-1, 512 << 20), (-2, 16 << 20))

NOTHING_TO_RESTORE = (
    "the data directory was empty: a new broker without topics. The object store keeps search indexes, not logs: with the logs and "
    "meta.msgpack from a backup their indexes come back from there; indexes of other topics are left where they are"
)
logger = structlog.get_logger(__name__)


class Broker:
    """One broker: build it, `start` it inside a running event loop, `stop` it."""

    def __init__(self, config: Config, early: EarlyWorkers | None = None) -> None:
        self.config = config
        self._early = early
        self.kafka_address = ""
        self.http_address = ""
        self.grpc_address = ""
        """Empty when there is no gRPC door: its default port was taken."""
        self.stopped = asyncio.Event()
        self.failure: Exception | None = None
        self.services: Services
        self._descriptors: Shares
        self._listener: KafkaListener
        self._dispatcher: Dispatcher
        self._http: HttpServer
        self._rpc: RpcServer | None = None
        self._maintenance: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Opens the data directory, recovers, listens. Raises what stands in the way, with nothing left open."""
        self._descriptors = claim(self.config.max_connections)
        async with contextlib.AsyncExitStack() as undo:
            services = self.services = self._open_storage(undo)
            self._start_coordinators(services, undo)
            self._start_search(services, undo)
            await self._listen(services, undo)
            await asyncio.to_thread(_load_gateways)  # Kafka clients are served meanwhile, and the worker
            await self._start_http(services, undo)
            await self._start_rpc(services, undo)
            undo.pop_all()
        self._maintain()

    def _open_storage(self, undo: contextlib.AsyncExitStack) -> Services:
        config, clock, file_system = self.config, SystemClock(), OsFileSystem()
        loop = asyncio.get_running_loop()

        def post(callback: Callable[[], None]) -> None:
            loop.call_soon_threadsafe(callback)

        logs = LogManager.open(
            Path(config.data_dir),
            _storage_config(config, self._descriptors.open_segments),
            clock=clock,
            file_system=file_system,
            post=post,
        )
        undo.callback(logs.close)
        logs.on_failure = self._fail
        if logs.loss is not None:
            logger.warning(logs.loss)
        store = MetaStore.open(Path(config.data_dir), file_system)
        if store.created and config.storage_objects_url:
            logger.warning(NOTHING_TO_RESTORE, data_dir=str(config.data_dir), objects=config.storage_objects_url)
        read_ahead = ReadAhead(post)
        undo.callback(read_ahead.close)
        return Services(
            config=config,
            clock=clock,
            logs=logs,
            topics=Topics(store, logs, config),
            producer_ids=ProducerIds(store),
            metrics=Metrics(),
            scheduler=loop,
            fetch_sessions=FetchSessions(clock),
            security=Security(config, store),
            features=Features(store, config.node_id),
            read_ahead=read_ahead,
            cluster_id=store.metadata.cluster_id,
            node_id=config.node_id,
        )

    def _start_coordinators(self, services: Services, undo: contextlib.AsyncExitStack) -> None:
        services.groups = GroupCoordinator(
            services.config, services.clock, services.topics, services.logs, services.scheduler
        )
        services.groups.start()
        undo.callback(services.groups.stop)
        services.transactions = TransactionCoordinator(
            services.config,
            services.clock,
            services.topics,
            services.logs,
            services.scheduler,
            services.producer_ids,
            services.groups.offsets,
        )
        services.transactions.start()
        undo.callback(services.transactions.stop)

    def _start_search(self, services: Services, undo: contextlib.AsyncExitStack) -> None:
        services.search = SearchService(services.config, services.topics, services.logs, services.clock, self._early)
        services.search.start()
        undo.push_async_callback(services.search.stop)
        services.metrics.registry().register(SearchCollector(services.search))
        services.metrics.registry().register(StorageCollector(services.logs))

    async def _listen(self, services: Services, undo: contextlib.AsyncExitStack) -> None:
        config, loop = self.config, asyncio.get_running_loop()
        self._dispatcher = Dispatcher(
            services, load_handlers(), loop, usual_produces(services), services.security.quotas
        )
        self._listener = KafkaListener(
            loop,
            services.logs.commit,
            services.metrics,
            frame_bytes_max=config.socket_request_max_bytes,
            connections_max=self._descriptors.connections,
            idle_ms=config.connections_max_idle_ms,
            connection_wait_s=partial(_connection_wait_s, services),
        )
        undo.push_async_callback(self._listener.stop)
        entrances = Entrances(services, self._dispatcher)
        told = []
        for listener in listeners(config):
            entrance = entrances.of(listener)
            host, port = await self._listener.listen(listener.host, listener.port, entrance)
            entrance.advertised = listener.advertise(port)
            told.append(f"{listener.name}://{format_address(*entrance.advertised)}")
            if not self.kafka_address:
                self.kafka_address = format_address(host, port)
                services.advertised = entrance.advertised
        services.bound_listeners = ",".join(listener.bound for listener in listeners(config))
        services.advertised_listeners = ",".join(told)

    async def _start_http(self, services: Services, undo: contextlib.AsyncExitStack) -> None:
        from broker.gateways.http import start_http

        tls = (
            ServerTls.without_client_auth(self.config).context()
            if self.config.http_security_protocol == "SSL"
            else None
        )
        self._http = await start_http(services, *parse_address(self.config.http_listen), tls)
        undo.push_async_callback(self._http.close)
        self.http_address = format_address(self._http.host, self._http.port)

    async def _start_rpc(self, services: Services, undo: contextlib.AsyncExitStack) -> None:
        from broker.gateways.rpc import start_rpc

        try:
            pem = key_store(self.config) if self.config.http_security_protocol == "SSL" else None
            self._rpc = await start_rpc(services, *parse_address(self.config.grpc_listen or GRPC_LISTEN), pem)
        except OSError as error:
            if self.config.grpc_listen is not None:
                raise
            logger.warning("no gRPC door: its default address is taken; give it one with --grpc", error=str(error))
            return
        undo.push_async_callback(self._rpc.close)
        self.grpc_address = format_address(self._rpc.host, self._rpc.port)

    def _maintain(self) -> None:
        """Retention, rolling by time and the like, every few seconds."""
        # First of all, so that one failure, which the loop's handler logs, is not the end of all maintenance.
        self._maintenance = asyncio.get_running_loop().call_later(MAINTENANCE_INTERVAL_S, self._maintain)
        self.services.logs.maintain()

    def _fail(self, error: Exception) -> None:
        """The disk failed: nothing may be acknowledged any more, so the process ends."""
        if self.failure is None:
            self.failure = error
            logger.critical("storage failed, stopping", error=str(error))
        self.stopped.set()

    async def stop(self) -> None:
        """Stops serving and closes the data directory with a checkpoint."""
        if self._maintenance is not None:
            self._maintenance.cancel()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._stop_serving()
        except TimeoutError:
            logger.warning("a service did not stop in time", limit_s=STOP_TIMEOUT_S)
        finally:
            self.services.read_ahead.close()
            self.services.logs.close()
            self.stopped.set()

    async def _stop_serving(self) -> None:
        await self._listener.stop()
        await self._dispatcher.stop()
        await self._http.close()
        if self._rpc is not None:
            await self._rpc.close()
        self.services.groups.stop()
        self.services.transactions.stop()
        await self.services.search.stop()


def _load_gateways() -> None:
    """A quarter of a second of imports."""
    import broker.gateways.http
    import broker.gateways.rpc  # noqa: F401


def _storage_config(config: Config, open_files_max: int) -> StorageConfig:
    return StorageConfig(
        sync=config.storage_sync,
        sync_interval_ms=config.storage_flush_interval_ms,
        wal_file_bytes=config.storage_wal_file_bytes,
        checkpoint_bytes=config.storage_checkpoint_bytes,
        checkpoint_interval_ms=config.storage_checkpoint_interval_ms,
        min_free_bytes=config.storage_min_free_bytes,
        open_files_max=open_files_max,
        producer_id_expiration_ms=config.producer_id_expiration_ms,
        cleaner_buffer_bytes=config.log_cleaner_dedupe_buffer_size,
        cleaner_bytes_per_second=config.log_cleaner_io_max_bytes_per_second or math.inf,
    )


def _connection_wait_s(services: Services, host: str) -> float:
    quotas = services.security.quotas
    return quotas.connection_wait_s(host, services.clock.monotonic()) if quotas.limits_connections else 0.0


def serve(config: Config, early: EarlyWorkers | None = None) -> int:
    """Runs the broker until SIGTERM or SIGINT; returns the exit code. Raises what keeps it from starting.

    From when it is ready on it collects garbage, also where the caller had `gc.disable` spare the start that.
    """
    _configure_logging()
    _tune_allocator()
    return run(_serve(config, early))


async def _serve(config: Config, early: EarlyWorkers | None) -> int:
    broker = Broker(config, early)
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, broker.stopped.set)
    await broker.start()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_THRESHOLD)
    gc.enable()
    grpc = f" grpc={broker.grpc_address}" if broker.grpc_address else ""
    sys.stdout.write(f"senselog ready kafka={broker.kafka_address} http={broker.http_address}{grpc}\n")
    sys.stdout.flush()
    await broker.stopped.wait()
    await broker.stop()
    return 1 if broker.failure is not None else 0


def _configure_logging() -> None:
    """Lines of key=value on standard error; standard output belongs to the ready line."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _tune_allocator() -> None:
    with contextlib.suppress(OSError, AttributeError):  # only glibc has mallopt
        libc = ctypes.CDLL(None)
        for option, value in MALLOC_OPTIONS:
            libc.mallopt(option, value)
