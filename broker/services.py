"""Everything handlers work with, built and wired by `broker.app` alone."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.bounded_log import BoundedLog
from broker.config import Config
from broker.scheduler import Scheduler
from storage.clock import Clock

if TYPE_CHECKING:
    from broker.coordinator.runtime import GroupCoordinator
    from broker.features import Features
    from broker.fetch_sessions import FetchSessions
    from broker.metrics import Metrics
    from broker.producer_ids import ProducerIds
    from broker.read_ahead import ReadAhead
    from broker.search.service import SearchService
    from broker.security.security import Security
    from broker.topics import Topics
    from broker.transactions.coordinator import TransactionCoordinator
    from storage.log_manager import LogManager


@dataclass(slots=True)
class Services:
    """The parts of one broker. The required ones exist from the start; app fills in the others before it listens."""

    config: Config
    clock: Clock
    logs: "LogManager"
    topics: "Topics"
    producer_ids: "ProducerIds"
    metrics: "Metrics"
    scheduler: Scheduler
    fetch_sessions: "FetchSessions"
    read_ahead: "ReadAhead"
    security: "Security"
    features: "Features"
    cluster_id: str
    node_id: int = 1
    advertised: tuple[str, int] = ("", 0)
    """Where the first listener tells clients to connect; for doors that are no listener."""
    bound_listeners: str = ""
    """As in `listeners`: NAME://HOST:PORT,…"""
    advertised_listeners: str = ""
    groups: "GroupCoordinator" = field(init=False)
    transactions: "TransactionCoordinator" = field(init=False)
    search: "SearchService" = field(init=False)
    refusals: BoundedLog = field(init=False)

    def __post_init__(self) -> None:
        self.refusals = BoundedLog(self.clock.monotonic)
