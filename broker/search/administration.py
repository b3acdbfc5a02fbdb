"""What people do with the index of a topic, behind every door: see what failed, pause, resume."""

from typing import Any

from broker.search.failures import FailureLog
from broker.topics import Topic, Topics
from protocol.errors import ErrorCode, KafkaError
from vector.request import VectorsNotEnabled

FAILURES_MAX = 1000
"""Of one page."""


class VectorAdministration:
    """Names topics as the doors do; every method raises KafkaError: 3 unknown topic, 40 no vectors, 42 and 44 for arguments."""

    def __init__(self, topics: Topics, failures: FailureLog) -> None:
        self._topics = topics
        self._failures = failures

    def failures(
        self,
        name: str,
        *,
        partition: int | None = None,
        generation: int | None = None,
        after: tuple[int, int] | None = None,
        limit: int = 100,
    ) -> dict[str, Any]:
        """Records that could not be indexed, by partition and offset, JSON-able: `failures`, how many there are in `total`, and in
        `next` the `after` of the next page (null: there is none). `generation` None: of every generation that is kept."""
        topic = self._topic(name)
        if not 1 <= limit <= FAILURES_MAX:
            raise KafkaError(ErrorCode.POLICY_VIOLATION, f"limit: {limit} is not between 1 and {FAILURES_MAX}")
        if partition is not None:
            topic.partition(partition)
        found = self._failures.listed(topic, generation, partition)
        rest = [entry for entry in found if after is None or (entry.key.partition, entry.key.offset) > after]
        page = rest[:limit]
        while len(page) < len(rest) and _place(rest[len(page)]) == _place(page[-1]):
            page.append(rest[len(page)])  # another generation's entry of the same record: `after` would jump over it
        return {
            "topic": name,
            "total": len(found),
            "failures": [entry.document() for entry in page],
            "next": list(_place(page[-1])) if len(page) < len(rest) else None,
        }

    def pause(self, name: str) -> None:
        """Stops indexing until `resume`, over restarts too: it is the topic's config vector.paused. Searches go on."""
        self._set(name, {"vector.paused": "true"})

    def resume(self, name: str) -> None:
        """Goes on indexing."""
        self._set(name, {"vector.paused": None})

    def _set(self, name: str, changes: dict[str, str | None]) -> None:
        topic = self._topic(name)
        configs = {key: value for key, value in topic.configs.items() if key not in changes}
        self._topics.set_configs(name, configs | {key: value for key, value in changes.items() if value is not None})

    def _topic(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name!r}")
        if topic.vector is None:
            raise VectorsNotEnabled(name)
        return topic


def _place(entry: Any) -> tuple[int, int]:
    return entry.key.partition, entry.key.offset
