"""Everything handlers work with, built and wired by `broker.app` alone."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.config import Config
from storage.clock import Clock

if TYPE_CHECKING:
    from broker.coordinator.runtime import GroupCoordinator
    from broker.metrics import Metrics
    from broker.producer_ids import ProducerIds
    from broker.search.service import SearchService
    from broker.topics import Topics
    from storage.log_manager import LogManager


@dataclass(slots=True)
class Services:
    """The parts of one broker. Those without a default exist from the start; app fills the others in before it listens."""

    config: Config
    clock: Clock
    logs: "LogManager"
    topics: "Topics"
    producer_ids: "ProducerIds"
    metrics: "Metrics"
    cluster_id: str
    node_id: int = 1
    advertised_host: str = "127.0.0.1"
    advertised_port: int = 9092
    groups: "GroupCoordinator" = field(init=False)
    search: "SearchService" = field(init=False)
