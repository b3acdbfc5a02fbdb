"""What the quotas say to a request: how long its client has to wait, and that it is not heard meanwhile (KIP-219)."""

from broker.context import RequestContext
from broker.security.quotas import (
    CONSUMER_BYTE_RATE,
    CONTROLLER_MUTATION_RATE,
    PRODUCER_BYTE_RATE,
    REQUEST_PERCENTAGE,
    Quotas,
)
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from storage.clock import Clock

_PERCENT = 100.0
# Kafka's quota.window.size.seconds: for its share of the broker's time a client waits no longer.
REQUEST_WAIT_MAX_S = 1.0


def user_of(context: RequestContext) -> str:
    """The name in `User:NAME`, which quotas are set for."""
    return context.access.principal.partition(":")[2]


class Throttle:
    """One request, from its frame to its response."""

    __slots__ = ("_client_id", "_clock", "_fetch", "_handling_s", "_produced_bytes", "_quotas", "_user", "empties")

    def __init__(self, quotas: Quotas, clock: Clock, context: RequestContext, key: int, request_bytes: int) -> None:
        self._quotas = quotas
        self._clock = clock
        self._user = user_of(context)
        self._client_id = context.client_id or ""
        self._produced_bytes = request_bytes if key == ApiKey.PRODUCE else 0
        self._fetch = key == ApiKey.FETCH
        self._handling_s = -clock.monotonic()
        self.empties = False
        """Whether the client has read enough for now: the response goes without its records."""

    def handled(self) -> None:
        """The handler has returned."""
        self._handling_s += self._clock.monotonic()

    def wait_ms(self, response_bytes: int, told_ms: int) -> int:
        """For how long the client will not be heard; `told_ms` is what the handler has told it already."""
        now_s = self._clock.monotonic()
        waits = [
            told_ms / 1000,
            min(REQUEST_WAIT_MAX_S, self._take(REQUEST_PERCENTAGE, self._handling_s * _PERCENT, now_s)),
        ]
        if self._produced_bytes:
            waits.append(self._take(PRODUCER_BYTE_RATE, self._produced_bytes, now_s))
        if self._fetch:
            bucket = self._quotas.bucket(CONSUMER_BYTE_RATE, self._user, self._client_id, now_s)
            if bucket is not None:
                waits.append(bucket.take(response_bytes, now_s))
                if waits[-1] > 0:
                    self.empties = True
                    bucket.give_back(response_bytes)
        return round(max(waits) * 1000)

    def _take(self, key: str, units: float, now_s: float) -> float:
        return self._quotas.take(key, self._user, self._client_id, units, now_s)


class MutationQuota:
    """How many partitions a client may create and delete (KIP-599)."""

    def __init__(self, context: RequestContext, strict_from: int) -> None:
        """Clients of versions before `strict_from` do not know the error: they only wait."""
        quotas, clock = context.services.security.quotas, context.services.clock
        self._strict = context.api_version >= strict_from
        self._now_s = clock.monotonic()
        self._bucket = None
        if quotas.active:
            user, client_id = user_of(context), context.client_id or ""
            self._bucket = quotas.bucket(CONTROLLER_MUTATION_RATE, user, client_id, self._now_s)

    def take(self, partitions: int) -> None:
        """Raises KafkaError THROTTLING_QUOTA_EXCEEDED when more was done before than is allowed."""
        if self._bucket is None:
            return
        if self._strict and self._bucket.wait_s(self._now_s) > 0:
            raise KafkaError(ErrorCode.THROTTLING_QUOTA_EXCEEDED)
        self._bucket.take(partitions, self._now_s)

    @property
    def wait_ms(self) -> int:
        """For the response's throttle_time_ms."""
        return 0 if self._bucket is None else round(self._bucket.wait_s(self._now_s) * 1000)
