"""The process's file descriptors: asked for, then shared between segments and connections.

Without a descriptor a segment cannot be opened, and a segment that cannot be written ends the process. So clients may not
take them all: with the usual limit of 1,024, a thousand connections would.
"""

import resource
from typing import NamedTuple

import structlog

from storage.config import StorageConfig

# A segment that is read has its file and its mapping, which Python gives a descriptor of its own; then one that is written.
PER_OPEN_SEGMENT = 3
# WAL files, the vector worker, HTTP clients, the few of the interpreter.
OTHERS = 128
OPEN_SEGMENTS = StorageConfig().open_files_max
# Of a small limit, segments get this part, so that most is left for connections.
SEGMENTS_PART = 8

logger = structlog.get_logger(__name__)


class Shares(NamedTuple):
    """Who may have how many."""

    open_segments: int
    connections: int


def claim(connections_max: int) -> Shares:
    """Raises the process's soft limit as far as needed and allowed, then shares it out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections_max + OPEN_SEGMENTS * PER_OPEN_SEGMENT + OTHERS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    shares = share(soft if soft != resource.RLIM_INFINITY else wanted, connections_max)
    if shares.connections < connections_max:
        logger.warning(
            "few file descriptors", limit=soft, connections_max=shares.connections, configured=connections_max
        )
    return shares


def share(limit: int, connections_max: int) -> Shares:
    """What a limit is enough for; at least one of each."""
    segments = max(1, min(OPEN_SEGMENTS, limit // SEGMENTS_PART))
    left = limit - segments * PER_OPEN_SEGMENT - OTHERS
    return Shares(segments, max(1, min(connections_max, left)))
