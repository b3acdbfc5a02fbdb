"""What the storage counts, as Prometheus families."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from storage.log_manager import LogManager

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class StorageCollector:
    """Asked when scraped."""

    def __init__(self, logs: LogManager) -> None:
        self._logs = logs

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        cleaner = self._logs.cleaner
        counters = cleaner.counters
        yield CounterMetricFamily("senselog_compactions", "Compactions of a partition.", value=counters.runs)
        yield CounterMetricFamily(
            "senselog_compaction_bytes", "Bytes that compaction has read and written.", value=counters.moved_bytes
        )
        yield CounterMetricFamily(
            "senselog_compaction_busy_seconds",
            "Time that compaction has worked, pauses left out.",
            value=counters.busy_s,
        )
        yield GaugeMetricFamily(
            "senselog_compaction_waiting_partitions", "Partitions worth compacting now.", value=cleaner.waiting
        )
        yield GaugeMetricFamily(
            "senselog_compaction_damaged_partitions",
            "Partitions that are not compacted because a segment is damaged.",
            value=cleaner.damaged,
        )
