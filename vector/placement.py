"""Which worker has which partition (docs/adr/0017). Pure."""

from hashlib import blake2b

LEAD = 0
"""The worker that decides about the generations of every topic."""


def worker_of(topic_id: bytes, partition: int, workers: int) -> int:
    """0 to `workers` - 1: partitions of a topic in turn, from a worker on that its id decides."""
    first = int.from_bytes(blake2b(topic_id, digest_size=8).digest(), "big")
    return (first + partition) % workers
