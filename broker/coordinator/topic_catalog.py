"""The topics as a consumer group sees them: names, ids and numbers of partitions."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple, Protocol


class TopicFacts(NamedTuple):
    """One topic that exists."""

    name: str
    topic_id: bytes
    partition_count: int


class TopicCatalog(Protocol):
    """All topics that exist now."""

    @property
    def revision(self) -> int:
        """Grows with every change."""

    def named(self, name: str) -> TopicFacts | None: ...

    def identified(self, topic_id: bytes) -> TopicFacts | None: ...

    def names(self) -> Iterable[str]: ...


def metadata_hash(names: Iterable[str], topics: TopicCatalog) -> int:
    """Stands for these topics as they are now: another number means another id or number of partitions somewhere.

    A signed 64-bit number, 0 without topics. Kafka computes another one (XXH3); either only compares it with its own.
    """
    known = sorted(facts for name in names if (facts := topics.named(name)) is not None)
    if not known:
        return 0
    digest = hashlib.blake2b(digest_size=8)
    for name, topic_id, partition_count in known:
        digest.update(f"{len(name)} {name} {partition_count} ".encode() + topic_id)
    return int.from_bytes(digest.digest(), signed=True)
