"""What a broker can answer instead of hits. The codes are Apache Kafka's own."""

from typing import ClassVar


class SearchError(Exception):
    """A search the broker refused: `code` is Kafka's error code, `str(error)` the broker's message."""

    retriable: ClassVar[bool] = False

    def __init__(self, code: int, message: str | None) -> None:
        super().__init__(message or f"the broker answered error {code}")
        self.code = code


class UnknownTopic(SearchError):
    """No topic of this name or id (3, 100)."""


class SearchTimedOut(SearchError):
    """The search took longer than `timeout_ms` (7)."""

    retriable = True


class IndexLoading(SearchError):
    """The index is being opened (14); try again shortly."""

    retriable = True


class EmbedderUnavailable(SearchError):
    """The model cannot embed the query text now (15); searches by vector go on working."""

    retriable = True


class NotAuthorized(SearchError):
    """READ on the topic is not granted (29)."""


class NotSupported(SearchError):
    """The broker does not speak API key 100 (35): it is not Senselog."""


class VectorsNotEnabled(SearchError):
    """The topic has no vector.enabled=true (40)."""


class InvalidSearch(SearchError):
    """A field that does not exist, does not fit or is not supported (42); the message names it."""


class OverLimit(SearchError):
    """More hits, queries or bytes than the broker allows (44)."""


class StorageFailed(SearchError):
    """The broker could not read its log or index (56)."""

    retriable = True


class OffsetNotAvailable(SearchError):
    """`max_wait_ms` ran out before the offsets asked for were indexed (78)."""

    retriable = True


class Throttled(SearchError):
    """Over the client quota (89)."""

    retriable = True


class RecordNotFound(SearchError):
    """No record at the partition and offset given as a query, or no such model (91)."""


_BY_CODE: dict[int, type[SearchError]] = {
    3: UnknownTopic,
    7: SearchTimedOut,
    14: IndexLoading,
    15: EmbedderUnavailable,
    29: NotAuthorized,
    35: NotSupported,
    40: VectorsNotEnabled,
    42: InvalidSearch,
    44: OverLimit,
    56: StorageFailed,
    78: OffsetNotAvailable,
    89: Throttled,
    91: RecordNotFound,
    100: UnknownTopic,
}


def error_for(code: int, message: str | None) -> SearchError:
    """The exception for an answered Kafka error code; codes of newer brokers give a plain SearchError."""
    return _BY_CODE.get(code, SearchError)(code, message)
