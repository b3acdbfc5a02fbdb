"""Search the topics of a Senselog broker by meaning, over the Kafka protocol."""

from senselog_client.errors import (
    EmbedderUnavailable,
    IndexLoading,
    InvalidSearch,
    NotAuthorized,
    NotSupported,
    OffsetNotAvailable,
    OverLimit,
    RecordNotFound,
    SearchError,
    SearchTimedOut,
    StorageFailed,
    Throttled,
    UnknownTopic,
    VectorsNotEnabled,
)
from senselog_client.result import Hit, PartitionState, SearchResult, Status
from senselog_client.sync import SenselogClient

__all__ = [
    "AsyncSenselogClient",
    "EmbedderUnavailable",
    "Hit",
    "IndexLoading",
    "InvalidSearch",
    "NotAuthorized",
    "NotSupported",
    "OffsetNotAvailable",
    "OverLimit",
    "PartitionState",
    "RecordNotFound",
    "SearchError",
    "SearchResult",
    "SearchTimedOut",
    "SenselogClient",
    "Status",
    "StorageFailed",
    "Throttled",
    "UnknownTopic",
    "VectorsNotEnabled",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # aiokafka is an extra: importing this package must not need it.
    if name == "AsyncSenselogClient":
        from senselog_client.asynchronous import AsyncSenselogClient

        return AsyncSenselogClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
