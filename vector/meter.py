"""What is measured of one partition's index while it works."""

import time

from vector.index.partition_index import PartitionIndex
from vector.rate import RateMeter
from vector.recall import SampledRecall


class IndexMeter:
    """Rate and recall of one index."""

    def __init__(self, index: PartitionIndex) -> None:
        self._index = index
        self._rate = RateMeter(time.monotonic)
        self.recall = SampledRecall()

    def look(self) -> None:
        """Called now and then: how far the index is."""
        self._rate.saw(self._index.indexed_offset)

    def status(self) -> dict[str, float | None]:
        """JSON-able; records per second include those skipped and failed."""
        return {
            "rate_per_s": self._rate.per_s(self._index.indexed_offset),
            "sampled_recall_at_10": self.recall.value,
        }

    def gauges(self) -> dict[str, float]:
        """Figures for metrics; what is not known yet is left out."""
        index = self._index
        sizes = {"segments": index.segment_count, "memory_bytes": index.memory_bytes, "disk_bytes": index.disk_bytes}
        return sizes | {name: value for name, value in self.status().items() if value is not None}
