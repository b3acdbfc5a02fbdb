"""Search and indexing as Prometheus families."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import Metric

    from broker.search.service import SearchService

_COUNTERS = {
    "calls": "Calls of the model for texts of records.",
    "tokens": "Tokens that the model has read; of models that do not tell, estimated from the texts.",
    "texts_embedded": "Texts embedded since the worker started.",
    "queries_embedded": "Queries embedded since the worker started.",
    "cache_hits": "Texts and queries whose vector was known.",
    "poisoned": "Texts that the model refuses, or gives a vector that is zero or not finite; their records count as failed.",
    "retries": "Calls of the model for records that failed and were tried again.",
}


_GAUGES = {
    "lag_ms": ("lag_ms", "For how long the oldest record that searches do not see has been there."),
    "rate_per_s": ("indexing_rate", "Records indexed per second, over the last ten."),
    "segments": ("segments", "Segments of the index."),
    "memory_bytes": ("memory_bytes", "Memory that the index needs to be searched."),
    "disk_bytes": ("disk_bytes", "What the index takes on disk."),
    "sampled_recall_at_10": ("sampled_recall_at_10", "Recall of the graph against the exact scan, sampled; 0 to 1."),
}


class SearchCollector:
    """Registered with the broker's registry."""

    def __init__(self, search: "SearchService") -> None:
        self._search = search

    def collect(self) -> "Iterator[Metric]":
        return families(self._search)


def families(search: "SearchService") -> "Iterator[Metric]":
    """From what the worker last told, at most a quarter of a second ago."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    yield from _of_workers(search)
    yield CounterMetricFamily(
        "senselog_searches", "Searches of topics with vectors, failed ones too.", value=search.searches
    )
    seconds = HistogramMetricFamily(
        "senselog_search_seconds",
        "Where the time of a search went: embedding its queries, waiting for freshness, searching, reading the hits.",
        labels=["phase"],
    )
    for phase, histogram in search.seconds.items():
        buckets, total = histogram.buckets()
        seconds.add_metric([phase], buckets, total)
    yield seconds
    for name, documentation in _COUNTERS.items():
        counter = CounterMetricFamily(f"senselog_vector_{name}", documentation, labels=["model"])
        for model in search.models:
            counter.add_metric([model["model"]], model[name])
        yield counter
    circuit = GaugeMetricFamily(
        "senselog_vector_circuit_open",
        "Whether calls of the model's provider wait for it to work again: 0 no, 1 yes, 2 until a person mends it.",
        labels=["model"],
    )
    for model in search.models:
        circuit.add_metric([model["model"]], {"closed": 0.0, "open": 1.0, "paused": 2.0}[model["circuit"]])
    yield circuit
    labels = ["topic", "partition"]
    gauges: dict[str, Any] = {
        "indexed_offset": GaugeMetricFamily(
            "senselog_vector_indexed_offset",
            "All records below are searchable, skipped or failed; -1 while the index loads.",
            labels=labels,
        ),
        "lag": GaugeMetricFamily(
            "senselog_vector_lag_records", "Committed records that searches do not see yet.", labels=labels
        ),
        "failed": GaugeMetricFamily(
            "senselog_vector_failed_records",
            "Records below the indexed offset that could not be embedded.",
            labels=labels,
        ),
    }
    for key, (name, documentation) in _GAUGES.items():
        gauges[key] = GaugeMetricFamily(f"senselog_vector_{name}", documentation, labels=labels)
    indexed, figures = search.indexed, search.gauges
    for topic in search.feed.topics_with_vectors:
        for log in topic.partitions:
            indexed_offset, failed = indexed.get((topic.topic_id, log.partition), (-1, 0))
            row = [topic.name, str(log.partition)]
            gauges["indexed_offset"].add_metric(row, indexed_offset)
            behind = log.last_stable_offset - max(indexed_offset, log.log_start_offset)
            gauges["lag"].add_metric(row, max(0, behind))
            gauges["failed"].add_metric(row, failed)
            for key, value in figures.get((topic.topic_id, log.partition), {}).items():
                gauges[key].add_metric(row, value)
    yield from gauges.values()


def _of_workers(search: "SearchService") -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    up = GaugeMetricFamily("senselog_vector_worker_up", "Whether the vector worker runs.", labels=["worker"])
    restarts = CounterMetricFamily(
        "senselog_vector_worker_restarts", "Restarts of the vector worker.", labels=["worker"]
    )
    for number, worker in enumerate(search.fleet.workers):
        up.add_metric([str(number)], float(worker.channel is not None))
        restarts.add_metric([str(number)], worker.restarts)
    yield up
    yield restarts
    memory = GaugeMetricFamily(
        "senselog_vector_worker_memory_bytes",
        "Memory that the worker's indexes need to be searched.",
        labels=["worker"],
    )
    limit = GaugeMetricFamily(
        "senselog_vector_worker_memory_limit_bytes", "Beyond it indexing pauses; +Inf: none.", labels=["worker"]
    )
    for number, worker in enumerate(search.fleet.workers):
        memory.add_metric([str(number)], worker.memory.get("memory_bytes") or 0)
        limit.add_metric([str(number)], worker.memory.get("memory_limit_bytes") or math.inf)
    yield memory
    yield limit
